"""Smears drawn by machine, as a node would analyse and send them: what the reading room shows in tests."""

import csv
import io
import random
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from client_node.datasets.synthetic import make_synthetic
from server.cases.ingest import ingest
from server.models import Case
from shared.contracts.analysis import Cell, FieldImage, Flag, FlagEvidence, Quality, Severity, Smear
from shared.contracts.case import BloodCount, ClinicalContext, Priority, Sex
from shared.contracts.ontology import CellClass
from shared.statistics import differential, share
from tests.factories import centre_key, pack
from tests.portal.factories import CLASSES, Network


@dataclass(frozen=True)
class DrawnSmear:
    """A synthetic smear with its images by blob name."""

    smear: Smear
    images: dict[str, bytes]


@cache
def draw_smears(*, cells_per_field: int = 14) -> tuple[DrawnSmear, ...]:
    """Draw one hospital's synthetic smears and name their cells as a model with some doubts would.

    They are the same each time: a process draws them once.
    """
    smears: dict[str, list[dict[str, str]]] = defaultdict(list)
    with TemporaryDirectory(prefix="hematovision-drawn-") as folder:
        labels = make_synthetic(
            Path(folder), sites=1, fields_per_site=36, cells_per_field=cells_per_field, gallery_cells_per_site=160
        )
        with labels.open(newline="") as lines:
            for row in csv.DictReader(lines):
                smears[str(Path(row["path"]).parent)].append(row)
        return tuple(_smear(Path(folder), rows, number) for number, rows in enumerate(smears.values()))


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
