"""Cells that a reader marks: one that was missed, two in one box, one in two boxes.

Each is an act like a change of class: on record, once by its key, taken back by undo. The crop is cut from the field in
the centre's memory and lies encrypted under the case's key, like those that the hospital sent. No transaction is open
while images are read or stored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlmodel import Session

from server.accounts.schemas import Principal
from server.cases import service as cases
from server.cases import viewing
from server.models import CaseCell, CaseField, ChangeKind
from server.models.base import utc_now
from server.reviews import steps
from server.reviews.schemas import ChangeResult, Done, NewBox
from server.reviews.steps import Step
from server.runtime import Runtime
from shared.contracts.errors import ConflictError, DataInvalidError
from shared.contracts.ontology import CellClass

LEAST_SIDE = 6
"""Pixels; a smaller box is a slip of the hand."""
SAME_CELL = 0.6
"""Intersection over union from which a new box marks a cell that has one already."""
MARKED_LIMIT = 500
"""Marked cells a case, taken back or not."""


@dataclass(frozen=True)
class _New:
    """A cell to be: where, what, and once it is cut, its image."""

    place: NewBox
    field: CaseField
    label: CellClass
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Plan:
    """What an act does: cells that no longer stand, cells that are new."""

    kind: ChangeKind
    act: str
    gone: tuple[str, ...]
    new: tuple[_New, ...]


def add(
    runtime: Runtime,
    principal: Principal,
    case_id: str,
    *,
    field: int,
    place: NewBox,
    label: CellClass,
    idempotency_key: str,
) -> ChangeResult:
    """Mark a cell that was missed.

    Raises:
        DataInvalidError: the box lies outside the field, is too small, or marks a cell that has a box.
        ConflictError: this reader does not hold the case, or the id is taken.
    """

    act = f"add:{case_id}:{idempotency_key}"

    def plan(session: Session, rows: list[CaseCell]) -> _Plan:
        image = cases.field_of(session, case_id, field)
        same = [cell for cell in rows if cell.stands and cell.field == field and _overlap(cell, place) >= SAME_CELL]
        if same:
            number = cases.numbers_of(rows)[same[0].cell_id]
            raise DataInvalidError(f"Cell {number} is marked there already; choose it to change its class.")
        return _Plan(ChangeKind.ADDED, act, (), (_New(place, image, label),))

    return _do(runtime, principal, case_id, act, plan)


def split(
    runtime: Runtime,
    principal: Principal,
    case_id: str,
    *,
    cell_id: str,
    places: tuple[NewBox, NewBox],
    idempotency_key: str,
) -> ChangeResult:
    """Put two boxes in place of one; both have its class.

    Raises:
        NotFoundError: the cell is not of this case (any more).
        DataInvalidError: it lies in no field, or a box is bad.
    """
    act = f"split:{case_id}:{idempotency_key}"

    def plan(session: Session, rows: list[CaseCell]) -> _Plan:
        (cell,) = steps.pick(rows, [cell_id])
        image = _field_of(session, case_id, [cell])
        new = tuple(_New(place, image, cell.current_class, (cell_id,)) for place in places)
        return _Plan(ChangeKind.SPLIT, act, (cell_id,), new)

    return _do(runtime, principal, case_id, act, plan)


def merge(
    runtime: Runtime,
    principal: Principal,
    case_id: str,
    *,
    cell_ids: list[str],
    new_id: str,
    idempotency_key: str,
) -> ChangeResult:
    """Put one box around several of one field; it has the class of the first.

    Raises:
        NotFoundError: a cell is not of this case (any more).
        DataInvalidError: fewer than two cells, or not of one field.
    """
    act = f"merge:{case_id}:{idempotency_key}"

    def plan(session: Session, rows: list[CaseCell]) -> _Plan:
        old = steps.pick(rows, cell_ids)
        if len(old) < 2:
            raise DataInvalidError("Choose the two cells that are one, then merge.")
        image = _field_of(session, case_id, old)
        box = (
            min(cell.x0 for cell in old),
            min(cell.y0 for cell in old),
            max(cell.x1 for cell in old),
            max(cell.y1 for cell in old),
        )
        parents = tuple(cell.cell_id for cell in old)
        new = _New(NewBox(cell_id=new_id, box=box), image, old[0].current_class, parents)
        return _Plan(ChangeKind.MERGED, act, parents, (new,))

    return _do(runtime, principal, case_id, act, plan)


def _do(
    runtime: Runtime, principal: Principal, case_id: str, act: str, plan: Callable[[Session, list[CaseCell]], _Plan]
) -> ChangeResult:
    done = _done(runtime, principal, case_id, act, plan)
    with runtime.database.session(read_only=True) as session:
        return steps.changed(session, principal, case_id, done)


def _done(
    runtime: Runtime, principal: Principal, case_id: str, act: str, plan: Callable[[Session, list[CaseCell]], _Plan]
) -> Done:
    with runtime.database.session(read_only=True) as session:
        case = cases.visible_case(session, principal, case_id, whole=True)
        cases.require_held(case, principal)
        if (before := steps.done_before(session, case, act)) is not None:
            return before
        rows = cases.all_cells_of(session, case_id)
        wanted = plan(session, rows)
        _check(wanted, rows)
    images = [viewing.keep_crop(runtime, case, new.field, new.place.box, actor=principal.actor) for new in wanted.new]
    with runtime.database.session() as session:
        case = cases.held_case(session, principal, case_id)
        if (before := steps.done_before(session, case, act)) is not None:
            return before
        rows = cases.all_cells_of(session, case_id)
        # Once more, now that nobody else can change the case.
        wanted = plan(session, rows)
        _check(wanted, rows)
        made = [_row(case_id, new, image, principal) for new, image in zip(wanted.new, images, strict=True)]
        session.add_all(made)
        old = [cell for cell in rows if cell.cell_id in wanted.gone]
        taken = [Step(cell, cell.current_class, stands=False) for cell in old]
        taken += [Step(cell, cell.current_class, stood=False) for cell in made]
        steps.take(session, case, principal, kind=wanted.kind, act=act, steps=taken)
        steps.note(session, case, principal, action=f"cells.{wanted.kind.value}", data=_told(wanted))
        return steps.done(case, [step.cell for step in taken])


def _check(plan: _Plan, rows: Sequence[CaseCell]) -> None:
    known = {cell.cell_id for cell in rows}
    ids = [new.place.cell_id for new in plan.new]
    if known & set(ids) or len(set(ids)) != len(ids):
        raise ConflictError("A cell of this id is there already. Reload the page.")
    if sum(cell.added_by is not None for cell in rows) + len(ids) > MARKED_LIMIT:
        raise DataInvalidError(f"No more than {MARKED_LIMIT} cells can be marked by hand in one case.")
    for new in plan.new:
        x0, y0, x1, y1 = new.place.box
        if not (0 <= x0 < x1 <= new.field.width and 0 <= y0 < y1 <= new.field.height):
            raise DataInvalidError("The box lies outside the field; draw it again.")
        if min(x1 - x0, y1 - y0) < LEAST_SIDE:
            raise DataInvalidError("The box is too small for a cell; draw it again.")


def _row(case_id: str, new: _New, blob: str, principal: Principal) -> CaseCell:
    """Return the new cell's row: the model has said nothing about it."""
    x0, y0, x1, y1 = new.place.box
    return CaseCell(
        case_id=case_id,
        cell_id=new.place.cell_id,
        field=new.field.index,
        x0=x0,
        y0=y0,
        x1=x1,
        y1=y1,
        blob=blob,
        ai_class=CellClass.UNIDENTIFIED,
        ai_probability=0.0,
        prediction_set=[],
        ood_score=0.0,
        current_class=new.label,
        added_by=principal.user_id,
        added_at=utc_now(),
        parents=list(new.parents),
    )


def _told(plan: _Plan) -> dict[str, object]:
    """Return what the audit says of an act."""
    labels = {new.place.cell_id: new.label.value for new in plan.new}
    boxes = {new.place.cell_id: list(new.place.box) for new in plan.new}
    told: dict[str, object] = {"field": plan.new[0].field.index + 1, "labels": labels, "boxes": boxes}
    return {**told, "instead_of": list(plan.gone)} if plan.gone else told


def _field_of(session: Session, case_id: str, cells: Sequence[CaseCell]) -> CaseField:
    indices = {cell.field for cell in cells}
    index = indices.pop()
    if indices or index is None:
        raise DataInvalidError("Only cells of one and the same field can be merged or split.")
    return cases.field_of(session, case_id, index)


def _overlap(cell: CaseCell, place: NewBox) -> float:
    """Return the intersection of two boxes over their union."""
    x0, y0, x1, y1 = place.box
    width, height = min(cell.x1, x1) - max(cell.x0, x0), min(cell.y1, y1) - max(cell.y0, y0)
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((cell.x1 - cell.x0) * (cell.y1 - cell.y0) + (x1 - x0) * (y1 - y0) - both)
