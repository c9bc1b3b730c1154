"""What a reader enters beside the differential: each item a step on record, once by its key, taken back by a step."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from pydantic import JsonValue, ValidationError
from sqlmodel import Session

from server.accounts.schemas import Principal
from server.cases import service as cases
from server.cases.sight import require_open
from server.models import Case, FindingChange
from server.reviews import repository, steps
from server.reviews.schemas import FindingsView, FindingView, SetBy
from shared.contracts.errors import ConflictError, DataInvalidError
from shared.contracts.findings import TEXT_LIMIT, Findings, Part, Scale, Term
from shared.reporting.findings import statements
from shared.text import typed

GRADE: Final = "grade"
TEXT: Final = "text"
_WHOLE: Final = frozenset({"schistocytes", "platelets", "malaria"})
_WORDS: Final = {
    "counted": "cells counted",
    "white_cells_10e9_l": "the white-cell count",
    "platelets": "platelets",
    "fields": "fields",
    "factor": "the factor",
    "parasites": "parasites",
    "schistocytes": "schistocytes",
}
State = dict[str, JsonValue]
"""Item → its value as it stands; what was cleared is absent."""


def view(session: Session, principal: Principal, case_id: str) -> FindingsView:
    """Return what stands, who set it, and how it is said.

    Raises:
        ConflictError: this person reads the case blind, and has not saved it yet.
    """
    case = cases.visible_case(session, principal, case_id)
    require_open(session, principal, case)
    return _view(session, principal, case)


def for_report(session: Session, case_id: str) -> Findings | None:
    """Return what stands, for the record; None: nothing was entered."""
    found = _composed(_standing(repository.finding_changes(session, case_id)))
    return None if found.empty else found


def record(
    session: Session,
    principal: Principal,
    case_id: str,
    *,
    item: str,
    value: JsonValue,
    idempotency_key: str,
    few: AbstractSet[Term],
) -> FindingsView:
    """Give an item a value, None to clear it. The same key again changes nothing and returns what stands.

    Args:
        item: ``grade.<term>``, ``schistocytes``, ``platelets``, ``malaria`` or ``text.<part>``.
        value: as `shared.contracts.findings.Findings` holds it.
        few: terms for which the site grades "few"; for the others 1 is no grade.

    Raises:
        ConflictError: this reader does not hold the case.
        DataInvalidError: there is no such item, or the value does not fit; the message says what to do.
    """
    case = cases.held_case(session, principal, case_id)
    act = f"finding:{case_id}:{idempotency_key}"
    if repository.finding_by_key(session, act) is not None:
        return _view(session, principal, case)
    _check_item(item)
    state = _standing(repository.finding_changes(session, case_id))
    wanted = _cleaned(item, value)
    checked = _items(_composed({**state, item: wanted}))
    _check_few(item, checked.get(item), few)
    if checked.get(item) != state.get(item):
        _take(session, case, principal, act=act, item=item, value=checked.get(item), previous=state.get(item))
    return _view(session, principal, case)


def undo(session: Session, principal: Principal, case_id: str, idempotency_key: str) -> FindingsView:
    """Take back this reader's last standing step.

    Raises:
        ConflictError: none of this reader's is left, or somebody else has changed the item since.
    """
    case = cases.held_case(session, principal, case_id)
    act = f"finding:{case_id}:{idempotency_key}"
    if repository.finding_by_key(session, act) is not None:
        return _view(session, principal, case)
    changes = repository.finding_changes(session, case_id)
    own = [change for change in changes if change.by == principal.user_id and not change.undone]
    if not own:
        raise ConflictError("There is no entry of yours left to take back.")
    last = own[-1]
    if [change for change in changes if change.item == last.item and not change.undone][-1] is not last:
        raise ConflictError("Another reader has changed this entry since; set it anew.")
    now = _standing(changes).get(last.item)
    _take(session, case, principal, act=act, item=last.item, value=last.previous, previous=now, back=last)
    return _view(session, principal, case)


def _take(
    session: Session,
    case: Case,
    principal: Principal,
    *,
    act: str,
    item: str,
    value: JsonValue,
    previous: JsonValue,
    back: FindingChange | None = None,
) -> None:
    # Free text may name somebody: the audit says that it changed, the step keeps what it says.
    said: dict[str, object] = {} if item.startswith(TEXT) else {"value": value, "previous": previous}
    action = "findings.taken_back" if back else "findings.recorded"
    steps.note(session, case, principal, action=action, data={"item": item, **said})
    if back:
        back.undone = True
    session.add(
        FindingChange(
            case_id=case.id,
            item=item,
            value=value,
            previous=previous,
            version=case.version,
            by=principal.user_id,
            refers_to=back.id if back else None,
            undone=back is not None,
            idempotency_key=act,
        )
    )
    session.flush()


def _standing(changes: Sequence[FindingChange]) -> State:
    """Fold the steps, oldest first; a taking back is a step like any other."""
    state: State = {}
    for change in changes:
        state.pop(change.item, None)
        if change.value is not None:
            state[change.item] = change.value
    return state


def _composed(state: Mapping[str, JsonValue]) -> Findings:
    plain: dict[str, Any] = {"grades": {}, "texts": {}}  # Any: JSON on its way into the contract
    for item, value in state.items():
        kind, _, name = item.partition(".")
        if value is None:
            continue
        if name:
            plain["grades" if kind == GRADE else "texts"][name] = value
        else:
            plain[item] = value
    try:
        return Findings.model_validate(plain)
    except ValidationError as error:
        raise DataInvalidError(_said(error)) from None


def _items(findings: Findings) -> State:
    """Return the findings item by item, as they are kept."""
    plain = findings.model_dump(mode="json")
    items: State = {f"{GRADE}.{term}": grade for term, grade in plain.pop("grades", {}).items()}
    items |= {f"{TEXT}.{part}": text for part, text in plain.pop("texts", {}).items()}
    return items | plain


def _cleaned(item: str, value: JsonValue) -> JsonValue:
    if not item.startswith(TEXT) or value is None:
        return value
    if not isinstance(value, str):
        raise DataInvalidError("A comment is text. Reload the page and write it again.")
    text = typed(value, lines=True)
    return text or None


def _check_item(item: str) -> None:
    kind, _, name = item.partition(".")
    known = {GRADE: {term.value for term in Term}, TEXT: {part.value for part in Part}}
    if item not in _WHOLE and name not in known.get(kind, set()):
        raise DataInvalidError("There is no such entry. Reload the page and set it again.")


def _check_few(item: str, value: JsonValue, few: AbstractSet[Term]) -> None:
    kind, _, name = item.partition(".")
    if kind != GRADE or value != 1:
        return
    term = Term(name)
    if term.info.scale is not Scale.PRESENCE and term not in few:
        raise DataInvalidError(f"Grade 1 is not used here for {term.info.name}: set 0, 2 or 3.")


def _said(error: ValidationError) -> str:
    """Return what is wrong and what to do, without the value."""
    first = error.errors()[0]
    names = [str(part) for part in first["loc"]]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if names[0] == "texts":
        return f"The comment is longer than {TEXT_LIMIT:,} letters; shorten it."
    what = _WORDS.get(names[-1], names[-1].replace("_", " "))
    return f"Correct {what}: {first['msg'].removeprefix('Input ').removeprefix('input ')}."


def _view(session: Session, principal: Principal, case: Case) -> FindingsView:
    changes = repository.finding_changes(session, case.id)
    state = _standing(changes)
    names = cases.people(session, {change.by for change in changes})
    last = {change.item: change for change in changes}
    return FindingsView(
        case_version=case.version,
        items=state,
        set_by={item: SetBy(name=names.get(last[item].by, ""), at=last[item].at) for item in state},
        statements=[FindingView.model_validate(one, from_attributes=True) for one in statements(_composed(state))],
        can_undo=any(change.by == principal.user_id and not change.undone for change in changes),
    )
