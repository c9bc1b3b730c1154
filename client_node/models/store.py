"""Which model versions lie on a node, which one analyses, and what was decided about each."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from client_node.home import NodeHome
from shared.contracts.errors import NotFoundError
from shared.contracts.report import ModelDecision
from shared.crypto.pki import write_private

CARD: Final = "card.json"
_DECISION: Final = "decision.json"


class Current(BaseModel):
    """`models/current.json`: written in one step, so analysis sees the old version or the new one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: str
    previous: str | None = None
    installed_at: datetime


class Decided(BaseModel):
    """`models/<version>/decision.json`: what this node did with a version, and whether the centre knows."""

    model_config = ConfigDict(frozen=True)

    decision: ModelDecision
    reported: bool = False


def current(home: NodeHome) -> Current | None:
    """Return what analyses now, or None."""
    try:
        return Current.model_validate_json(home.current_model.read_bytes())
    except (OSError, ValidationError):
        return None


def current_version(home: NodeHome) -> str | None:
    """Return the version that analyses now, or None."""
    now = current(home)
    return now.version if now else None


def present(home: NodeHome, version: str) -> bool:
    """Whether a version lies here, verified."""
    return (home.model(version) / CARD).is_file()


def make_current(home: NodeHome, version: str) -> None:
    """Let ``version`` analyse from now on, and remember the one before it.

    Raises:
        NotFoundError: the version does not lie here.
    """
    if not present(home, version):
        raise NotFoundError(f"The model {version} is not on this node.")
    now = current(home)
    if now is not None and now.version == version:
        return
    new = Current(version=version, previous=now.version if now else None, installed_at=datetime.now(UTC))
    write_private(home.current_model, new.model_dump_json().encode())


def decided(home: NodeHome, version: str) -> Decided | None:
    """Return what was decided about a version, or None."""
    try:
        return Decided.model_validate_json(_file(home, version).read_bytes())
    except (OSError, ValidationError):
        return None


def note(home: NodeHome, decision: ModelDecision, *, reported: bool = False) -> Decided:
    """Keep a decision; it is told to the centre when that answers."""
    folder = home.model(decision.version)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = Decided(decision=decision, reported=reported)
    write_private(folder / _DECISION, kept.model_dump_json().encode())
    return kept


def unreported(home: NodeHome) -> list[ModelDecision]:
    """Return the decisions that the centre does not know yet."""
    found = (decided(home, folder.name) for folder in _folders(home))
    return [entry.decision for entry in found if entry is not None and not entry.reported]


def _file(home: NodeHome, version: str) -> Path:
    return home.model(version) / _DECISION


def _folders(home: NodeHome) -> list[Path]:
    return sorted(folder for folder in home.models.glob("*/") if not folder.name.startswith("."))
