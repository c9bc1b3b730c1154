"""Column types that every supported database stores alike."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, DateTime, String
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A time-zone aware UTC datetime; naive values are refused, since SQLite would silently lose the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Turn an aware datetime into UTC on its way in."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime: use shared time helpers that give UTC")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Give UTC back, also from databases that drop the zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class EnumValue(TypeDecorator[StrEnum]):
    """A StrEnum kept as its value: readable in the database, and a new member needs no migration."""

    impl = String(40)
    cache_ok = True
    enum: type[StrEnum]

    def process_bind_param(self, value: StrEnum | str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Refuse what is no member, then store its value."""
        return None if value is None else self.enum(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Give the member back."""
        return None if value is None else self.enum(value)


def stored(enum: type[StrEnum]) -> type[EnumValue]:
    """Return the column type of ``enum``, for ``sa_type``."""
    return type(f"Stored{enum.__name__}", (EnumValue,), {"enum": enum, "cache_ok": True, "__module__": __name__})


JsonDict = dict[str, Any]  # Any: the shape is the contract named in the column's docstring
__all__ = ["JSON", "JsonDict", "UtcDateTime", "stored"]
