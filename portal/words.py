"""Figures, times and states in the words that stand on pages."""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from typing import Any, Final

from server.federation.schemas import RunView
from server.federation.states import RunState
from shared.contracts.analysis import Flag
from shared.contracts.case import CaseState, Sex
from shared.contracts.training import OwnPart

FLAG_NAMES: Final = {
    "blast.present": "blasts",
    "nrbc.present": "nucleated red cells",
    "out_of_distribution": "unknown stain",
    "too_few_cells": "too few cells",
    "uncertain.cells": "uncertain cells",
    "image.quality": "image quality",
}
STATE_NAMES: Final = {
    CaseState.AVAILABLE: "to read",
    CaseState.IN_REVIEW: "in review",
    CaseState.REJECTED: "glass asked for",
}
ACTIONS: Final = {
    "queued": "waits to start",
    "starting": "is starting",
    "running": "is learning",
    "evaluating": "is being evaluated at every hospital",
    "paused": "is paused",
    "completed": "is complete",
    "stopped": "was stopped",
    "failed": "failed",
}


def when(value: datetime | None) -> str:
    """``22 Nov 2026 14:05 UTC``."""
    if value is None:
        return "—"
    return f"{value.astimezone(UTC):%-d %b %Y %H:%M} UTC"


def clock(value: datetime | None) -> str:
    """``14:05:09``, for log books of one day."""
    return "—" if value is None else f"{value.astimezone(UTC):%H:%M:%S}"


def duration(seconds: float | None) -> str:
    """A length of time, coarse: ``48 s``, ``38 min``, ``2 h``, ``3 d``."""
    if seconds is None:
        return "—"
    seconds = max(0.0, seconds)
    for limit, unit, size in ((90, "s", 1), (5400, "min", 60), (129600, "h", 3600)):
        if seconds < limit:
            return f"{round(seconds / size)} {unit}"
    return f"{round(seconds / 86400)} d"


def clocked(seconds: float | None) -> str:
    """A length of time, fine: ``48 s``, ``3 min 12 s``, ``1 h 4 min``."""
    if seconds is None:
        return "—"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def day(value: date) -> str:
    """``16 Nov``."""
    return f"{value:%-d %b}"


def since(value: datetime | None) -> str:
    """How long ago something was."""
    return "—" if value is None else duration((datetime.now(UTC) - value).total_seconds())


def size(value: float | None) -> str:
    """Bytes for people."""
    if value is None:
        return "—"
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction as ``94.2 %``."""
    return "—" if fraction is None else f"{fraction * 100:.{digits}f} %"


def figure(value: float | None, digits: int = 3) -> str:
    """A plain number, or a dash."""
    return "—" if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 2) -> str:
    """A figure between −1 and 1, with a true minus sign."""
    return "—" if value is None else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def count(value: int | None) -> str:
    """A whole number with thin spaces between thousands."""
    return "—" if value is None else f"{value:,}".replace(",", "\u202f")


def flag_name(flag: Flag | str) -> str:
    """The reader's words for a flag."""
    key = flag if isinstance(flag, str) else flag.id
    return FLAG_NAMES.get(key, key.replace(".", " ").replace("_", " "))


def flag_line(flag: Flag) -> str:
    """``immature granulocytes 4 % (1.1–9.9)``."""
    evidence = flag.evidence
    line = flag_name(flag)
    if evidence.percent is not None:
        line += f" {evidence.percent:.1f}".removesuffix(".0") + "\N{NO-BREAK SPACE}%"
        if evidence.low is not None and evidence.high is not None:
            line += f" ({evidence.low:.1f}–{evidence.high:.1f})"
    elif evidence.count is not None:
        line += f" {evidence.count}"
    return line


def state_name(state: CaseState) -> str:
    """A case state in words."""
    return STATE_NAMES.get(state, state.value.replace("_", " "))


def sex_letter(sex: Sex) -> str:
    """``F``, ``M``; nothing where it is not known."""
    return {Sex.FEMALE: "F", Sex.MALE: "M", Sex.OTHER: "X"}.get(sex, "")


def short_id(value: str | None) -> str:
    """The first letters of a long random id."""
    return "—" if not value else value[:8]


def sentence(text: str) -> str:
    """First letter large."""
    return text[:1].upper() + text[1:]


def run_headline(run: RunView) -> str:
    """What a run is doing right now, in one line."""
    if run.state is RunState.RUNNING and run.round_views:
        last = run.round_views[-1]
        line = f"Round {last.round} of {run.rounds} · {last.replied} of {last.sampled} hospitals replied"
        left = minutes_left(run)
        return line + (f" · {left} left" if left else "")
    if run.state is RunState.COMPLETED:
        done = f"{run.rounds_done} of {run.rounds} rounds done"
        return done + (f" · model {run.model_version}" if run.model_version else "")
    if run.state.resumable:
        return f"{run.rounds_done} of {run.rounds} rounds done"
    return f"{run.rounds} rounds planned" if not run.rounds_done else f"{run.rounds_done} of {run.rounds} rounds done"


def minutes_left(run: RunView) -> str:
    """A guess from the rounds so far: ``about 6 min``; empty before the first has ended."""
    finished = [view.seconds for view in run.round_views if view.whole and view.seconds is not None]
    if not finished:
        return ""
    mean = sum(finished) / len(finished)
    under_way = run.round_views[-1]
    spent = (datetime.now(UTC) - under_way.started_at).total_seconds() if under_way.ended_at is None else 0.0
    left = mean * (run.rounds - len(finished)) - min(spent, mean)
    return f"about {duration(left)}" if left > 5 else ""


def run_title(state: RunState) -> str:
    """``Run is learning``."""
    return ACTIONS[state.value]


def joined(values: Iterable[str]) -> str:
    """``a, b and c``."""
    items = list(values)
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]])) if items else ""


def own_parts(parts: Iterable[OwnPart]) -> str:
    """``own view, own head``."""
    return ", ".join(f"own {part.value}" for part in parts)


FILTERS: Final[dict[str, Callable[..., Any]]] = {  # Any: Jinja filters take what templates give them
    "when": when,
    "clock": clock,
    "duration": duration,
    "since": since,
    "clocked": clocked,
    "day": day,
    "size": size,
    "percent": percent,
    "figure": figure,
    "count": count,
    "signed": signed,
    "flag_name": flag_name,
    "flag_line": flag_line,
    "state_name": state_name,
    "sex_letter": sex_letter,
    "short_id": short_id,
    "sentence": sentence,
    "run_headline": run_headline,
    "run_title": run_title,
    "joined": joined,
    "own_parts": own_parts,
}
