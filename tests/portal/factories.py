"""A centre with people, nodes, runs, models and cases, made through the real services for tests of the portal."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.federation import service as federation
from server.federation.book import RunBook, Traffic
from server.federation.schemas import RunPlan
from server.hospitals import service as hospitals
from server.hospitals.schemas import NodePrincipal
from server.models import Hospital, Node
from server.models.federation import Run
from server.registry import service as registry
from shared.contracts.canonical import canonical_bytes
from shared.contracts.enrolment import EnrolmentState, Heartbeat, LedgerTotals, NodeMode
from shared.contracts.model_card import ArtefactRef, ModelCard, SignedModelCard
from shared.contracts.ontology import CellClass
from shared.contracts.privacy import ModelPrivacy, PrivacySpent, PrivacyUnit
from shared.contracts.report import ModelDecision
from shared.contracts.training import (
    CalibrationSummary,
    Census,
    ClassCensus,
    EvaluateReply,
    OwnPart,
    Recipe,
    SiteMetrics,
    TrainReply,
)
from shared.crypto.signing import SigningKey
from tests.factories import Centre, NodeIdentity, make_centre

_C = CellClass
CLASSES = (_C.NEUTROPHIL, _C.LYMPHOCYTE, _C.MONOCYTE, _C.EOSINOPHIL, _C.BASOPHIL, _C.IMMATURE_GRANULOCYTE)
SITES = {"a": "St. Elisabeth Hospital", "b": "Riverside Clinic", "c": "University Hospital North"}
CALIBRATION = CalibrationSummary(temperature=1.2, conformal_quantile=0.91)


@dataclass
class Network:
    """A centre in the middle of its work."""

    centre: Centre
    people: dict[str, Principal]
    nodes: dict[str, NodeIdentity] = field(default_factory=dict)
    cases: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


def staffed(folder: Path) -> Network:
    """Return a centre with one person a role, and nothing else."""
    centre = make_centre(folder)
    people = {
        "reader": centre.add_person("reader", Role.HEMATOLOGIST, name="Dr. A. Reader"),
        "second": centre.add_person("second", Role.HEMATOLOGIST, name="Dr. M. Osei"),
        "coordinator": centre.add_person("coordinator", Role.COORDINATOR, name="J. Lindqvist"),
        "auditor": centre.add_person("auditor", Role.AUDITOR, name="P. Nowak"),
        "admin": centre.add_person("admin", Role.ADMIN, name="S. Imai"),
    }
    return Network(centre, people)


def add_hospital(network: Network, hospital_id: str) -> NodeIdentity:
    """Add a hospital whose node beats and has counted its cells."""
    node = network.centre.add_node(hospital_id, SITES[hospital_id])
    network.nodes[hospital_id] = node
    runtime = network.centre.runtime
    number = ord(hospital_id) - ord("a")
    with runtime.database.session() as session:
        row = session.get_one(Node, node.node_id)
        row.flower_node_id = str(number + 1)
        row.fingerprint = "-".join(f"{random.Random(hospital_id + str(i)).getrandbits(16):04x}" for i in range(8))
        principal = principal_of(node)
        hospitals.heartbeat(session, runtime, principal, _beat(number))
        federation.store_census(session, principal, _census(number))
    return node


def principal_of(node: NodeIdentity) -> NodePrincipal:
    """Return the node as services see it."""
    return NodePrincipal(
        node_id=node.node_id,
        hospital_id=node.hospital_id,
        mode=NodeMode.TRAINING,
        signing_key=node.signing.public.to_base64(),
        envelope_key="",
    )


def add_waiting_node(network: Network) -> None:
    """Add a hospital whose node waits for its approval."""
    with network.centre.runtime.database.session() as session:
        session.add(Hospital(id="d", name="Island Medical Centre"))
        session.flush()
        session.add(
            Node(
                id="node-d",
                hospital_id="d",
                mode=NodeMode.INFERENCE,
                state=EnrolmentState.PENDING,
                signing_key="k",
                envelope_key="k",
                flower_key="k",
                fingerprint="3f2a-91bc-04de-77a1-c0ff-5e12-8b6d-20f9",
                software="hematovision 0.1.0",
            )
        )


def _beat(number: int) -> Heartbeat:
    attention = ("The disk holding the images is 91 % full: move old fields away, then run doctor again.",)
    return Heartbeat(
        software="hematovision 0.1.0",
        mode=NodeMode.TRAINING,
        model_version="hv-2026-11-20-1" if number < 2 else None,
        processes={"agent": "running", "analyser": "running", "trainer": "running", "supernode": "running"}
        if number < 2
        else {"agent": "running", "analyser": "running", "trainer": "starting", "supernode": "running"},
        ledger=LedgerTotals(
            cases=7 - 2 * number, bytes_cases=18_400_000, bytes_updates=96_000_000, last_at=datetime.now(UTC)
        ),
        outbox=number,
        attention=attention if number == 1 else (),
    )


def _census(number: int) -> Census:
    chance = random.Random(number)
    sources = (("pbc",), ("pbc", "reports"), ("bccd",))[number]
    rows = [
        ClassCensus.model_validate(
            {"source": source, "class": cls, "train": (n := chance.randint(12, 420)), "val": n // 7, "test": n // 4}
        )
        for source in sources
        for cls in (*CLASSES, _C.ERYTHROBLAST)
        if not (number == 2 and cls in {_C.IMMATURE_GRANULOCYTE, _C.ERYTHROBLAST})
    ]
    return Census(rows=tuple(rows), groups=300, feedback=6 * number, unmapped=14 if number == 2 else 0)


def start_run(network: Network, *, rounds: int = 3) -> RunBook:
    """Launch a run as its coordinator and begin it as the ServerApp does."""
    database = network.centre.runtime.database
    with database.session() as session:
        run_id = federation.start_run(session, network.people["coordinator"], RunPlan(rounds=rounds))
    with database.session() as session:
        session.get_one(Run, run_id).base_sha256 = "0" * 64
    network.runs.append(run_id)
    book = RunBook(database, run_id)
    book.begin(f"{len(network.runs)}")
    return book


def play_round(
    network: Network,
    book: RunBook,
    number: int,
    *,
    missing: str = "",
    open_end: bool = False,
    epsilon: float | None = None,
    whole: bool = True,
    central: float | None = None,
) -> None:
    """Play a round: every hospital replies but ``missing``; ``open_end`` leaves the last one still training.

    ``epsilon`` is what noise at each hospital has spent, ``central`` what noise at the centre has.
    """
    sites = sorted(network.nodes)
    book.begin_round(number, sites, 3_400_000)
    for place, site in enumerate(sites):
        traffic = Traffic(up=3_390_000, down=3_400_000)
        if site == missing:
            book.refused(number, site, "The hospital's policy allows no training before 18:00.", traffic)
        elif not (open_end and site == sites[-1]):
            reply = _reply(number, place)
            if epsilon is not None:
                spent = PrivacySpent(unit=PrivacyUnit.IMAGE, epsilon=epsilon, delta=1e-5)
                reply = reply.model_copy(update={"privacy": spent})
            book.replied(number, site, reply, traffic)
    if not open_end:
        book.end_round(number, whole=whole, epsilon=central)


def _reply(number: int, place: int) -> TrainReply:
    reached = 1 - (0.78 - 0.11 * place) * 0.55 ** (number - 1)
    return TrainReply(
        examples=1180 - 260 * place,
        train_loss=1.4 / number,
        received=_metrics(min(0.97, max(0.12, reached)), n=220 - 30 * place),
        seconds=38.0 + 9 * place + number,
        manifest_sha256="0" * 64,
        feedback_cells=2 * place,
    )


def _metrics(accuracy: float, *, n: int) -> SiteMetrics:
    recall = {cls: min(1.0, max(0.0, accuracy + 0.03 * (2 - at))) for at, cls in enumerate(CLASSES)}
    return SiteMetrics(
        n=n,
        loss=round(-1.6 * accuracy + 1.8, 3),
        accuracy=accuracy,
        macro_f1=max(0.0, accuracy - 0.03),
        recall=recall,
        support=dict.fromkeys(recall, n // len(CLASSES)),
    )


def register_model(
    network: Network,
    book: RunBook,
    version: str,
    *,
    accuracy: float = 0.93,
    before: float | None = 0.88,
    privacy: ModelPrivacy | None = None,
) -> None:
    """Register the run's candidate and end the run."""
    key, sites = SigningKey.generate(), sorted(network.nodes)
    replies = {
        site: EvaluateReply(
            candidate=_metrics(accuracy - 0.04 * place, n=260 - 40 * place),
            own=_metrics(accuracy - 0.03 * place, n=260 - 40 * place),
            own_parts=(OwnPart.VIEW, OwnPart.HEAD)[:place],
            current=_metrics(before - 0.02 * place, n=260 - 40 * place) if before else None,
            validation=_metrics(accuracy - 0.03 * place, n=220 - 30 * place),
            calibration=CALIBRATION,
            seconds=6.0,
        )
        for place, site in enumerate(sites)
    }
    card = ModelCard(
        version=version,
        created_at=datetime.now(UTC),
        base_sha256="0" * 64,
        recipe=Recipe(classes=CLASSES),
        artefacts=(
            ArtefactRef(name="delta.safetensors", sha256="1" * 64, size=3_400_000),
            ArtefactRef(name="model.onnx", sha256="2" * 64, size=13_600_000),
        ),
        run_key=book.run_id,
        sites={site: reply.candidate for site, reply in replies.items()},
        examples={site: 1180 - 260 * place for place, site in enumerate(sites)},
        cells=book.cells(Recipe(classes=CLASSES)),
        calibration=CALIBRATION,
        privacy=privacy,
        synthetic=True,
    )
    signed = SignedModelCard(card=card, signature=key.sign(canonical_bytes(card)), key_id=key.public.key_id)
    book.evaluating()
    for site, reply in replies.items():
        book.evaluated(site, reply)
    with network.centre.runtime.database.session() as session:
        registry.register(session, signed, replies)
        book.complete(session, version)


def promote_and_install(network: Network, version: str) -> None:
    """Promote a model; two nodes install it and one holds it."""
    with network.centre.runtime.database.session() as session:
        registry.promote(session, network.people["coordinator"], version, override_reason="First model of the network")
    for place, node in enumerate(network.nodes.values()):
        held = place == 2
        decision = ModelDecision(
            version=version,
            decision="held" if held else "installed",
            reason="0.81 here against 0.86 of the model in use" if held else "0.92 on own validation cells",
            accuracy=0.81 if held else 0.92,
            n=140,
        )
        with network.centre.runtime.database.session() as session:
            registry.record_decision(session, principal_of(node), decision)
