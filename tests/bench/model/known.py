"""Laboratories that the model learnt from: figures of its ONNX file on groups that it never saw."""

import numpy as np

from client_node.analysis.evaluation import expected_calibration_error, svg
from client_node.analysis.model import LoadedModel
from shared.vision import calibration
from tests.bench.model.bench import Bench
from tests.bench.model.evaluate import Answers, answers, answers_in, calibrated, loaded
from tests.bench.model.figures import CORE, among_five, classification, doubt
from tests.bench.model.rows import share
from tests.bench.model.section import Measured, Section
from tests.bench.model.stages import CLASSES


def measure(bench: Bench) -> Measured:
    """Measure the model of both sources by itself, and at a hospital of each."""
    cells = bench.cells("pbc", "test")
    plain = loaded(bench.model("both"))
    rows = classification(answers(plain, cells))
    turned = _core(answers(plain, cells, turned=True))
    rows.append(share("PBC five classes, accuracy, averaged over eight turns", among_five(turned) == turned.labels))
    smaller = answers(plain, bench.cells("bccd", "test"))
    rows.append(share("BCCD boxes, held-out test groups, asked among the five", among_five(smaller) == smaller.labels))
    notes, plots = [], dict[str, str]()
    for source, name in (("pbc", "PBC"), ("bccd", "BCCD")):
        model = loaded(bench.at("both", source))
        test = answers_in(model, bench.cells(source, "test"))
        read = _core(calibrated(model, test))
        rows.append(share(f"at a hospital of {name}: five classes, accuracy", among_five(read) == read.labels))
        found = doubt(model, test, name)
        rows += found if source == "pbc" else [one | {"goal": None, "holds": None} for one in found]
        notes.append(f"Hospital with {name}'s cells: {_adapter(model.adapter)}.")
        plots = plots or _plots(model, test)
    return Measured(rows, notes, plots)


def _core(found: Answers) -> Answers:
    return found.of(np.isin(found.labels, CORE))


def _adapter(adapter: calibration.Adapter) -> str:
    view = adapter.view
    seen = "plain view" if view.plain else f"dye by {view.method}, cut {view.surround:g} × as wide"
    head = "" if adapter.head is None else ", a head of its own"
    fitted = f"temperature {adapter.temperature:.2f}, quantile {adapter.conformal_quantile:.3f}"
    return f"{fitted}, {seen}{head}; {adapter.promise}"


def _plots(model: LoadedModel, test: Answers) -> dict[str, str]:
    applied = model.calibrated(test.logits, test.features)
    said, sure = applied.probabilities.argmax(axis=1), applied.probabilities.max(axis=1)
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
    version=3,
    seconds=(110, 110),
    models=("both",),
    method=(
        "One model for both sources, by its ONNX file. Accuracy and precision: by itself, in the plain view, each test "
        "cell asked once unless the row says so. Calibration, sets and what stands `at a hospital`: as "
        "`client_node.models.trial` fits it there, temperature, sets and view on validation groups, feature space and "
        "the site's own head on training groups."
    ),
)
