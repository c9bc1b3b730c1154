"""Taking cases in: verified, once, or into quarantine with a reason."""

import structlog
from sqlmodel import Session

from server.audit import service as audit
from server.cases import bundle, repository, views
from server.cases.bundle import BundleRefusedError, CheckedCase
from server.cases.cell_rows import cell_row
from server.cases.drawing import is_drawn
from server.cases.lifecycle import check_transition
from server.cases.service import subject
from server.cases.worklist import target
from server.insights import measures
from server.models import Case, CaseField, Quarantine
from server.models.base import utc_now
from server.outbox import service as outbox
from server.runtime import Runtime
from shared.contracts.case import CaseState, SignedManifest
from shared.contracts.enrolment import EnrolmentState
from shared.crypto.signing import VerifyKey

INGEST = "cases.ingest"
_log = structlog.get_logger()


def ingest(runtime: Runtime, *, hospital_id: str, case_id: str) -> CaseState | None:
    """Take one committed case in and return its state, None where it went into quarantine.

    Safe to repeat and to run twice at once. No transaction is open while the store is read.
    """
    try:
        signed = bundle.read_manifest(runtime.store, hospital_id, case_id)
        with runtime.database.session(read_only=True) as session:
            known = _known_state(session, signed)
            node_key = None if known else _node_key(session, signed)
        if known is not None or node_key is None:
            return known
        checked = bundle.check(runtime.store, runtime.vault, signed, node_key)
    except BundleRefusedError as refused:
        with runtime.database.session() as session:
            _quarantine(session, hospital_id, case_id, refused)
        return None
    with runtime.database.session() as session:
        blind = is_drawn(runtime.vault, case_id, runtime.settings.effective_blind_share)
        state = _known_state(session, signed) or _take_in(session, checked, blind=blind)
    _log.info("case.ingested", case_id=case_id, hospital_id=hospital_id, cells=len(checked.body.smear.cells))
    return state


def commit_notice(session: Session, *, hospital_id: str, case_id: str) -> None:
    """Note that a node has uploaded a case's manifest; a worker takes it in. A notice that waits is not repeated."""
    if not repository.pending_ingest(session, INGEST, hospital_id, case_id):
        outbox.add(session, INGEST, {"hospital_id": hospital_id, "case_id": case_id})


def scan(runtime: Runtime) -> int:
    """Find manifests whose commit notice was lost, and give notice of them; return how many."""
    with runtime.database.session(read_only=True) as session:
        known = repository.known_case_ids(session)
    found = 0
    for key in runtime.store.list("cases/"):
        _, *place, name = key.split("/")
        if name == "manifest.json" and len(place) == 2 and (place[0], place[1]) not in known:
            with runtime.database.session() as session:
                if repository.pending_ingest(session, INGEST, place[0], place[1]):
                    continue
                commit_notice(session, hospital_id=place[0], case_id=place[1])
                found += 1
    return found


def _known_state(session: Session, signed: SignedManifest) -> CaseState | None:
    """Return the state of the case if exactly this manifest was taken in before."""
    manifest = signed.manifest
    case = repository.get(session, manifest.case_id, scope=None)
    if case is None:
        return None
    if case.hospital_id == manifest.hospital_id and case.manifest == signed.model_dump(mode="json", by_alias=True):
        return case.state
    raise BundleRefusedError("duplicate", "Another case of this id was taken in before; send it under a new id.")


def _node_key(session: Session, signed: SignedManifest) -> VerifyKey:
    manifest = signed.manifest
    node = repository.node(session, manifest.node_id)
    if node is None or node.hospital_id != manifest.hospital_id or node.state is not EnrolmentState.APPROVED:
        raise BundleRefusedError("unknown_node", "The node that sent the case is not approved for this hospital.")
    return VerifyKey.from_base64(node.signing_key)


def _quarantine(session: Session, hospital_id: str, case_id: str, refused: BundleRefusedError) -> None:
    before = repository.quarantined(session, hospital_id, case_id)
    if before is not None and before.code == refused.reason_code:
        before.at, before.reason = utc_now(), refused.message
        return
    session.add(Quarantine(hospital_id=hospital_id, case_id=case_id, code=refused.reason_code, reason=refused.message))
    audit.record(
        session,
        subject=subject(case_id),
        actor="system",
        action="case.quarantined",
        data={"hospital_id": hospital_id, "code": refused.reason_code},
    )
    _log.warning("case.quarantined", case_id=case_id, hospital_id=hospital_id, code=refused.reason_code)


def _take_in(session: Session, checked: CheckedCase, *, blind: bool) -> CaseState:
    case = _case_row(session, checked)
    case.blind_drawn = blind
    session.add(case)
    session.flush()
    names = frozenset(blob.name for blob in checked.signed.manifest.blobs)
    smear = checked.body.smear
    for index, field in enumerate(smear.fields):
        session.add(
            CaseField(
                case_id=case.id,
                index=index,
                blob=field.path,
                width=field.width,
                height=field.height,
                microns=field.microns,
            )
        )
    session.add_all(cell_row(case.id, cell, bundle.cell_blob(names, cell.id, cell.source)) for cell in smear.cells)
    audit.record(
        session,
        subject=subject(case.id),
        actor=f"node:{case.node_id}",
        action="case.received",
        data={
            "hospital_id": case.hospital_id,
            "priority": case.priority.value,
            "cells": case.cell_count,
            **({"blind_first_read": True} if blind else {}),
        },
    )
    measures.measure(session, case)
    for state in (CaseState.TRIAGED, CaseState.AVAILABLE):
        check_transition(case.state, state)
        data = {"from": case.state.value, "to": state.value}
        case.state = state
        audit.record(session, subject=subject(case.id), actor="system", action="case.state", data=data)
    return case.state


def _case_row(session: Session, checked: CheckedCase) -> Case:
    manifest, smear, context = checked.signed.manifest, checked.body.smear, checked.body.context
    now = utc_now()
    smear_json = smear.model_dump(mode="json", by_alias=True)
    hospital = repository.hospital(session, manifest.hospital_id)
    case = Case(
        id=manifest.case_id,
        hospital_id=manifest.hospital_id,
        node_id=manifest.node_id,
        priority=manifest.priority,
        state=CaseState.RECEIVED,
        model_version=manifest.model_version,
        patient_pseudonym=context.patient_pseudonym,
        context=context.model_dump(mode="json"),
        flags=smear_json["flags"],
        quality=smear_json["quality"],
        differential=smear_json["differential"],
        untrained_classes=smear_json["untrained_classes"],
        limits=smear_json.get("limits", {}),
        smear_id=smear.id,
        cell_count=len(smear.cells),
        doubtful_count=sum(cell.doubtful for cell in smear.cells),
        pseudo=smear.pseudo,
        synthetic=smear.synthetic,
        manifest=checked.signed.model_dump(mode="json", by_alias=True),
        received_at=now,
        due_at=now + target(hospital.target_minutes if hospital else {}, manifest.priority),
    )
    views.index_flags(case, smear.flags)
    return case
