"""Glass slides that readers ask for: smears that could not be read from their images."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from client_node.cases.outbox import Outbox
from client_node.home import NodeHome
from shared.contracts.errors import NotFoundError
from shared.contracts.report import SignedRecord
from shared.crypto.pki import write_private

RECORD: Final = "record.json"
SENT: Final = "glass-sent"


class GlassAsked(BaseModel):
    """A slide to find and send."""

    model_config = ConfigDict(frozen=True)

    case_id: str
    smear_id: str | None
    """The hospital's own name of the smear; never leaves it. None: the outbox knows it no more."""
    reason: str
    asked_at: datetime
    reader: str
    folder: str
    """The report's, below ``reports``: the letter lies in it."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What a record says of its glass slide."""

    case_id: str
    version: int
    reason: str | None
    signed_at: datetime
    reader: str


@lru_cache(maxsize=4096)
def _told(file: Path, _changed_ns: int) -> _Told:
    """Read a record once: the agent asks every few seconds, and records never change."""
    record = SignedRecord.model_validate_json(file.read_bytes())
    return _Told(
        case_id=record.case_id,
        version=record.version,
        reason=record.not_gradable.words if record.not_gradable else None,
        signed_at=record.signature.signed_at,
        reader=record.signature.reader_name,
    )


def glass_asked(home: NodeHome | Path) -> tuple[GlassAsked, ...]:
    """Return the slides that were asked for and not noted as sent, longest waiting first.

    Of each case its newest report counts: one with a result ends the asking.
    """
    place = NodeHome(home)
    newest: dict[str, tuple[_Told, Path]] = {}
    for file in place.reports.glob(f"[!.]*/{RECORD}"):
        with suppress(OSError, ValidationError):
            told = _told(file, file.stat().st_mtime_ns)
            known = newest.get(told.case_id)
            if known is None or known[0].version < told.version:
                newest[told.case_id] = (told, file.parent)
    waiting = [
        GlassAsked(
            case_id=told.case_id, smear_id=_smear_of(place, told.case_id), reason=told.reason,
            asked_at=told.signed_at, reader=told.reader, folder=folder.name,
        )
        for told, folder in newest.values()
        if told.reason is not None and not (folder / SENT).exists()
    ]  # fmt: skip
    return tuple(sorted(waiting, key=lambda one: one.asked_at))


def note_sent(home: NodeHome | Path, case_id: str) -> GlassAsked:
    """Note that a slide is on its way.

    Raises:
        NotFoundError: no slide of this case is asked for.
    """
    place = NodeHome(home)
    asked = next((one for one in glass_asked(place) if one.case_id == case_id), None)
    if asked is None:
        raise NotFoundError(
            f"No glass slide of {case_id} is asked for: `hematovision-node glass` lists those that are."
        )
    write_private(place.reports / asked.folder / SENT, datetime.now(UTC).isoformat().encode())
    return asked


def _smear_of(home: NodeHome, case_id: str) -> str | None:
    try:
        return Outbox(home).get(case_id).smear_id
    except NotFoundError:
        return None
