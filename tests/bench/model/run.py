"""``make bench-model``: trains and measures the classifier; writes results and ``docs/model-quality.md``.

Resumable: a stage whose model lies in ``build/bench-model/models`` is not trained again, and a fold that was judged is
not judged again. Nothing here is chosen by a test group.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from client_node.analysis.model import load_model
from client_node.analysis.smears import SmearKind
from client_node.datasets.catalogue import LabelledCell
from client_node.models.view import chosen_view
from shared.contracts.ontology import CellClass
from shared.contracts.training import Augmentation
from shared.vision import colour, preprocessing
from shared.vision.images import load_image
from tests.bench.model.baselines import baseline_rows
from tests.bench.model.evaluate import (
    Row,
    answers,
    answers_in,
    asked_among_five,
    balanced,
    classification,
    doubt,
    equalised,
    novelty,
    share,
)
from tests.bench.model.finding import finding_rows
from tests.bench.model.folds import out_of_fold, started
from tests.bench.model.overlays import overlay_rows
from tests.bench.model.page import Section, page
from tests.bench.model.pictures import pictures
from tests.bench.model.shifts import shift_rows
from tests.bench.model.teaching import teaching_rows
from tests.bench.model.train import CLASSES, RECIPE, SINGLES, Stage, catalogue, cells_of, model_of, say

ROOT = Path(__file__).resolve().parents[3]
WORK = ROOT / "build" / "bench-model"
PAGE = ROOT / "docs" / "model-quality.md"
QUICK_EPOCHS: Final = 6
FOLD_RECIPE: Final = RECIPE.model_copy(update={"local_epochs": 6})
"""A short training on top of a model that knows the larger source alone; chosen on folds of train and validation."""
_GALLERY: Final = 24
_FEW: Final = 40
_OVERLAYS: Final = 48
_SHIFTED: Final = 300


def stages(*, quick: bool) -> dict[str, Stage]:
    """Return the models by name: one for both sources, one for each alone, and one without a measure against shift."""
    alone = RECIPE.model_copy(update={"local_epochs": QUICK_EPOCHS}) if quick else RECIPE
    strong = alone.model_copy(update={"augmentation": Augmentation.STRONG})
    return {
        "both": Stage("both", ("pbc", "bccd"), RECIPE),
        "pbc": Stage("pbc", ("pbc",), alone),
        "pbc-strong": Stage("pbc-strong", ("pbc",), strong),
        "bccd": Stage("bccd", ("bccd",), RECIPE),
    }


@dataclass(frozen=True, slots=True)
class Bench:
    """What every part of the bench needs."""

    data: Path
    home: Path
    quick: bool

    def cells(self, source: str, *splits: str) -> list[LabelledCell]:
        """Return a source's labelled cells of some splits."""
        return [cell for split in splits for cell in cells_of(self.home, split, source)]

    def model(self, name: str) -> Path:
        """Return the folder of a stage's model, trained now if it is not there."""
        return model_of(WORK, self.home, stages(quick=self.quick)[name])


def known_laboratories(bench: Bench) -> list[Row]:
    """The model of both sources on groups that it never saw."""
    both = bench.model("both")
    validation, test = answers(both, bench.cells("pbc", "val")), answers(both, bench.cells("pbc", "test"))
    rows = classification(test)
    rows += doubt(validation, test, answers(both, bench.cells("pbc", "train")).features)
    smaller = answers(both, bench.cells("bccd", "test"))
    rows.append(share("BCCD boxes, held-out test groups, asked among the five", asked_among_five(smaller)))
    return rows


def folds(bench: Bench) -> list[Row]:
    """The smaller source by grouped five-fold."""
    cells = [cell for cell in bench.cells("bccd", "train", "val", "test") if cell.cls is not CellClass.BASOPHIL]
    found = out_of_fold(WORK, bench.model("pbc"), FOLD_RECIPE, cells, bench.cells("pbc", "train"))
    rows = [
        share("BCCD boxes, grouped 5-fold, four classes, accuracy", asked_among_five(found), goal=0.89),
        share("the same, asked among all eight", found.logits.argmax(axis=1) == found.labels),
        balanced("the same, balanced accuracy", found, None),
    ]
    said = found.logits[:, :5].argmax(axis=1)
    for position in np.unique(found.labels):
        there = found.labels == position
        rows.append(share(f"BCCD 5-fold, recall, {CLASSES[position].info.name}", said[there] == position))
    return rows


def finding(bench: Bench) -> list[Row]:
    """Whether white cells are found in whole fields, by a network that has never seen these."""
    singles = sorted(bench.cells("pbc", "train"), key=lambda cell: cell.hash)[:SINGLES]
    model = started(bench.model("pbc"), RECIPE).to("cpu")
    return finding_rows(model, RECIPE, bench.home, singles)


def unknown_laboratory(bench: Bench) -> list[Row]:
    """A model of one source on the other, and whether it knows that it does not know."""
    test, rest = bench.cells("bccd", "test"), bench.cells("bccd", "train", "val")
    alone, strong, small = bench.model("pbc"), bench.model("pbc-strong"), bench.model("bccd")
    rows = [
        balanced("PBC → BCCD test groups, balanced accuracy", answers(alone, test), 0.55),
        balanced("PBC → BCCD, the other groups (looks were chosen by these)", answers(alone, rest), None),
        balanced("PBC → BCCD test groups, strong looks", answers(strong, test), None),
        balanced("PBC → BCCD, the other groups, strong looks", answers(strong, rest), None),
        balanced("BCCD → PBC test groups, balanced accuracy", answers(small, bench.cells("pbc", "test")), 0.55),
    ]
    rows += _in_a_view("PBC → BCCD", alone, rest, test) + _in_a_view("BCCD → PBC", small, *_halves(bench))
    features = {
        split: answers(alone, bench.cells("pbc", split), through=equalised).features
        for split in ("train", "val", "test")
    }
    unknown = answers(alone, [*rest, *test], through=equalised).features
    return rows + novelty(features["train"], features["val"], features["test"], unknown, "PBC against BCCD")


def _halves(bench: Bench) -> tuple[list[LabelledCell], list[LabelledCell]]:
    core = {CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.MONOCYTE, CellClass.EOSINOPHIL, CellClass.BASOPHIL}
    return [cell for cell in bench.cells("pbc", "val") if cell.cls in core], bench.cells("pbc", "test")


def _in_a_view(name: str, folder: Path, own: list[LabelledCell], test: list[LabelledCell]) -> list[Row]:
    """What a hospital gains that joins with a few labelled cells, and what its dye alone would give it."""
    model = load_model(folder)
    few = sorted(own, key=lambda cell: cell.hash)[:_FEW]
    dye = colour.density(preprocessing.cell_crop(load_image(cell.path), cell.box) for cell in [*few, *test])
    wanted = model.card.calibration.density
    views = {f"view chosen by {_FEW} labelled cells": chosen_view(model, few, pause=lambda: None)}
    if dye is not None and wanted is not None:
        views = {"dye brought near, no label needed": colour.towards(dye, wanted), **views}
    return [
        balanced(f"{name} test groups, {what}", answers_in(folder, test, view), None) for what, view in views.items()
    ]


def shifts(bench: Bench) -> list[Row]:
    """Each kind of shift by itself."""
    some = sorted(bench.cells("pbc", "test"), key=lambda cell: cell.hash)[:_SHIFTED]
    return shift_rows(bench.model("both"), bench.cells("pbc", "train"), bench.cells("pbc", "val"), some)


def explaining(bench: Bench) -> list[Row]:
    """Whether overlays are about the model, and what a few examples teach."""
    cells = sorted(bench.cells("pbc", "test"), key=lambda cell: cell.hash)[:_OVERLAYS]
    sheet = WORK / "pictures" / "overlays.png"
    sheet.parent.mkdir(parents=True, exist_ok=True)
    both = bench.model("both")
    return overlay_rows(both, RECIPE, cells, sheet) + teaching_rows(both, bench.data)


def conventional(bench: Bench) -> list[Row]:
    """What older methods make of the same cells."""
    return baseline_rows(WORK, bench.cells("pbc", "train"), bench.cells("pbc", "test"), RECIPE)


def speed(bench: Bench) -> list[Row]:
    """Speed is measured in a process of its own, which has one thread from the start."""
    code = (
        "import json, sys; from dataclasses import asdict; from pathlib import Path\n"
        "from tests.bench.model.speed import all_rows\n"
        "rows = all_rows(Path(sys.argv[1]), Path(sys.argv[2]), repeats=9)\n"
        "print(json.dumps([{**asdict(row), 'holds': row.holds} for row in rows]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bench.model("both")), str(bench.data)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    return [
        {"measure": one["measure"], "value": one["value"], "low": one["least"], "high": one["greatest"], "n": one["n"],
         "goal": one["goal"], "holds": one["holds"]}
        for one in found
    ]  # fmt: skip


SECTIONS: Final[tuple[tuple[str, Callable[[Bench], list[Row]]], ...]] = (
    ("Laboratories that it learnt from", known_laboratories),
    ("The smaller laboratory, every cell judged once", folds),
    ("Finding white cells in whole fields", finding),
    ("A laboratory that it never saw", unknown_laboratory),
    ("Kinds of shift, one by one", shifts),
    ("Explaining and teaching", explaining),
    ("Beside older methods", conventional),
    ("Speed, on one core", speed),
)


def drawn(bench: Bench) -> list[Path]:
    """Draw one field of the second source and a gallery of the first, to look at."""
    fields = sorted({cell.path for cell in bench.cells("bccd", "test")})[:1]
    cells = sorted(bench.cells("pbc", "test"), key=lambda cell: cell.hash)[:_GALLERY]
    return pictures(
        WORK / "pictures",
        bench.model("both"),
        {"field-bccd": (fields, SmearKind.FIELDS), "gallery-pbc": ([cell.path for cell in cells], SmearKind.GALLERY)},
    )


def main() -> int:
    """Run the bench and write what it measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help="fewer epochs for the models of one source")
    options = parser.parse_args()
    if not (options.data / "labels.csv").is_file():
        sys.stderr.write(f"There is no labels.csv in {options.data}: name the real smears' folder with --data.\n")
        return 2
    begin = time.monotonic()
    WORK.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.data.resolve(), catalogue(WORK, options.data.resolve()), options.quick)
    sections = []
    for title, measured in SECTIONS:
        say(title)
        sections.append(Section(title, measured(bench)))
    rows = [row for section in sections for row in section.rows]
    (WORK / "results.json").write_text(json.dumps(rows, indent=1))
    kept = WORK / "model"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(bench.model("both"), kept)
    drawn(bench)
    PAGE.write_text(page(sections, quick=options.quick, seconds=time.monotonic() - begin))
    say(f"wrote {WORK / 'results.json'}, {WORK / 'pictures'} and {PAGE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
