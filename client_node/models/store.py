"""Which model versions lie on a node, which one analyses, and what was decided about each."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from client_node.home import NodeHome
from shared.contracts.errors import NotFoundError
from shared.contracts.report import ModelDecision
from shared.crypto.pki import write_private

CARD: Final = "card.json"
DECISION: Final = "decision.json"
_REMEMBERED: Final = 3
"""How many versions before the current one stay, to go back to."""


class Current(BaseModel):
    """`models/current.json`: written in one step, so analysis sees the old version or the new one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: str
    history: tuple[str, ...] = ()
    """The versions in use before, newest first."""
    installed_at: datetime


class Decided(BaseModel):
    """`models/<version>/decision.json`: what this node did with a version, and whether the centre knows."""

    model_config = ConfigDict(frozen=True)

    decision: ModelDecision
    at: datetime
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
    """Let ``version`` analyse from now on, and remember the ones before it.

    Raises:
        NotFoundError: the version does not lie here.
    """
    now = current(home)
    if now is None:
        _write_current(home, version, ())
    elif now.version != version:
        before = (now.version, *(one for one in now.history if one not in (version, now.version)))
        _write_current(home, version, before[:_REMEMBERED])


def step_back(home: NodeHome) -> tuple[str, str]:
    """Go back to the newest remembered version; return the one left and the one in use now.

    Raises:
        NotFoundError: there is none.
    """
    now = current(home)
    kept = [version for version in now.history if present(home, version)] if now else []
    if now is None or not kept:
        raise NotFoundError("There is no earlier model on this node to go back to.")
    _write_current(home, kept[0], tuple(kept[1:]))
    return now.version, kept[0]


def drop(home: NodeHome, version: str) -> None:
    """Remove a version's files; what was decided about it stays known."""
    for file in home.model(version).glob("*"):
        if file.name != DECISION:
            shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)


def prune(home: NodeHome) -> None:
    """Drop installed versions that are neither in use nor remembered."""
    now = current(home)
    keep = {now.version, *now.history} if now else set()
    for folder in _folders(home):
        entry = decided(home, folder.name)
        if now and entry and folder.name not in keep and entry.decision.decision in ("installed", "refused"):
            drop(home, folder.name)


def decided(home: NodeHome, version: str) -> Decided | None:
    """Return what was decided about a version, or None."""
    try:
        return Decided.model_validate_json(_file(home, version).read_bytes())
    except (OSError, ValidationError):
        return None


def note(home: NodeHome, decision: ModelDecision, *, reported: bool = False) -> None:
    """Keep a decision; it is told to the centre when that answers. The same one again is told only once."""
    folder, known = home.model(decision.version), decided(home, decision.version)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    reported = reported or (known is not None and known.reported and known.decision == decision)
    kept = Decided(decision=decision, at=datetime.now(UTC), reported=reported)
    write_private(folder / DECISION, kept.model_dump_json().encode())


def unreported(home: NodeHome) -> list[ModelDecision]:
    """Return the decisions that the centre does not know yet, oldest first."""
    found = [entry for folder in _folders(home) if (entry := decided(home, folder.name)) and not entry.reported]
    return [entry.decision for entry in sorted(found, key=lambda entry: entry.at)]


@contextmanager
def alone(home: NodeHome) -> Iterator[None]:
    """Keep the agent and a command apart while either decides about a model."""
    home.models.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(home.models / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write_current(home: NodeHome, version: str, history: tuple[str, ...]) -> None:
    if not present(home, version):
        raise NotFoundError(f"The model {version} is not on this node.")
    new = Current(version=version, history=history, installed_at=datetime.now(UTC))
    write_private(home.current_model, new.model_dump_json().encode())


def _file(home: NodeHome, version: str) -> Path:
    return home.model(version) / DECISION


def _folders(home: NodeHome) -> list[Path]:
    return sorted(folder for folder in home.models.glob("*/") if not folder.name.startswith("."))
