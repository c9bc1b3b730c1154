"""Taking back and doing again: acts of their own, so that the record only ever grows."""

from collections.abc import Sequence

from sqlmodel import Session

from server.accounts.schemas import Principal
from server.cases import service as cases
from server.models import CaseCell, ChangeKind, LabelChange
from server.reviews import repository, steps
from server.reviews.schemas import Done
from server.reviews.steps import Step
from shared.contracts.errors import ConflictError


def undo(session: Session, principal: Principal, case_id: str, idempotency_key: str) -> Done:
    """Take back this reader's last standing act, with all the cells that it touched.

    Raises:
        ConflictError: nothing of this reader's stands, or another reader has changed the same cells since.
    """
    case = cases.held_case(session, principal, case_id)
    act = f"undo:{case_id}:{idempotency_key}"
    if (before := steps.done_before(session, case, act)) is not None:
        return before
    standing = [change for change in repository.changes(session, case_id) if not change.undone]
    own = [change for change in standing if change.by == principal.user_id]
    if not own:
        raise ConflictError("There is no change of yours left to take back.")
    target = repository.act_of(own[-1])
    taken_back = [change for change in own if repository.act_of(change) == target]
    _check_latest(taken_back, standing)
    left = [change for change in standing if change not in taken_back]
    by_id = _cells_of(session, case_id, taken_back)
    back = [Step(by_id[change.cell_id], change.previous, stands=change.stood) for change in taken_back]
    steps.take(session, case, principal, kind=ChangeKind.UNDO, act=act, steps=back, refers_to=target)
    session.flush()
    for change in repository.changes_by_request(session, case_id, act):
        change.undone = True
    for change in taken_back:
        change.undone = True
        _give_back(by_id[change.cell_id], left)
    labels = {change.cell_id: change.previous.value for change in taken_back}
    steps.note(session, case, principal, action="cells.change_undone", data={"labels": labels})
    return steps.done(case, list(by_id.values()))


def redo(session: Session, principal: Principal, case_id: str, idempotency_key: str) -> Done:
    """Do again what this reader took back last, unless another act of theirs came between.

    Raises:
        ConflictError: there is nothing to do again, or the cells are not as they were then.
    """
    case = cases.held_case(session, principal, case_id)
    act = f"redo:{case_id}:{idempotency_key}"
    if (before := steps.done_before(session, case, act)) is not None:
        return before
    target = _taken_back_last(repository.own_acts(session, case_id, principal.user_id))
    if target is None:
        raise ConflictError("There is nothing to do again.")
    by_id = _cells_of(session, case_id, target)
    again = [(by_id[change.cell_id], change) for change in target]
    if any((cell.current_class, cell.stands) != (change.previous, change.stood) for cell, change in again):
        raise ConflictError("The cells were changed since; set their class anew.")
    forward = [Step(cell, change.label, stands=change.stands) for cell, change in again]
    name = repository.act_of(target[0])
    steps.take(session, case, principal, kind=ChangeKind.REDO, act=act, steps=forward, refers_to=name)
    labels = {change.cell_id: change.label.value for change in target}
    steps.note(session, case, principal, action="cells.change_redone", data={"labels": labels})
    return steps.done(case, list(by_id.values()))


def _cells_of(session: Session, case_id: str, changes: Sequence[LabelChange]) -> dict[str, CaseCell]:
    found = cases.cells_named(session, case_id, {change.cell_id for change in changes})
    return {cell.cell_id: cell for cell in found}


def _check_latest(acts: Sequence[LabelChange], standing: Sequence[LabelChange]) -> None:
    last = {change.cell_id: change for change in standing}
    if any(last[change.cell_id] is not change for change in acts):
        raise ConflictError("Another reader has changed these cells since; set their class anew.")


def _give_back(cell: CaseCell, left: Sequence[LabelChange]) -> None:
    """Whoever's earlier change stands now is the cell's author again; nobody where none does."""
    earlier = [change for change in left if change.cell_id == cell.cell_id]
    cell.changed_by, cell.changed_at = (earlier[-1].by, earlier[-1].at) if earlier else (None, None)


def _taken_back_last(acts: list[list[LabelChange]]) -> list[LabelChange] | None:
    """Return the rows of the act to do again: undos pile up, a redo takes one off, any other act clears the pile."""
    by_name = {repository.act_of(rows[0]): rows for rows in acts}
    pile: list[list[LabelChange]] = []
    for rows in acts:
        kind, refers_to = rows[0].kind, rows[0].refers_to
        if kind is ChangeKind.UNDO:
            if refers_to in by_name:
                pile.append(by_name[refers_to])
        elif kind is ChangeKind.REDO:
            if pile:
                pile.pop()
        else:
            pile.clear()
    return pile[-1] if pile else None
