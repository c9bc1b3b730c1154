"""Whether a model knows that it does not know: cells of an unlearnt source, and the flag that they raise."""

import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from client_node.analysis.ranges import FILE as RANGES_FILE
from client_node.analysis.service import Analyser, Options
from client_node.analysis.smears import SmearKind
from client_node.datasets.catalogue import Catalogue
from shared.vision import calibration
from tests.bench.model.bench import Bench
from tests.bench.model.evaluate import answers, answers_in, loaded
from tests.bench.model.figures import equalised, novelty
from tests.bench.model.rows import Row, Scores, area_row, share
from tests.bench.model.say import say
from tests.bench.model.section import Measured, Section

FLAG: Final = "out_of_distribution"
_FIELDS: Final = 10
"""Fields of a smear: with one white cell each, few smears of fewer could raise the flag, which wants two cells."""
_CELLS: Final = 50
"""Images of a gallery."""


def measure(bench: Bench) -> Measured:
    """Measure both models of one source on the other."""
    rows: list[Row] = []
    for known, unknown in (("pbc", "bccd"), ("bccd", "pbc")):
        say(f"out of distribution: {known} against {unknown}")
        rows += _cells(bench, known, unknown)
    rows += _flags(bench, "pbc")
    rows += _flags(bench, "bccd")
    return Measured(rows)


def _cells(bench: Bench, known: str, unknown: str) -> list[Row]:
    name = f"{known.upper()} against {unknown.upper()}"
    model = loaded(bench.at(known, known))
    strange = bench.cells(unknown, "train", "val", "test") if unknown == "bccd" else bench.cells(unknown, "val", "test")
    seen = [answers(model, bench.cells(known, split), through=equalised) for split in ("train", "val", "test")]
    other = answers(model, strange, through=equalised)
    rows = novelty(seen[0].features, seen[1].features, seen[2].features, other.features, name)
    own, foreign = (answers_in(model, cells) for cells in (bench.cells(known, "test"), strange))
    inside, outside = (_scores(model.adapter, one.logits, one.features) for one in (own, foreign))
    return [
        *rows,
        area_row(f"the same at a hospital of {known.upper()}, images as they are", inside, outside),
        share(f"{name}: unknown cells beyond its threshold", outside > 1.0),
        share(f"{name}: known test cells beyond its threshold", inside > 1.0),
    ]


def _scores(
    adapter: calibration.Adapter, logits: "np.ndarray[tuple[int, int], np.dtype[np.float32]]",
    features: "np.ndarray[tuple[int, int], np.dtype[np.float32]]",
) -> Scores:  # fmt: skip
    return np.asarray(calibration.apply(adapter, logits, features).ood_scores, np.float64)


def _flags(bench: Bench, known: str) -> list[Row]:
    """How often the analysis of a hospital that knows one source flags smears of each, as unlike what it knows."""
    smears = {
        "BCCD": _chunks(_fields(bench, test_only=known == "bccd"), _FIELDS),
        "PBC": _chunks(sorted(cell.path for cell in bench.cells("pbc", "test")), _CELLS),
    }
    rows = []
    for source, parts in smears.items():
        kind = SmearKind.FIELDS if source == "BCCD" else SmearKind.GALLERY
        what = f"{_FIELDS} fields" if source == "BCCD" else f"{_CELLS} cells"
        alarm = "false alarms" if source.lower() == known else "rightly flagged"
        say(f"flags: {known} model, {len(parts)} smears of {source}")
        fired = flagged(bench.at(known, known), parts, kind)
        name = f"{known.upper()}'s model: {source} smears of {what} flagged `{FLAG}` ({alarm})"
        rows.append(share(name, np.array(fired, bool)))
    return rows


def flagged(model: Path, smears: Sequence[Sequence[Path]], kind: SmearKind) -> list[bool]:
    """Return which of the smears the analysis at the hospital of ``model`` flags as unlike what it knows."""
    with tempfile.TemporaryDirectory() as home:
        ranges = model.parents[1] / RANGES_FILE
        if ranges.is_file():
            shutil.copy(ranges, home)
        analyser = Analyser(Path(home), model_dir=model)
        found = []
        for paths in smears:
            (smear,) = analyser.analyze(list(paths), options=Options(kind=kind)).smears
            found.append(FLAG in [flag.id for flag in smear.flags])
            shutil.rmtree(Path(home) / "smears")
    return found


def _fields(bench: Bench, *, test_only: bool) -> list[Path]:
    fields = Catalogue(bench.home).fields(split="test" if test_only else None)
    return sorted(field.path for field in fields)


def _chunks(paths: Sequence[Path], size: int) -> list[Sequence[Path]]:
    count = max(1, math.floor(len(paths) / size))
    return [paths[number::count] for number in range(count)]


SECTION: Final = Section(
    name="ood",
    title="Does it know that it does not know",
    measure=measure,
    version=1,
    seconds=(150, 150),
    models=("pbc", "bccd"),
    method=(
        "Models of one source alone, by their ONNX files. For the rows with a goal every crop is brought to one size "
        "and one JPEG quality, so that a source does not show by these; the space is fitted on the known source's "
        "training groups, its edge on validation groups. The flags: whole smears through the analysis of a hospital "
        "that knows one source. BCCD's fields are all taken where none was learnt from, test fields otherwise."
    ),
)
