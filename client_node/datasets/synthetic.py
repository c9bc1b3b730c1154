"""Makes a folder of synthetic smears with truth boxes: deterministic, three visibly different stains and scanners.

They prove that the plumbing works; they say nothing about real blood, and a file ``SYNTHETIC`` marks the folder.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from client_node.datasets import painter
from client_node.datasets.images import write_atomic
from client_node.datasets.labelled import Box
from client_node.datasets.splits import Split
from shared.contracts.errors import UsageError
from shared.contracts.ontology import CellClass
from shared.space import space_guard

MARKER: Final = "SYNTHETIC"
COLUMNS: Final = (
    "path", "kind", "class", "subtype", "source", "site", "group", "split", "xmin", "ymin", "xmax", "ymax",
)  # fmt: skip
SIZE: Final = (640, 480)
_C = CellClass
CLASSES: Final = (
    _C.NEUTROPHIL, _C.LYMPHOCYTE, _C.MONOCYTE, _C.EOSINOPHIL, _C.BASOPHIL, _C.IMMATURE_GRANULOCYTE,
)  # fmt: skip
SCANNERS: Final = (
    painter.Scanner("synthetic-a", (0.92, 1.2, 0.42), (0.13, 0.36, 0.27), (250, 233, 208), 25, 0.6, 2.0, 0.03),
    painter.Scanner("synthetic-b", (0.8, 1.02, 0.14), (0.10, 0.33, 0.36), (214, 224, 226), 29, 1.7, 3.0, 0.14),
    painter.Scanner("synthetic-c", (0.5, 1.3, 0.45), (0.04, 0.44, 0.24), (236, 226, 246), 21, 0.9, 6.5, 0.07, 1.15),
)
# Shares of CLASSES a patient's blood has; every class occurs often enough to be learnt from a few hundred cells.
_PROFILES: Final = {
    "left shift": (0.40, 0.10, 0.10, 0.06, 0.06, 0.28),
    "eosinophilia": (0.28, 0.16, 0.10, 0.38, 0.08, 0.0),
    "normal": (0.60, 0.26, 0.07, 0.05, 0.02, 0.0),
    "lymphocytosis": (0.16, 0.56, 0.18, 0.04, 0.06, 0.0),
    "basophilia": (0.22, 0.14, 0.12, 0.14, 0.38, 0.0),
    "monocytosis": (0.24, 0.18, 0.40, 0.06, 0.06, 0.06),
}
_MIXED: Final = (0.40, 0.18, 0.11, 0.11, 0.10, 0.10)
_PATIENTS: Final = 12
_GALLERIES: Final = 8
_README: Final = (
    "These pictures are drawn by a program (hematovision, make_synthetic). No patient, no blood, no scanner: "
    "they show that the parts work together and nothing else.\n"
)


@dataclass(frozen=True, slots=True)
class _Patient:
    site: int
    number: int
    shares: tuple[float, ...]
    split: Split

    @property
    def name(self) -> str:
        return f"{SCANNERS[self.site].name}-p{self.number:02d}"


def make_synthetic(
    out: Path,
    *,
    sites: int = 3,
    seed: int = 0,
    fields_per_site: int = 60,
    cells_per_field: int = 5,
    gallery_cells_per_site: int = 320,
) -> Path:
    """Write synthetic smears to ``out`` and return the path of its ``labels.csv``.

    Twelve patients a site come as fields, eight more as galleries of single-cell images; a patient is a folder, a
    smear, and wholly in one split. Every image is its own group: each is drawn afresh, so there are no near duplicates.
    The same arguments give the same pixels and labels.

    Raises:
        UsageError: ``sites`` is out of range.
        NoSpaceError: the disk is full.
    """
    if not 1 <= sites <= len(SCANNERS):
        raise UsageError(f"Synthetic smears come from 1 to {len(SCANNERS)} sites.")
    out = Path(out)
    per_patient = max(1, fields_per_site // _PATIENTS)
    rows: list[dict[str, object]] = []
    with space_guard(out):
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / MARKER, _README.encode(), mode=0o644)
        for patient in _patients(sites):
            for number in range(per_patient):
                rows.extend(_field(out, patient, number, seed, cells_per_field))
        for patient in _gallery_patients(sites):
            rows.extend(_gallery(out, patient, seed, max(1, gallery_cells_per_site // _GALLERIES)))
        for folder in sorted({(out / str(row["path"])).parent for row in rows}):
            write_atomic(folder / "smear.json", b'{"pseudo": true, "synthetic": true}\n', mode=0o644)
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        # Last: a folder without labels.csv is unfinished.
        write_atomic(out / "labels.csv", text.getvalue().encode(), mode=0o644)
    return out / "labels.csv"


def _patients(sites: int) -> Iterator[_Patient]:
    names = list(_PROFILES)
    splits = [Split.TRAIN] * 9 + [Split.VAL] + [Split.TEST] * 2
    for site in range(sites):
        for number in range(_PATIENTS):
            # The test patients: a left shift and, by site, another finding.
            profile = names[number % len(names)] if number < 10 else names[(number % 2) * (1 + site)]
            yield _Patient(site, number, _PROFILES[profile], splits[number])


def _gallery_patients(sites: int) -> Iterator[_Patient]:
    for site in range(sites):
        for number in range(_GALLERIES):
            split = Split.VAL if number == _GALLERIES - 2 else Split.TEST if number == _GALLERIES - 1 else Split.TRAIN
            yield _Patient(site, _PATIENTS + number, _MIXED, split)


def _rng(seed: int, patient: _Patient, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, patient.site, patient.number, number])


def _field(out: Path, patient: _Patient, number: int, seed: int, cells: int) -> Iterator[dict[str, object]]:
    rng, scanner = _rng(seed, patient, number), SCANNERS[patient.site]
    canvas = painter.blank(*SIZE)
    taken: list[tuple[float, float, float]] = []
    drawn: list[tuple[CellClass, Box]] = []
    spots = _places(rng, taken, cells + int(rng.integers(-1, 2)), scanner.scale * 2.1, gap=1.03)
    for x, y in spots:
        cls = CLASSES[int(rng.choice(len(CLASSES), p=patient.shares))]
        drawn.append((cls, painter.paint_white_cell(canvas, cls, x, y, scanner.scale, rng)))
    _crowd(canvas, taken, scanner.scale, rng)
    path = f"{scanner.name}/fields/{patient.name}/{number:02d}.jpg"
    _save(out / path, canvas, scanner, rng)
    common = {"path": path, "source": scanner.name, "site": scanner.name}
    common["group"] = f"{patient.name}-f{number:02d}"
    common["split"] = patient.split.value
    yield {**common, "kind": "field"}
    for cls, (x0, y0, x1, y1) in drawn:
        yield {**common, "kind": "box", "class": cls.value, "xmin": x0, "ymin": y0, "xmax": x1, "ymax": y1}


def _gallery(out: Path, patient: _Patient, seed: int, cells: int) -> Iterator[dict[str, object]]:
    scanner = SCANNERS[patient.site]
    side = int(scanner.scale * 7)
    for number in range(cells):
        rng = _rng(seed, patient, 1000 + number)
        canvas = painter.blank(side, side)
        cls = CLASSES[int(rng.choice(len(CLASSES), p=patient.shares))]
        painter.paint_white_cell(canvas, cls, side / 2, side / 2, scanner.scale, rng)
        _crowd(canvas, [(side / 2, side / 2, scanner.scale * 2.1)], scanner.scale, rng)
        path = f"{scanner.name}/cells/{patient.name}/{number:02d}.jpg"
        _save(out / path, canvas, scanner, rng)
        yield {
            "path": path, "kind": "cell", "class": cls.value, "source": scanner.name, "site": scanner.name,
            "group": f"{patient.name}-c{number:02d}", "split": patient.split.value,
        }  # fmt: skip


def _places(
    rng: np.random.Generator, taken: list[tuple[float, float, float]], count: int, radius: float, *, gap: float
) -> list[tuple[float, float]]:
    """Up to ``count`` places in the field that keep apart from ``taken`` (x, y, radius), which they join."""
    found: list[tuple[float, float]] = []
    for _ in range(count * 20):
        if len(found) >= count:
            break
        x, y = rng.uniform(radius * 0.6, SIZE[0] - radius * 0.6), rng.uniform(radius * 0.6, SIZE[1] - radius * 0.6)
        if all(np.hypot(x - px, y - py) > gap * (radius + pr) for px, py, pr in taken):
            found.append((x, y))
            taken.append((x, y, radius))
    return found


def _crowd(
    canvas: painter.Canvas, taken: list[tuple[float, float, float]], scale: float, rng: np.random.Generator
) -> None:
    """Red cells and platelets around the white cells; red cells may overlap each other a little."""
    height, width = canvas.shape[:2]
    density = rng.uniform(0.30, 0.46)
    for kind, count in (
        ("red", int(density * width * height / (3.14 * scale**2))),
        ("platelet", int(rng.integers(2, 8))),
    ):
        size = scale if kind == "red" else scale * 0.35
        xs, ys = rng.uniform(-scale, width + scale, count * 3), rng.uniform(-scale, height + scale, count * 3)
        done = 0
        circles = np.array(taken, np.float64).reshape(-1, 3)
        for x, y in zip(xs, ys, strict=True):
            reach = np.where(circles[:, 2] > scale * 1.5, 0.92, 0.82) * (circles[:, 2] + size)
            if done >= count or bool((np.hypot(circles[:, 0] - x, circles[:, 1] - y) < reach).any()):
                continue
            paint = painter.paint_red_cell if kind == "red" else painter.paint_platelet
            paint(canvas, x, y, scale, rng)
            circles = np.vstack([circles, [x, y, size]])
            done += 1
        taken.extend((float(c[0]), float(c[1]), float(c[2])) for c in circles[len(taken) :])


def _save(path: Path, canvas: painter.Canvas, scanner: painter.Scanner, rng: np.random.Generator) -> None:
    buffer = io.BytesIO()
    Image.fromarray(painter.develop(canvas, scanner, rng)).save(buffer, "JPEG", quality=92)
    write_atomic(path, buffer.getvalue(), mode=0o644)
