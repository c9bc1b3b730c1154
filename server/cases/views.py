"""Turning rows into what a page sees: order, doubt and the live differential."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from server.cases.schemas import CellOutline, CellView, FieldView, FlagView, WorklistRow
from server.models import Case, CaseCell, CaseField
from shared.contracts.analysis import Differential, Flag, Severity
from shared.contracts.case import OVERLAY_PREFIX, CaseState
from shared.contracts.ontology import CellClass
from shared.statistics import differential

_EMPTY_SET_RANK = 99
_SEVERITY_RANK = {Severity.CRITICAL: 0, Severity.URGENT: 1, Severity.ROUTINE: 2}
NO_FLAG: Final = len(_SEVERITY_RANK)
"""Rank of a case without flags, behind all others."""


def live_differential(cells: Iterable[CaseCell | CellOutline]) -> Differential:
    """Return the differential of the classes and cells that stand now."""
    return differential(cell.current_class for cell in cells if cell.stands)


def standing(cells: Iterable[CaseCell]) -> list[CaseCell]:
    """Leave out what readers have split, merged or taken back."""
    return [cell for cell in cells if cell.stands]


def numbers(cells: Iterable[CaseCell | CellOutline]) -> dict[str, int]:
    """Return cell id → what a person calls it; ``cells`` are all that the case ever had, in their order."""
    return {cell.cell_id: number for number, cell in enumerate(cells, start=1)}


def lease_holds(case: Case, now: datetime) -> bool:
    """Whether somebody holds the case at this moment."""
    return case.claimed_by is not None and case.lease_until is not None and case.lease_until > now


def cell_views(cells: Iterable[CaseCell], numbers: Mapping[str, int], names: Mapping[str, str]) -> list[CellView]:
    """Return the views of those of the cells that stand, in reading order; ``numbers``: cell id → its number.

    Grouped by the class that stands, in reporting order; inside a class the most doubtful first: larger prediction
    sets (an empty one counts as largest), then the smaller lead over the second class (where a node does not tell it:
    the smaller probability), then the farther from what was trained.
    """
    return sorted((cell_view(cell, numbers[cell.cell_id], names) for cell in cells if cell.stands), key=reading_order)


def cell_view(cell: CaseCell, number: int, names: Mapping[str, str]) -> CellView:
    """Return one cell's view."""
    changed = cell.changed_by is not None
    return CellView(
        cell_id=cell.cell_id,
        number=number,
        field=cell.field,
        box=(cell.x0, cell.y0, cell.x1, cell.y1),
        blob=cell.blob,
        ai_class=cell.ai_class,
        ai_probability=cell.ai_probability,
        prediction_set=[CellClass(value) for value in cell.prediction_set],
        ood_score=cell.ood_score,
        edge=cell.edge,
        provisional=cell.provisional,
        current_class=cell.current_class,
        changed_by=names.get(cell.changed_by or ""),
        changed_at=cell.changed_at,
        doubtful=not changed and is_doubtful(cell),
        margin=cell.ai_margin,
        added_by=names.get(cell.added_by or ""),
    )


def is_doubtful(cell: CaseCell | CellOutline) -> bool:
    """Whether the model was unsure of the cell, or its first impression was another; whatever was made of it since."""
    return is_unsure(cell) or cell.disputed


def is_unsure(cell: CaseCell | CellOutline) -> bool:
    """Whether the model was unsure of the cell (`shared.contracts.analysis.Cell.doubtful`)."""
    return len(cell.prediction_set) != 1 or cell.ood_score > 1.0 or cell.provisional


def reading_order(view: CellView) -> tuple[int, int, float, float, int]:
    """Return what `cell_views` sorts by."""
    set_size = 1 if view.added_by else len(view.prediction_set) or _EMPTY_SET_RANK
    margin = view.ai_probability if view.margin is None else view.margin
    return view.current_class.order, -set_size, margin, -view.ood_score, view.number


def field_views(fields: Iterable[CaseField]) -> list[FieldView]:
    """Return the field images' views."""
    return [FieldView.model_validate(field, from_attributes=True) for field in fields]


def worklist_row(
    case: Case,
    *,
    hospital_name: str,
    holder_name: str | None,
    assignee_name: str | None,
    key: list[str | int],
    now: datetime,
    blind: bool,
) -> WorklistRow:
    """Return one line of the worklist; a lapsed claim counts as none. ``blind``: without what the AI found."""
    held = lease_holds(case, now)
    lapsed = case.state is CaseState.CLAIMED and not held
    return WorklistRow(
        case_id=case.id,
        hospital_id=case.hospital_id,
        hospital_name=hospital_name,
        priority=case.priority,
        state=CaseState.AVAILABLE if lapsed else case.state,
        flags=[] if blind else flags_of(case),
        cell_count=case.cell_count,
        doubtful_count=0 if blind else case.doubtful_count,
        received_at=case.received_at,
        due_at=case.due_at,
        claimed_by=holder_name if held else None,
        claimed_by_id=case.claimed_by if held else None,
        assigned_to=assignee_name,
        assigned_to_id=case.assigned_to,
        key=key,
        pseudo=case.pseudo,
        synthetic=case.synthetic,
        blind=blind,
        amending=case.amending is not None,
    )


def overlays(case: Case) -> list[str]:
    """Return the ids of the cells of which an overlay came with the case."""
    names = [str(blob["name"]) for blob in case.manifest["manifest"]["blobs"]]
    return [name.removeprefix(OVERLAY_PREFIX).removesuffix(".png") for name in names if name.startswith(OVERLAY_PREFIX)]


def index_flags(case: Case, flags: Sequence[Flag]) -> None:
    """Keep what the worklist filters and sorts by beside a case's flags."""
    case.flag_ids = " ".join(["", *dict.fromkeys(flag.id for flag in flags), ""]) if flags else " "
    case.flag_rank = min((_SEVERITY_RANK[flag.severity] for flag in flags), default=NO_FLAG)


def flags_of(case: Case) -> list[Flag]:
    """Return the case's flags as contracts."""
    return [Flag.model_validate(flag) for flag in case.flags]


def flag_views(case: Case) -> list[FlagView]:
    """Return the case's flags as the reading room shows them."""
    return [FlagView.model_validate(flag) for flag in case.flags]
