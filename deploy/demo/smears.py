"""Pseudo-smears: images of several patients put together so that they look like one, and marked as such.

A smear folder holds the images and ``smear.json``. The truth stands outside the folder, where no node ever looks: only
the demonstration's own check reads it.
"""

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.partition import HospitalData, Row, image_of, unit
from shared.contracts.ontology import CellClass, parse_class

UNREMARKABLE = {
    CellClass.NEUTROPHIL: 26,
    CellClass.LYMPHOCYTE: 11,
    CellClass.MONOCYTE: 2,
    CellClass.EOSINOPHIL: 1,
}
LEFT_SHIFT = {
    CellClass.NEUTROPHIL: 24,
    CellClass.LYMPHOCYTE: 7,
    CellClass.MONOCYTE: 2,
    CellClass.EOSINOPHIL: 1,
    CellClass.IMMATURE_GRANULOCYTE: 6,
}
GALLERIES = (("unremarkable", UNREMARKABLE), ("left-shift", LEFT_SHIFT))
FIELDS_PER_SMEAR = 30
FIELD_SMEARS = 2
MOST_FIELDS_ASIDE = 0.4
"""Of the training fields: the rest must still teach the hospital's model."""


@dataclass(frozen=True)
class PseudoSmear:
    """A folder to analyse and what is really in it."""

    folder: Path
    truth: Counter[CellClass]
    context: Path
    """Clinical context to send along; the identity in it stays at the hospital."""


def set_aside(hospital: HospitalData, data: Path) -> None:
    """Move the training groups that the hospital's pseudo-smears need from its rows to its pool."""
    train = [row for row in hospital.rows if row["split"] == "train" and image_of(row, data)]
    needed = Counter[CellClass]()
    for _, wanted in GALLERIES:
        needed.update(wanted)
    groups: set[str] = set()
    for row in sorted((r for r in train if r["kind"] == "cell"), key=lambda r: unit("pool:" + r["group"])):
        cls = parse_class(row["class"])
        if cls is not None and needed[cls] > 0 and row["group"] not in groups:
            groups.add(row["group"])
            needed[cls] -= 1
    fields = {row["group"] for row in train if row["kind"] == "field"}
    aside = min(FIELDS_PER_SMEAR * FIELD_SMEARS, int(len(fields) * MOST_FIELDS_ASIDE))
    groups |= set(sorted(fields, key=lambda g: unit("pool:" + g))[:aside])
    hospital.pool = [row for row in hospital.rows if row["group"] in groups and image_of(row, data)]
    hospital.rows = [row for row in hospital.rows if row["group"] not in groups]


def make_smears(hospital: HospitalData, *, data: Path, out: Path) -> list[PseudoSmear]:
    """Make the hospital's pseudo-smears from its pool: galleries where it holds cell images, else whole fields."""
    synthetic = (data / "SYNTHETIC").exists()
    cells = [row for row in hospital.pool if row["kind"] == "cell" and row["class"]]
    boxes = [row for row in hospital.pool if row["kind"] == "box"]
    smears = []
    if cells:
        for name, wanted in GALLERIES:
            chosen = _compose(cells, wanted)
            cells = [row for row in cells if row not in chosen]
            smears.append((f"{hospital.id}-gallery-{name}", chosen, _truth(chosen)))
    fields = sorted({row["path"] for row in hospital.pool if row["kind"] == "field"}, key=lambda p: unit("smear:" + p))
    for number, start in enumerate(range(0, len(fields), FIELDS_PER_SMEAR), start=1):
        paths = fields[start : start + FIELDS_PER_SMEAR]
        truth = _truth([row for row in boxes if row["path"] in paths])
        smears.append((f"{hospital.id}-fields-{number}", [{"path": path} for path in paths], truth))
    return [
        _write(out, name, rows, truth, data=data, synthetic=synthetic, number=number)
        for number, (name, rows, truth) in enumerate(smears)
    ]


def _compose(cells: list[Row], wanted: dict[CellClass, int]) -> list[Row]:
    chosen: list[Row] = []
    for cls, count in wanted.items():
        ready = sorted((r for r in cells if parse_class(r["class"]) == cls), key=lambda r: unit("smear:" + r["path"]))
        chosen += ready[:count]
    return chosen


def _truth(rows: list[Row]) -> Counter[CellClass]:
    return Counter(cls for row in rows if (cls := parse_class(row["class"])) is not None)


def _write(
    out: Path, name: str, rows: list[Row], truth: Counter[CellClass], *, data: Path, synthetic: bool, number: int
) -> PseudoSmear:
    folder = out / name
    folder.mkdir(parents=True)
    # Numbered names: a PBC file name starts with its class, and a node must not be told the answer.
    for position, row in enumerate(sorted(rows, key=lambda r: unit("order:" + r["path"]))):
        source = data / row["path"]
        shutil.copyfile(source, folder / f"{position:03d}{source.suffix.lower()}")
    (folder / "smear.json").write_text(json.dumps({"pseudo": True, "synthetic": synthetic}))
    context = out / f"{name}.context.json"
    context.write_text(json.dumps(_context(name, number)))
    return PseudoSmear(folder=folder, truth=truth, context=context)


def _context(name: str, number: int) -> dict[str, object]:
    """An invented patient, plainly so; the reader sees everything but the identity."""
    return {
        "identity": {
            "patient_id": f"DEMO-{name}",
            "name": f"Demo Patient {number + 1} (not a person)",
            "birth_date": f"19{50 + number * 7:02d}-03-1{number % 10}",
        },
        "age_band": "60-69" if number % 2 else "40-49",
        "sex": "female" if number % 2 else "male",
        "question": "Leukocytosis, left shift?" if "left" in name else "Differential requested by the analyser.",
        "blood_count": {"wbc_10e9_l": 21.4 if "left" in name else 8.2, "hb_g_l": 118.0, "plt_10e9_l": 240.0},
        "scanner_alias": "scanner 1",
        "phone": "ward telephone 1234",
    }
