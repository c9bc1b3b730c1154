"""Counting on: a reader asks the hospital's node for further fields of a smear, and what comes joins the case.

The node asks what waits for it, as it does for reports; its hospital's policy may refuse. What comes is checked as a
case is, and adds fields and cells: whatever readers have done stands as it was.
"""

from datetime import timedelta
from typing import Any, Final

import structlog
from sqlmodel import Session

from server.accounts.schemas import Principal
from server.audit import service as audit
from server.cases import bundle, cell_rows, repository, supplement_bundle, views
from server.cases import service as cases
from server.cases import supplement_repository as rows
from server.cases.bundle import BundleRefusedError
from server.cases.grants import VALID, check_names
from server.cases.lifecycle import READABLE
from server.cases.schemas import MoreView
from server.cases.sight import sight_of
from server.models import Case, CaseCell, CaseField, CaseSupplement, Node
from server.models.base import utc_now
from server.outbox import service as outbox
from server.reviews import looking
from server.runtime import Runtime
from server.vault.port import Vault
from shared.contracts.canonical import canonical_bytes
from shared.contracts.case import GrantRequest, Grants
from shared.contracts.enrolment import EnrolmentState
from shared.contracts.errors import ConflictError, NotFoundError
from shared.contracts.supplement import MoreAnswer, MoreRequest, MoreState, SignedMoreRequest
from shared.crypto.signing import VerifyKey
from shared.statistics import differential
from shared.storage import ObjectStore

TAKE_IN: Final = "cases.supplement"
DROP: Final = "cases.supplement_drop"
PROTOCOL: Final = 3
"""From this of the heartbeat on, a node looks for requests."""
LONGEST: Final = timedelta(hours=24)
"""After this a request that got no further ends."""
SILENT: Final = timedelta(minutes=5)
"""After this the page says that nothing was heard."""
_OPEN: Final = frozenset({MoreState.ASKED, MoreState.TAKEN, MoreState.SENT})
_DROPPED: Final = frozenset({MoreState.REFUSED, MoreState.FAILED})
_log = structlog.get_logger(__name__)


def ask(session: Session, principal: Principal, case_id: str, *, cells: int = 100) -> MoreView:
    """Ask for so many white cells more; one request at a time.

    Raises:
        ConflictError: the reader does not hold the case, its node is shut out, or a request is under way.
    """
    case = cases.held_case(session, principal, case_id)
    if not _is_approved(repository.node(session, case.node_id)):
        raise ConflictError("The hospital's node that sent this case is shut out: it sends no more cells.")
    if any(row.state in _OPEN for row in rows.of_case(session, case_id)):
        raise ConflictError("More cells were asked for already; wait for the hospital's answer.")
    row = CaseSupplement(
        case_id=case_id, hospital_id=case.hospital_id, node_id=case.node_id, cells=cells, asked_by=principal.user_id
    )
    rows.add(session, row)
    _record(session, row, principal.actor, "case.more_asked", {"cells": cells})
    return _view(session, row)


def of_case(session: Session, principal: Principal, case_id: str) -> list[MoreView]:
    """Return a case's requests, the newest first; none while this person reads it blind."""
    if sight_of(session, principal, cases.visible_case(session, principal, case_id)).blind:
        return []
    return [_view(session, row) for row in rows.of_case(session, case_id)]


def stamp(session: Session, case_id: str) -> str:
    """Return what changes with every step of a case's requests."""
    return rows.stamp(session, case_id)


# What a node does.


def waiting_for(session: Session, vault: Vault, *, node_id: str) -> tuple[SignedMoreRequest, ...]:
    """Return the signed requests that a node is to work on."""
    found = rows.waiting_for(session, node_id=node_id, states={MoreState.ASKED, MoreState.TAKEN}, cases=READABLE)
    requests = [
        MoreRequest(
            request_id=row.id,
            case_id=row.case_id,
            hospital_id=row.hospital_id,
            cells=row.cells,
            has_fields=len(repository.fields(session, row.case_id)),
            has_cells=len(_of_the_node(session, row.case_id)),
            asked_at=row.asked_at,
        )
        for row in found
    ]
    return tuple(SignedMoreRequest(request=one, signature=vault.sign(canonical_bytes(one))) for one in requests)


def answer(session: Session, *, node_id: str, request_id: str, said: MoreAnswer) -> None:
    """Note that a node takes a request up, or why it does not."""
    row = _of_node(session, node_id, request_id)
    if row.state not in {MoreState.ASKED, MoreState.TAKEN}:
        return
    if not said.taken:
        _end(session, row, MoreState.REFUSED, said.reason or "The hospital's node gave no reason.")
    elif row.state is MoreState.ASKED:
        row.state, row.changed_at = MoreState.TAKEN, utc_now()


def grant(session: Session, store: ObjectStore, *, node_id: str, request_id: str, request: GrantRequest) -> Grants:
    """Return one short-lived PUT address a part of a supplement."""
    row = _of_node(session, node_id, request_id)
    check_names(request.names)
    case = repository.get(session, row.case_id, scope=row.hospital_id, light=True)
    if row.state is not MoreState.TAKEN or case is None or case.state not in READABLE:
        raise ConflictError("Nothing more is taken for this request.")
    place, now = bundle.supplement_prefix(row.hospital_id, row.case_id, row.id), utc_now()
    urls = {name: store.presign_put(f"{place}/{name}", expires=VALID) for name in request.names}
    return Grants(urls=urls, expires_at=now + VALID)


def commit(session: Session, *, node_id: str, request_id: str) -> None:
    """Note that all parts are uploaded; a worker takes them in. Repeating it is harmless."""
    row = _of_node(session, node_id, request_id)
    if row.state is MoreState.TAKEN:
        row.state, row.changed_at = MoreState.SENT, utc_now()
        outbox.add(session, TAKE_IN, {"request_id": request_id})


def take_in(runtime: Runtime, request_id: str) -> MoreState | None:
    """Check a supplement and join it with its case; return where the request stands then. Safe to repeat.

    No transaction is open while the store is read.
    """
    with runtime.database.session(read_only=True) as session:
        row = rows.get(session, request_id)
        if row is None or row.state is not MoreState.SENT:
            return row.state if row else None
        expected, node_key = _expected(session, row)
    if node_key is None:
        return _fail(runtime, request_id, "The hospital's node is not approved (any more); nothing was taken in.")
    try:
        checked = supplement_bundle.read(runtime.store, runtime.vault, expected, node_key)
    except BundleRefusedError as refused:
        _log.warning("case.more_refused", request_id=request_id, code=refused.reason_code)
        return _fail(runtime, request_id, refused.message)
    with runtime.database.session() as session:
        return _join(session, rows.locked(session, request_id), checked, expected)


def _fail(runtime: Runtime, request_id: str, reason: str) -> MoreState:
    with runtime.database.session() as session:
        row = rows.locked(session, request_id)
        if row.state is MoreState.SENT:
            _end(session, row, MoreState.FAILED, reason)
        return row.state


def lapse(runtime: Runtime) -> int:
    """End the requests of which nothing comes any more, each with its reason; return how many."""
    with runtime.database.session(read_only=True) as session:
        over = [row.id for row in rows.in_states(session, _OPEN) if _why_over(session, row)]
    ended = 0
    for request_id in over:
        with runtime.database.session() as session:
            row = rows.locked(session, request_id)
            if row.state in _OPEN and (reason := _why_over(session, row)):
                _end(session, row, MoreState.FAILED, reason, actor="system", action="case.more_lapsed")
                ended += 1
    return ended


def drop(runtime: Runtime, request_id: str) -> None:
    """Remove from the store what was uploaded for a request of which nothing was taken in. Safe to repeat."""
    with runtime.database.session(read_only=True) as session:
        row = rows.get(session, request_id)
        if row is None or row.state not in _DROPPED:
            return
        place = bundle.supplement_prefix(row.hospital_id, row.case_id, row.id)
    for key in list(runtime.store.list(f"{place}/")):
        runtime.store.delete(key)


def _why_over(session: Session, row: CaseSupplement) -> str:
    """Return why nothing comes of a request any more; empty: something may."""
    if not _is_approved(repository.node(session, row.node_id)):
        return "The hospital's node was shut out before more cells came."
    case = repository.get(session, row.case_id, scope=row.hospital_id, light=True)
    if case is None or case.state not in READABLE:
        return _left_out(case)
    return "Nothing came for a day; ask again." if utc_now() - row.changed_at >= LONGEST else ""


def _left_out(case: Case | None) -> str:
    state = "gone" if case is None else case.state.value.replace("_", " ")
    return f"The case was {state} before more cells came; they were left out."


def _is_approved(node: Node | None) -> bool:
    return node is not None and node.state is EnrolmentState.APPROVED


def _expected(session: Session, row: CaseSupplement) -> tuple[supplement_bundle.Expected, VerifyKey | None]:
    node = repository.node(session, row.node_id)
    good = node is not None and node.hospital_id == row.hospital_id and node.state is EnrolmentState.APPROVED
    expected = supplement_bundle.Expected(
        hospital_id=row.hospital_id, case_id=row.case_id, request_id=row.id, node_id=row.node_id,
        fields=len(repository.fields(session, row.case_id)),
        cell_ids={cell.cell_id for cell in repository.cells(session, row.case_id)},
    )  # fmt: skip
    return expected, VerifyKey.from_base64(node.signing_key) if node is not None and good else None


def _join(
    session: Session,
    row: CaseSupplement,
    checked: supplement_bundle.CheckedSupplement,
    expected: supplement_bundle.Expected,
) -> MoreState:
    if row.state is not MoreState.SENT:
        return row.state
    case = cases.case_for_hospital(session, hospital_id=row.hospital_id, case_id=row.case_id)
    if case.state not in READABLE:
        _end(session, row, MoreState.FAILED, _left_out(case))
        return row.state
    smear, names = checked.body.smear, frozenset(blob.name for blob in checked.signed.manifest.blobs)
    for index, field in enumerate(smear.fields, start=expected.fields):
        session.add(
            CaseField(
                case_id=case.id, index=index, blob=field.path, width=field.width, height=field.height,
                microns=field.microns,
            )
        )  # fmt: skip
    now = utc_now()
    for cell in smear.cells:
        made = cell_rows.cell_row(case.id, cell, bundle.cell_blob(names, cell.id, cell.source))
        made.field = None if cell.field is None else cell.field + expected.fields
        # After all that have a number: a cell keeps its number whatever comes later.
        made.added_at = now
        session.add(made)
    session.flush()
    _renew(session, case, checked)
    looking.forget(session, case.id, {cell.cls for cell in smear.cells})
    white = sum(cell.cls.info.counts for cell in smear.cells)
    row.fields_came, row.cells_came, row.state, row.changed_at = len(smear.fields), white, MoreState.CAME, now
    _record(session, row, f"node:{row.node_id}", "case.more_came", {"fields": len(smear.fields), "cells": white})
    _log.info("case.more_came", case_id=case.id, cells=len(smear.cells), fields=len(smear.fields))
    return row.state


def _renew(session: Session, case: Case, checked: supplement_bundle.CheckedSupplement) -> None:
    """Have the case say what it says with what came; a reader's changes, and the state, stay."""
    found = _of_the_node(session, case.id)
    smear = checked.body.smear.model_dump(mode="json", by_alias=True)
    whole = differential(cell.ai_class for cell in found)
    case.differential = {cls.value: share.model_dump(mode="json") for cls, share in whole.items()}
    case.flags, case.quality, case.limits = smear["flags"], smear["quality"], smear.get("limits", {})
    views.index_flags(case, checked.body.smear.flags)
    case.cell_count, case.doubtful_count = len(found), sum(views.is_doubtful(cell) for cell in found)
    case.supplements = [*case.supplements, checked.signed.model_dump(mode="json", by_alias=True)]
    case.version += 1


def _of_the_node(session: Session, case_id: str) -> list[CaseCell]:
    return [cell for cell in repository.cells(session, case_id) if cell.added_by is None]


def _of_node(session: Session, node_id: str, request_id: str) -> CaseSupplement:
    row = rows.locked_of_node(session, request_id, node_id=node_id)
    if row is None:
        raise NotFoundError("There is no such request for this node.")
    return row


def _end(
    session: Session, row: CaseSupplement, state: MoreState, reason: str, *, actor: str = "", action: str = ""
) -> None:
    row.state, row.reason, row.changed_at = state, reason, utc_now()
    # Only then no address that was given out is of use any more.
    outbox.add(session, DROP, {"request_id": row.id}, wait=VALID)
    _record(session, row, actor or f"node:{row.node_id}", action or f"case.more_{state.value}", {"reason": reason})


def _record(
    session: Session, row: CaseSupplement, actor: str, action: str, data: dict[str, Any]
) -> None:  # Any: JSON values
    audit.record(
        session, subject=cases.subject(row.case_id), actor=actor, action=action, data={"request": row.id, **data}
    )


def _view(session: Session, row: CaseSupplement) -> MoreView:
    return MoreView(
        request_id=row.id,
        state=row.state,
        asked_at=row.asked_at,
        asked_by=repository.user_name(session, row.asked_by) or "",
        changed_at=row.changed_at,
        cells=row.cells_came,
        fields=row.fields_came,
        reason=row.reason,
        note=_note(session, row),
    )


def _note(session: Session, row: CaseSupplement) -> str:
    """Return what a reader should know while nothing has come."""
    node = repository.node(session, row.node_id)
    if row.state not in _OPEN or node is None:
        return ""
    if node.state is not EnrolmentState.APPROVED:
        return "The hospital's node is shut out: nothing will come."
    now = utc_now()
    if row.state is MoreState.ASKED and node.last_seen_at is not None and node.last_seen_at > row.asked_at:
        protocol = (node.heartbeat or {}).get("protocol", 1)
        if protocol < PROTOCOL:
            return f"The hospital's node ({node.software}) is too old to send more: it has to be updated."
    if now - row.changed_at < SILENT:
        return ""
    if node.last_seen_at is None or node.last_seen_at < row.changed_at:
        return "The hospital's node has not been heard since; it answers when it is back."
    return "Nothing yet: the hospital's node may be busy, or looks at a large slide."
