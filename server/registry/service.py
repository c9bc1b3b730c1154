"""Rules of the model registry: registration, the gate, promotion, roll-back, what nodes are told and tell."""

from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import TypeVar

from sqlmodel import Session

import server.audit.service as audit
import server.hospitals.service as hospitals
from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.hospitals.schemas import NodePrincipal
from server.models.base import utc_now
from server.models.registry import ModelSite, ModelVersion, NodeModel
from server.registry import gate, repository
from server.registry.schemas import GateResult, MatrixRow, ModelView, NodeModelView
from server.registry.states import ModelState
from shared.contracts.canonical import canonical_bytes
from shared.contracts.errors import ConflictError, ForbiddenError, GateBlockedError, NotFoundError, UsageError
from shared.contracts.model_card import ModelCard, SignedModelCard
from shared.contracts.report import ModelDecision
from shared.contracts.training import EvaluateReply, OwnPart, SiteMetrics

T = TypeVar("T")
_PROMOTERS = frozenset({Role.COORDINATOR, Role.ADMIN})
_VIEWERS = _PROMOTERS | {Role.AUDITOR, Role.HOSPITAL_IT, Role.HEMATOLOGIST}


def register(
    session: Session,
    signed: SignedModelCard,
    evaluations: Mapping[str, EvaluateReply],
    *,
    trained: Collection[str] = (),
) -> None:
    """Enter a signed version as a candidate, with the cross-site matrix and the gate's verdict.

    ``trained``: the hospitals that it learnt from.
    """
    card = signed.card
    verdict = gate.judge(evaluations, hospitals.tolerances(session), trained=trained)
    digest = sha256(canonical_bytes(card)).hexdigest()
    repository.add(
        session,
        ModelVersion(
            version=card.version,
            run_id=card.run_key,
            card=card.model_dump(mode="json", by_alias=True),
            sha256=digest,
            signature=signed.signature,
            key_id=signed.key_id,
            parent=card.parent,
            gate=verdict.model_dump(mode="json"),
        ),
    )
    for hospital_id, reply in evaluations.items():
        repository.add(
            session,
            ModelSite(
                version=card.version,
                hospital_id=hospital_id,
                candidate=reply.candidate.model_dump(mode="json"),
                own=reply.own.model_dump(mode="json") if reply.own else None,
                own_parts=[part.value for part in reply.own_parts],
                current=reply.current.model_dump(mode="json") if reply.current else None,
            ),
        )
    _audit(session, card.version, "system:federation", "model.register", {"sha256": digest, "gate": verdict.passed})


def promote(session: Session, principal: Principal, version: str, *, override_reason: str | None = None) -> None:
    """Make a candidate the current model of the network.

    Raises:
        GateBlockedError: the gate does not pass and no reason to override it was given.
        ConflictError: the version is current already.
    """
    _require(principal, _PROMOTERS)
    row = _get(session, version)
    if row.state is ModelState.CURRENT:
        raise ConflictError(f"{version} is the current model already.")
    verdict = GateResult.model_validate(row.gate)
    reason = (override_reason or "").strip() or None
    if not verdict.passed and reason is None:
        found = " ".join(f"{finding.hospital_id or 'All hospitals'}: {finding.text}" for finding in verdict.findings)
        raise GateBlockedError(f"The gate blocks {version}. {found} Give a reason to override it.")
    _make_current(session, principal, row)
    row.override_reason = None if verdict.passed else reason
    data = {"gate": verdict.passed, **({"override_reason": reason} if not verdict.passed else {})}
    _audit(session, version, principal.actor, "model.promote", data)


def rollback(session: Session, principal: Principal, *, reason: str) -> str:
    """Go back to the version that was current before; return it."""
    _require(principal, _PROMOTERS)
    if not reason.strip():
        raise UsageError("Say why you roll back.")
    leaving = repository.current(session, lock=True)
    before = repository.promoted_before(session, leaving) if leaving else None
    if leaving is None or before is None:
        raise NotFoundError("There is no earlier model to go back to.")
    _make_current(session, principal, before)
    _audit(
        session,
        before.version,
        principal.actor,
        "model.rollback",
        {"from": leaving.version, "reason": reason.strip()},
    )
    return before.version


def current(session: Session) -> SignedModelCard | None:
    """Return the card of the current model, as it was signed."""
    row = repository.current(session)
    return _signed(row) if row else None


def check_downloadable(session: Session, version: str, name: str) -> None:
    """Return if a node may fetch a file: it belongs to a version that is or was promoted."""
    row = repository.get(session, version)
    if row is None or row.state is ModelState.CANDIDATE or name not in {item.name for item in _card(row).artefacts}:
        raise NotFoundError("There is no such file of a promoted model.")


def record_decision(session: Session, node: NodePrincipal, decision: ModelDecision) -> None:
    """Keep what a node did with a version."""
    row = _get(session, decision.version)
    repository.add(
        session,
        NodeModel(
            node_id=node.node_id,
            version=row.version,
            decision=decision.decision,
            reason=decision.reason,
            accuracy=decision.accuracy,
            n=decision.n,
        ),
    )
    _audit(session, row.version, node.actor, f"model.{decision.decision}", {"hospital_id": node.hospital_id})


def last_decisions(session: Session, principal: Principal) -> dict[str, NodeModelView]:
    """Return, per node, what it last did with a model; a hospital's own staff see their own nodes only."""
    _require(principal, _VIEWERS)
    found = repository.last_decisions(session)
    return {
        node.id: NodeModelView(
            hospital_id=hospital.id,
            hospital_name=hospital.name,
            **found[node.id].model_dump(exclude={"id", "node_id"}),
        )
        for hospital in hospitals.list_hospitals(session, principal)
        for node in hospital.nodes
        if node.id in found
    }


def list_models(session: Session, principal: Principal) -> list[ModelView]:
    """Return every version, newest first."""
    _require(principal, _VIEWERS)
    return _views(session, principal, repository.newest(session))


def model_view(session: Session, principal: Principal, version: str) -> ModelView:
    """Return one version; a hospital's own staff see only their own hospital's rows."""
    _require(principal, _VIEWERS)
    return _views(session, principal, [_get(session, version)])[0]


def lineage(session: Session, principal: Principal, version: str) -> list[str]:
    """Return the versions that a version stands on, its parent first."""
    _require(principal, _VIEWERS)
    found: list[str] = []
    row = _get(session, version)
    while row.parent is not None and row.parent not in found:
        found.append(row.parent)
        parent = repository.get(session, row.parent)
        if parent is None:
            break
        row = parent
    return found


def _make_current(session: Session, principal: Principal, row: ModelVersion) -> None:
    leaving = repository.current(session, lock=True)
    if leaving is not None:
        leaving.state = ModelState.RETIRED
        session.flush()
    row.state = ModelState.CURRENT
    row.promoted_at, row.promoted_by = utc_now(), principal.username


def _views(session: Session, principal: Principal, rows: Sequence[ModelVersion]) -> list[ModelView]:
    """Return versions as this person may see them, in as many queries for many as for one."""
    versions, names = [row.version for row in rows], _names(session, principal)
    sites, decisions = repository.sites(session, versions), repository.decisions(session, versions)
    return [_view(row, sites[row.version], decisions[row.version], names, principal.hospital_id) for row in rows]


def _view(
    row: ModelVersion,
    sites: Sequence[ModelSite],
    decisions: Sequence[tuple[NodeModel, str]],
    names: Mapping[str, str],
    hospital_id: str | None,
) -> ModelView:
    card = _card(row)
    if hospital_id is not None:
        own: dict[str, object] = {
            "sites": _only(card.sites, hospital_id),
            "cells": _only(card.cells, hospital_id),
            "finders": _only(card.finders, hospital_id),
            "examples": _only(card.examples, hospital_id),
            "boxes": _only(card.boxes, hospital_id),
        }
        card = card.model_copy(update=own)
    return ModelView(
        version=row.version,
        state=row.state,
        sha256=row.sha256,
        signature=row.signature,
        key_id=row.key_id,
        card=card,
        gate=_verdict(row, hospital_id),
        matrix=[
            MatrixRow(
                hospital_id=site.hospital_id,
                hospital_name=names.get(site.hospital_id, site.hospital_id),
                candidate=SiteMetrics.model_validate(site.candidate),
                own=SiteMetrics.model_validate(site.own) if site.own else None,
                own_parts=[OwnPart(part) for part in site.own_parts],
                current=SiteMetrics.model_validate(site.current) if site.current else None,
            )
            for site in sites
            if hospital_id in (None, site.hospital_id)
        ],
        nodes=[
            NodeModelView(
                hospital_id=hospital,
                hospital_name=names.get(hospital, hospital),
                **decision.model_dump(exclude={"id", "node_id"}),
            )
            for decision, hospital in decisions
            if hospital_id in (None, hospital)
        ],
        created_at=row.created_at,
        promoted_at=row.promoted_at,
        promoted_by=row.promoted_by,
        override_reason=row.override_reason,
    )


def _verdict(row: ModelVersion, hospital_id: str | None) -> GateResult:
    verdict = GateResult.model_validate(row.gate)
    if hospital_id is None:
        return verdict
    own = [finding for finding in verdict.findings if finding.hospital_id in (gate.EVERYWHERE, hospital_id)]
    notes = [note for note in verdict.notes if note.hospital_id == hospital_id]
    return GateResult(passed=verdict.passed, findings=own, notes=notes)


def _only(values: Mapping[str, T], hospital_id: str) -> dict[str, T]:
    return {key: value for key, value in values.items() if key == hospital_id}


def _card(row: ModelVersion) -> ModelCard:
    return ModelCard.model_validate(row.card)


def _signed(row: ModelVersion) -> SignedModelCard:
    return SignedModelCard(card=_card(row), signature=row.signature, key_id=row.key_id)


def _get(session: Session, version: str) -> ModelVersion:
    row = repository.get(session, version)
    if row is None:
        raise NotFoundError("There is no such model version.")
    return row


def _require(principal: Principal, roles: frozenset[Role]) -> None:
    if principal.role not in roles:
        raise ForbiddenError("Your role does not cover models; ask a coordinator.")


def _names(session: Session, principal: Principal) -> dict[str, str]:
    return {hospital.id: hospital.name for hospital in hospitals.list_hospitals(session, principal)}


def _audit(session: Session, version: str, actor: str, action: str, data: Mapping[str, object]) -> None:
    audit.record(session, subject=f"model:{version}", actor=actor, action=action, data=dict(data))
