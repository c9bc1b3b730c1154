"""Laboratories that the model learnt from: figures of its ONNX file on groups that it never saw."""

import numpy as np

from client_node.analysis.evaluation import expected_calibration_error, svg
from client_node.analysis.model import LoadedModel
from shared.vision import calibration
from tests.bench.model.bench import Bench
from tests.bench.model.evaluate import Answers, answers, answers_in, loaded
from tests.bench.model.figures import among_five, classification, doubt
from tests.bench.model.rows import Row, share
from tests.bench.model.section import Measured, Section
from tests.bench.model.stages import CLASSES


def measure(bench: Bench) -> Measured:
    """Measure the model of both sources at a hospital of each."""
    rows: list[Row] = []
    notes, plots = [], {}
    model = loaded(bench.at("both", "pbc"))
    test = answers_in(model, bench.cells("pbc", "test"))
    rows += classification(test)
    turned = answers(model, bench.cells("pbc", "test"), turned=True)
    core = turned.of(np.isin(turned.labels, range(5)))
    rows.append(share("PBC five classes, accuracy, averaged over eight turns", among_five(core) == core.labels))
    rows += doubt(model, test)
    notes.append(f"Hospital with PBC's cells: {_adapter(model.adapter)}.")
    plots = _plots(model, test)
    other = loaded(bench.at("both", "bccd"))
    smaller = answers_in(other, bench.cells("bccd", "test"))
    rows.append(share("BCCD boxes, held-out test groups, asked among the five", among_five(smaller) == smaller.labels))
    rows += [one | {"goal": None, "holds": None} for one in doubt(other, smaller, "BCCD")]
    notes.append(f"Hospital with BCCD's cells: {_adapter(other.adapter)}.")
    return Measured(rows, notes, plots)


def _adapter(adapter: calibration.Adapter) -> str:
    view = adapter.view
    seen = "plain view" if view.plain else f"dye by {view.method}, cut {view.surround:g} × as wide"
    return (
        f"temperature {adapter.temperature:.2f}, quantile {adapter.conformal_quantile:.3f}, {seen}; {adapter.promise}"
    )


def _plots(model: LoadedModel, test: Answers) -> dict[str, str]:
    applied = model.calibrated(test.logits, test.features)
    said, sure = test.logits.argmax(axis=1), applied.probabilities.max(axis=1)
    hits = np.asarray(said == test.labels)
    matrix = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    np.add.at(matrix, (test.labels, said), 1)
    names = [cls.info.name for cls in CLASSES]
    return {
        "model-confusion": svg.confusion_svg(matrix, names),
        "model-reliability": svg.reliability_svg(sure, hits, error=expected_calibration_error(sure, hits)),
        "model-risk-coverage": svg.risk_coverage_svg(sure, hits),
    }


SECTION = Section(
    name="known",
    title="Laboratories that it learnt from",
    measure=measure,
    version=1,
    seconds=(110, 110),
    models=("both",),
    method=(
        "One model for both sources, by its ONNX file as a node runs it. Temperature, prediction sets, feature space "
        "and view are those of `client_node.models.trial` at a hospital with the source's cells: fitted on its "
        "validation groups, the feature space on its training groups. Each test cell is asked once unless the row "
        "says so."
    ),
)
