"""Whether a model knows that it does not know: cells of an unlearnt source, and the flag that they raise."""

import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from client_node.analysis.model import LoadedModel
from client_node.analysis.ranges import FILE as RANGES_FILE
from client_node.analysis.service import Analyser, Options
from client_node.analysis.smears import SmearKind
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import LabelledCell
from tests.bench.model.bench import Bench
from tests.bench.model.evaluate import Answers, answers, answers_in, loaded
from tests.bench.model.figures import equalised, novelty
from tests.bench.model.rows import Row, Scores, area_row, share
from tests.bench.model.say import say
from tests.bench.model.section import Measured, Section
from tests.bench.model.together import together

FLAG: Final = "out_of_distribution"
_FIELDS: Final = 10
"""Fields of a smear: with one white cell each, few smears of fewer could raise the flag, which wants two cells."""
_CELLS: Final = 50
"""Images of a gallery."""
_OTHER: Final = {"pbc": "bccd", "bccd": "pbc"}


def measure(bench: Bench) -> Measured:
    """Measure both models of one source on the other."""
    rows: list[Row] = []
    for known, unknown in _OTHER.items():
        say(f"out of distribution: {known} against {unknown}")
        rows += _cells(bench, known, unknown)
    for known, unknown in _OTHER.items():
        new = f"{known.upper()}'s model at a hospital that has just joined"
        rows.append(_flags(bench, new, bench.model(known), known, unknown))
        rows.append(_flags(bench, new, bench.model(known), known, known))
    labelled = bench.at("pbc", "bccd")
    rows.append(_flags(bench, "PBC's model at a hospital with BCCD's labels", labelled, "pbc", "bccd"))
    rows.append(_flags(bench, "PBC's model at a hospital with PBC's labels", bench.at("pbc", "pbc"), "pbc", "pbc"))
    return Measured(rows)


def _cells(bench: Bench, known: str, unknown: str) -> list[Row]:
    name = f"{known.upper()} against {unknown.upper()}"
    model, strange = loaded(bench.model(known)), _strange(bench, known, unknown)
    seen = [answers(model, bench.cells(known, split), through=equalised) for split in ("train", "val", "test")]
    other = answers(model, strange, through=equalised)
    rows = novelty(seen[0].features, seen[1].features, seen[2].features, other.features, name)
    own, foreign = (_scores(model, answers_in(model, cells)) for cells in (bench.cells(known, "test"), strange))
    return [
        *rows,
        area_row(f"{name}, at a hospital that has just joined, images as they are: AUROC", own, foreign),
        share(f"{name}, there: unknown cells beyond the threshold", foreign > 1.0),
        share(f"{name}, there: known test cells beyond the threshold", own > 1.0),
    ]


def _strange(bench: Bench, known: str, unknown: str) -> list[LabelledCell]:
    """Of the larger source its validation and test cells are enough."""
    return bench.cells(unknown, *(("train", "val", "test") if unknown == "bccd" else ("val", "test")))


def _scores(model: LoadedModel, found: Answers) -> Scores:
    return np.asarray(model.calibrated(found.logits, found.features).ood_scores, np.float64)


def _flags(bench: Bench, name: str, model: Path, known: str, source: str) -> Row:
    """How often an analysis flags smears of ``source`` as unlike what it knows."""
    if source == "bccd":
        kind, what, paths = SmearKind.FIELDS, f"{_FIELDS} fields", _fields(bench, test_only=known == source)
        parts = _chunks(paths, _FIELDS)
    else:
        kind, what = SmearKind.GALLERY, f"{_CELLS} cells"
        parts = _chunks(sorted(cell.path for cell in bench.cells(source, "test")), _CELLS)
    say(f"flags: {name}: {len(parts)} smears of {source}")
    alarm = "false alarms" if source == known else "rightly"
    measure = f"{name}: smears of {what} of {source.upper()} flagged `{FLAG}` ({alarm})"
    return share(measure, np.array(flagged(model, parts, kind), bool))


def flagged(model: Path, smears: Sequence[Sequence[Path]], kind: SmearKind) -> list[bool]:
    """Return which of the smears are flagged as unlike what is known, by ``model`` with the calibration beside it."""
    with tempfile.TemporaryDirectory() as home:
        ranges = model.parents[1] / RANGES_FILE
        if ranges.is_file():
            shutil.copy(ranges, home)
        analyser = Analyser(Path(home), model_dir=model)
        found = []
        for paths in smears:
            with together(paths) as images:
                (smear,) = analyser.analyze(images, options=Options(kind=kind)).smears
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
    version=2,
    seconds=(150, 150),
    models=("pbc", "bccd"),
    method=(
        "Models of one source alone, by their ONNX files. For the rows with a goal every crop is brought to one size "
        "and one JPEG quality, so that a source does not show by these; the space is fitted on the known source's "
        "training groups, its edge on validation groups. A hospital that has just joined has no label: it measures "
        "against the laboratories that the model carries. The flags: whole smears through the analysis. BCCD's fields "
        "are all taken where none was learnt from, else test fields; PBC's galleries are test cells."
    ),
)
