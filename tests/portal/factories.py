"""A centre with people, nodes, runs, models and cases, made through the real services for tests of the portal."""

import csv
import io
import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from PIL import Image

from client_node.datasets.synthetic import make_synthetic
from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.cases.ingest import ingest
from server.federation import service as federation
from server.federation.book import RunBook, Traffic
from server.federation.schemas import RunPlan
from server.hospitals import service as hospitals
from server.hospitals.schemas import NodePrincipal
from server.models import Case, Hospital, Node
from server.models.federation import Run
from server.registry import service as registry
from shared.contracts.analysis import Cell, FieldImage, Flag, FlagEvidence, Quality, Severity, Smear
from shared.contracts.canonical import canonical_bytes
from shared.contracts.case import BloodCount, ClinicalContext, Priority, Sex
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
from shared.statistics import differential, share
from tests.factories import Centre, NodeIdentity, centre_key, make_centre, pack

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
    return Census(rows=tuple(rows), groups=300, feedback=6 * number)


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


@dataclass(frozen=True)
class DrawnSmear:
    """A synthetic smear with its images by blob name."""

    smear: Smear
    images: dict[str, bytes]


def draw_smears(folder: Path, *, cells_per_field: int = 14) -> list[DrawnSmear]:
    """Draw one hospital's synthetic smears and name their cells as a model with some doubts would."""
    labels = make_synthetic(
        folder, sites=1, fields_per_site=36, cells_per_field=cells_per_field, gallery_cells_per_site=160
    )
    smears: dict[str, list[dict[str, str]]] = defaultdict(list)
    with labels.open(newline="") as lines:
        for row in csv.DictReader(lines):
            smears[str(Path(row["path"]).parent)].append(row)
    return [_smear(folder, rows, number) for number, rows in enumerate(smears.values())]


def _smear(folder: Path, rows: list[dict[str, str]], seed: int) -> DrawnSmear:
    chance, images, cells, fields = random.Random(seed), {}, list[Cell](), list[FieldImage]()
    for row in rows:
        path = folder / row["path"]
        if row["kind"] == "field":
            images[f"field-{len(fields)}.jpg"] = path.read_bytes()
            with Image.open(path) as opened:
                fields.append(FieldImage(path=f"field-{len(fields)}.jpg", width=opened.width, height=opened.height))
            continue
        cell_id = f"c{len(cells) + 1:03d}"
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        box = (0, 0, picture.width, picture.height)
        if row["kind"] == "box":
            box = (int(row["xmin"]), int(row["ymin"]), int(row["xmax"]), int(row["ymax"]))
        images[f"cell-{cell_id}.png"] = _crop(picture, box)
        cells.append(_cell(cell_id, CellClass(row["class"]), len(fields) - 1 if fields else None, box, chance))
    white = sum(cell.cls.info.counts for cell in cells)
    smear = Smear(
        id=f"smear-{seed}",
        fields=tuple(fields),
        cells=tuple(cells),
        differential=differential(cell.cls for cell in cells),
        flags=_flags(cells, white),
        quality=Quality(white_cells=white, focus=212.0, brightness=231.0, ood_fraction=0.02),
        model_version="hv-2026-11-20-1",
        engine="onnxruntime",
        untrained_classes=(CellClass.BLAST,),
        pseudo=True,
        synthetic=True,
    )
    return DrawnSmear(smear, images)


def _crop(picture: Image.Image, box: tuple[int, int, int, int]) -> bytes:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half = max(box[2] - box[0], box[3] - box[1]) * 0.62
    out = io.BytesIO()
    frame = (round(x - half), round(y - half), round(x + half), round(y + half))
    if box == (0, 0, picture.width, picture.height):
        frame = box
    inside = (max(0, frame[0]), max(0, frame[1]), min(picture.width, frame[2]), min(picture.height, frame[3]))
    picture.crop(inside).resize((96, 96)).save(out, "PNG")
    return out.getvalue()


def _cell(cell_id: str, cls: CellClass, at: int | None, box: tuple[int, int, int, int], chance: random.Random) -> Cell:
    doubtful = chance.random() < 0.09
    other = chance.choice([one for one in CLASSES if one is not cls])
    return Cell.model_validate(
        {
            "id": cell_id,
            "field": at,
            "box": box,
            "class": cls,
            "probability": round(chance.uniform(0.42, 0.74) if doubtful else chance.uniform(0.88, 0.995), 3),
            "prediction_set": (cls, other) if doubtful else (cls,),
            "ood_score": 1.3 if chance.random() < 0.02 else round(chance.uniform(0.1, 0.8), 2),
            "source": f"cell-{cell_id}.png",
        }
    )


def _flags(cells: list[Cell], white: int) -> tuple[Flag, ...]:
    flags: list[Flag] = []
    rules = (
        ("immature.granulocytes", CellClass.IMMATURE_GRANULOCYTE, 2.0, Severity.URGENT),
        ("eosinophilia", CellClass.EOSINOPHIL, 6.0, Severity.ROUTINE),
        ("lymphocytosis", CellClass.LYMPHOCYTE, 45.0, Severity.ROUTINE),
    )
    for rule, cls, limit, severity in rules:
        found = tuple(cell.id for cell in cells if cell.cls is cls)
        part = share(len(found), white)
        if part.percent > limit:
            text = f"{len(found)} of {white} white cells ({part.percent:.1f} %, {part.low:.1f}–{part.high:.1f})"
            evidence = FlagEvidence(
                text=text,
                cells=found,
                count=len(found),
                total=white,
                percent=part.percent,
                low=part.low,
                high=part.high,
                threshold=limit,
            )
            flags.append(Flag(id=rule, severity=severity, evidence=evidence))
    if white < 100:
        few = FlagEvidence(text=f"{white} white cells were found, fewer than 100", count=white, threshold=100)
        flags.append(Flag(id="too_few_cells", severity=Severity.ROUTINE, evidence=few, kind="quality"))
    return tuple(flags)


def send_case(
    network: Network, hospital_id: str, drawn: DrawnSmear, *, priority: Priority = Priority.URGENT, minutes_ago: int = 5
) -> str:
    """Send a smear from a hospital and take it in; return the case's id."""
    centre = network.centre
    context = ClinicalContext(
        patient_pseudonym=f"{len(network.cases):032x}",
        age_band="60-69",
        sex=Sex.FEMALE,
        question="Leukocytosis of unknown cause?",
        blood_count=BloodCount(wbc_10e9_l=21.4, hb_g_l=88, plt_10e9_l=340, mcv_fl=91),
        scanner_alias="scanner-1",
    )
    parcel = pack(
        network.nodes[hospital_id],
        centre_key(centre),
        smear=drawn.smear,
        context=context,
        priority=priority,
        images=drawn.images,
    )
    parcel.upload(centre.store)
    ingest(centre.runtime, hospital_id=hospital_id, case_id=parcel.case_id)
    with centre.runtime.database.session() as session:
        case = session.get_one(Case, parcel.case_id)
        waited = timedelta(minutes=minutes_ago)
        case.received_at, case.due_at = case.received_at - waited, case.due_at - waited
    network.cases.append(parcel.case_id)
    return parcel.case_id
