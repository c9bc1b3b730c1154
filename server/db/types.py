"""Column types that every supported database stores alike."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """A time-zone aware UTC datetime; naive values are refused, since SQLite would silently lose the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware datetime into UTC on its way in."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime: use shared time helpers that give UTC")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give UTC back, also from databases that drop the zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


JsonDict = dict[str, Any]  # Any: the shape is the contract named in the column's docstring
__all__ = ["JSON", "JsonDict", "UtcDateTime"]
