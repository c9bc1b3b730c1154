"""The worklist's clock, filters and tabs in words."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from server.cases.lifecycle import OPEN
from server.cases.schemas import SavedViewView, Sort, Worklist, WorklistFilter, WorklistRow

NEAR: Final = 0.75
"""The share of the turn-around time from which on a case is near its end."""
COLUMNS: Final = (
    (Sort.URGENCY, "Priority", ""),
    (Sort.CASE, "Case", ""),
    (Sort.HOSPITAL, "Hospital", ""),
    (Sort.FLAGS, "Flags", ""),
    (Sort.CELLS, "Cells", "n"),
    (Sort.DOUBTFUL, "Doubtful", "n"),
    (Sort.WAITING, "Waiting", "n"),
    (Sort.DUE, "Turn-around", ""),
    (Sort.READER, "Reader", ""),
)
"""Sort, heading, and class of each column."""
BUILT_IN: Final = (
    ("To read", WorklistFilter()),
    ("Mine", WorklistFilter(reader="me")),
    ("Unassigned", WorklistFilter(reader="nobody")),
    ("Late", WorklistFilter(late=True)),
    ("Questions", WorklistFilter(state="all", asked=True)),
    ("Signed", WorklistFilter(state="done", sort=Sort.WAITING, descending=True)),
)


@dataclass(frozen=True)
class Clock:
    """How much of a case's turn-around time is used."""

    fifths: int
    tone: str
    """``late``, ``soon`` or nothing."""
    words: str


def clock(row: WorklistRow) -> Clock | None:
    """Return a case's clock; None where it runs no more."""
    if row.state not in OPEN:
        return None
    now = datetime.now(UTC)
    whole = max(1.0, (row.due_at - row.received_at).total_seconds())
    used = (now - row.received_at).total_seconds() / whole
    left = (row.due_at - now).total_seconds()
    tone = "late" if left < 0 else "soon" if used > NEAR else ""
    words = {"late": f"late {length(-left)}", "soon": f"{length(left)} left", "": f"{length(left)} left"}[tone]
    return Clock(min(5, max(0, int(used * 5) + 1)), tone, words)


def length(seconds: float) -> str:
    """A length of time as the worklist says it: ``38 min``, ``2 h``, ``3 d``."""
    minutes = max(1, round(seconds / 60))
    if minutes < 120:
        return f"{minutes} min"
    return f"{round(minutes / 60)} h" if minutes < 2880 else f"{round(minutes / 1440)} d"


def title(found: Worklist) -> str:
    """What the browser's tab says: ``(12 · 2 STAT) Worklist``."""
    stat = f" · {found.stat} STAT" if found.stat else ""
    return f"({found.to_read}{stat}) Worklist" if found.to_read else "Worklist"


def query_of(wanted: WorklistFilter, **further: str) -> str:
    """Return the address of the worklist with these filters."""
    fields = {
        "search": wanted.search,
        "hospital": wanted.hospital_id or "",
        "priority": wanted.priority.value if wanted.priority else "",
        "flag": wanted.flag or "",
        "reader": wanted.reader,
        "late": "1" if wanted.late else "",
        "asked": "1" if wanted.asked else "",
        "sort": "" if wanted.sort is Sort.URGENCY else wanted.sort.value,
        "down": "1" if wanted.descending else "",
        **further,
    }
    return "/worklist?" + urlencode({"state": wanted.state, **{key: value for key, value in fields.items() if value}})


@dataclass(frozen=True)
class Tab:
    """A view to choose."""

    name: str
    href: str
    current: bool
    view_id: str = ""
    is_default: bool = False


def tabs(saved: list[SavedViewView], wanted: WorklistFilter, view_id: str) -> list[Tab]:
    """Return what everybody has, then a person's own views; the current one by what is shown."""
    chosen = next((view for view in saved if view.id == view_id), None)
    found = [
        Tab(name, query_of(one), chosen is None and one == wanted.model_copy(update={"search": ""}))
        for name, one in BUILT_IN
    ]
    found += [
        Tab(view.name, query_of(view.wanted, view=view.id), view is chosen, view.id, view.is_default) for view in saved
    ]
    return found
