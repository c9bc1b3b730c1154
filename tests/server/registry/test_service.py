"""Registration, gate, promotion, roll-back, and what nodes may fetch."""

from collections.abc import Iterator

import pytest
from sqlmodel import Session, select

import server.hospitals.service as hospitals
from server.accounts.roles import Role
from server.models import AuditEntry, ModelVersion, Run
from server.models.base import utc_now
from server.registry import service
from server.registry.schemas import GateFinding, GateResult
from server.registry.states import ModelState
from shared.contracts.canonical import canonical_bytes
from shared.contracts.errors import ConflictError, ForbiddenError, GateBlockedError, NotFoundError, UsageError
from shared.contracts.model_card import ArtefactRef, ModelCard, SignedModelCard
from shared.contracts.ontology import CellClass
from shared.contracts.report import ModelDecision
from shared.contracts.training import CalibrationSummary, EvaluateReply, FinderMetrics, OwnPart, Recipe, SiteMetrics
from shared.crypto.signing import SigningKey
from tests.server.federation.world import COORDINATOR, new_database, node_of, person

KEY = SigningKey.generate()
RECIPE = Recipe(classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE))


def _metrics(accuracy: float) -> SiteMetrics:
    return SiteMetrics(n=50, loss=0.4, accuracy=accuracy, macro_f1=accuracy)


def _register(
    session: Session, version: str, *, north: float = 0.9, before: float | None = None, own: float | None = None
) -> SignedModelCard:
    calibration = CalibrationSummary(temperature=1.1, conformal_quantile=0.9)
    replies = {
        "north": EvaluateReply(
            candidate=_metrics(north),
            current=_metrics(before) if before is not None else None,
            own=_metrics(own) if own is not None else None,
            own_parts=(OwnPart.HEAD,) if own is not None else (),
            calibration=calibration,
            seconds=1.0,
        ),
        "south": EvaluateReply(candidate=_metrics(0.8), current=None, calibration=calibration, seconds=1.0),
    }
    card = ModelCard(
        version=version,
        created_at=utc_now(),
        base_sha256="0" * 64,
        recipe=RECIPE,
        artefacts=(ArtefactRef(name="model.onnx", sha256="0" * 64, size=1),),
        run_key="run",
        sites={hospital: reply.candidate for hospital, reply in replies.items()},
        examples={"north": 10, "south": 20},
        calibration=calibration,
    )
    signed = SignedModelCard(card=card, signature=KEY.sign(canonical_bytes(card)), key_id=KEY.public.key_id)
    service.register(session, signed, replies)
    return signed


@pytest.fixture
def session() -> Iterator[Session]:
    with new_database().session() as session:
        session.add(
            Run(
                id="run",
                recipe=RECIPE.model_dump(mode="json"),
                rounds=1,
                min_sites=1,
                round_deadline_seconds=60,
                created_by="cli",
            )
        )
        session.flush()
        yield session


def test_stored_card_still_verifies(session: Session) -> None:
    signed = _register(session, "hv-1")
    service.promote(session, COORDINATOR, "hv-1")
    session.expire_all()
    current = service.current(session)
    assert current == signed
    KEY.public.verify(canonical_bytes(current.card), current.signature)


def test_promotion_retires_the_model_before(session: Session) -> None:
    _register(session, "hv-1")
    _register(session, "hv-2")
    assert service.current(session) is None
    service.promote(session, COORDINATOR, "hv-1")
    service.promote(session, COORDINATOR, "hv-2")
    states = {model.version: model.state for model in service.list_models(session, COORDINATOR)}
    assert states == {"hv-1": ModelState.RETIRED, "hv-2": ModelState.CURRENT}
    with pytest.raises(ConflictError):
        service.promote(session, COORDINATOR, "hv-2")


def test_gate_blocks_and_an_override_needs_an_audited_reason(session: Session) -> None:
    _register(session, "hv-1", north=0.80, before=0.90)
    with pytest.raises(GateBlockedError, match="north"):
        service.promote(session, COORDINATOR, "hv-1")
    with pytest.raises(GateBlockedError):
        service.promote(session, COORDINATOR, "hv-1", override_reason="   ")
    service.promote(session, COORDINATOR, "hv-1", override_reason="north changed its scanner")
    assert service.model_view(session, COORDINATOR, "hv-1").override_reason == "north changed its scanner"
    actions = {entry.action: entry.data for entry in session.exec(select(AuditEntry)).all()}
    assert actions["model.promote"] == {"gate": False, "override_reason": "north changed its scanner"}


def test_rollback_goes_to_the_version_in_use_before(session: Session) -> None:
    for version in ("hv-1", "hv-2", "hv-3"):
        _register(session, version)
    for version in ("hv-1", "hv-3"):
        service.promote(session, COORDINATOR, version)
    with pytest.raises(UsageError):
        service.rollback(session, COORDINATOR, reason=" ")
    assert service.rollback(session, COORDINATOR, reason="worse at south") == "hv-1"
    current = service.current(session)
    assert current is not None
    assert current.card.version == "hv-1"
    with pytest.raises(NotFoundError):
        service.rollback(session, COORDINATOR, reason="again")


@pytest.mark.parametrize("role", [Role.HEMATOLOGIST, Role.HOSPITAL_IT, Role.AUDITOR])
def test_only_coordinators_promote(session: Session, role: Role) -> None:
    _register(session, "hv-1")
    with pytest.raises(ForbiddenError):
        service.promote(session, person(role), "hv-1")
    with pytest.raises(ForbiddenError):
        service.rollback(session, person(role), reason="x")


def test_hospital_it_sees_its_own_row_of_the_matrix(session: Session) -> None:
    _register(session, "hv-1")
    view = service.model_view(session, person(Role.HOSPITAL_IT, "south"), "hv-1")
    assert [row.hospital_id for row in view.matrix] == ["south"]
    assert (list(view.card.sites), list(view.card.examples)) == (["south"], ["south"])


def test_hospital_it_sees_what_the_gate_found_at_its_hospital_and_over_all(session: Session) -> None:
    _register(session, "hv-1")
    findings = [GateFinding(hospital_id=hospital, kind="recall", text=".") for hospital in ("north", "south", "")]
    session.get_one(ModelVersion, "hv-1").gate = GateResult(passed=False, findings=findings).model_dump(mode="json")
    verdict = service.model_view(session, person(Role.HOSPITAL_IT, "south"), "hv-1").gate
    assert [finding.hospital_id for finding in verdict.findings] == ["south", ""]


def test_the_matrix_holds_the_candidate_what_is_in_use_and_each_sites_own(session: Session) -> None:
    _register(session, "hv-1", north=0.8, before=0.85, own=0.95)
    session.expire_all()
    north, south = service.model_view(session, COORDINATOR, "hv-1").matrix
    assert (north.candidate, north.current, north.own) == (_metrics(0.8), _metrics(0.85), _metrics(0.95))
    assert north.own_parts == [OwnPart.HEAD]
    assert (south.own, south.own_parts) == (None, [])


def test_a_card_from_before_finders_were_compared_still_verifies(session: Session) -> None:
    signed = _register(session, "hv-1")
    assert b"finders" not in canonical_bytes(signed.card)
    worse = FinderMetrics(fields=9, cells=30, found=0, extra=0, plain_found=30, plain_extra=2)
    better = worse.model_copy(update={"found": 30})
    for found, finds in (({}, True), ({"a": better}, True), ({"a": better, "b": worse}, False)):
        assert signed.card.model_copy(update={"boxes": {"a": 12}, "finders": found}).finds is finds


def test_candidates_are_not_handed_out(session: Session) -> None:
    _register(session, "hv-1")
    with pytest.raises(NotFoundError):
        service.check_downloadable(session, "hv-1", "model.onnx")
    service.promote(session, COORDINATOR, "hv-1")
    service.check_downloadable(session, "hv-1", "model.onnx")
    for version, name in (("hv-1", "../keys"), ("hv-9", "model.onnx")):
        with pytest.raises(NotFoundError):
            service.check_downloadable(session, version, name)


def test_decisions_of_nodes_are_kept(session: Session) -> None:
    _register(session, "hv-1")
    service.promote(session, COORDINATOR, "hv-1")
    decision = ModelDecision(version="hv-1", decision="held", reason="worse here", accuracy=0.5, n=20)
    service.record_decision(session, node_of("north"), decision)
    [row] = service.model_view(session, COORDINATOR, "hv-1").nodes
    assert (row.hospital_id, row.decision, row.reason, row.n) == ("north", "held", "worse here", 20)


def test_lineage_goes_back_to_the_first_model(session: Session) -> None:
    for version in ("hv-1", "hv-2", "hv-3"):
        _register(session, version)
    for version, parent in (("hv-2", "hv-1"), ("hv-3", "hv-2")):
        session.get_one(ModelVersion, version).parent = parent
    assert service.lineage(session, COORDINATOR, "hv-3") == ["hv-2", "hv-1"]
    assert service.lineage(session, COORDINATOR, "hv-1") == []


def test_the_last_decision_of_each_node_is_known_to_whom_it_concerns(session: Session) -> None:
    _register(session, "hv-1")
    _register(session, "hv-2")
    for hospital, version, kind in (
        ("north", "hv-1", "installed"),
        ("south", "hv-1", "held"),
        ("north", "hv-2", "held"),
    ):
        decision = ModelDecision(version=version, decision=kind, reason="tried", accuracy=None, n=None)
        service.record_decision(session, node_of(hospital), decision)
    last = service.last_decisions(session, COORDINATOR)
    assert {node: (one.version, one.decision) for node, one in last.items()} == {
        "node-north": ("hv-2", "held"),
        "node-south": ("hv-1", "held"),
    }
    assert list(service.last_decisions(session, person(Role.HOSPITAL_IT, "south"))) == ["node-south"]


def test_a_stricter_hospital_is_asked_for_at_registration(session: Session) -> None:
    hospitals.set_tolerance(session, COORDINATOR, "north", 0.001)
    _register(session, "hv-1", north=0.87, before=0.9)
    assert service.model_view(session, COORDINATOR, "hv-1").gate.findings[0].allowed == 0.001
    for share in (-0.1, 0.03):
        with pytest.raises(UsageError):
            hospitals.set_tolerance(session, COORDINATOR, "north", share)
    with pytest.raises(ForbiddenError):
        hospitals.set_tolerance(session, person(Role.HOSPITAL_IT, "south"), "north", None)
    hospitals.set_tolerance(session, COORDINATOR, "north", None)
    assert hospitals.tolerances(session) == {}
