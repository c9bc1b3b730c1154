"""The larger networks of the default family, trained alike: a whole run only."""

from typing import Final

import numpy as np

from tests.bench.model.bench import Bench
from tests.bench.model.evaluate import answers, loaded
from tests.bench.model.figures import CORE, among_five
from tests.bench.model.rows import Labels, Row, figure, macro_f1, share
from tests.bench.model.section import Measured, Section

_SIZES: Final = ("lite1", "lite2")


def measure(bench: Bench) -> Measured:
    """Measure each as the default one is."""
    rows: list[Row] = []
    for size in _SIZES:
        model = loaded(bench.model(f"both-{size}"))
        test = answers(model, bench.cells("pbc", "test"))
        core = test.of(np.isin(test.labels, CORE))
        said = np.asarray(test.logits.argmax(axis=1), np.int64)
        rows.append(share(f"{size}: PBC five classes, accuracy (among the five)", among_five(core) == core.labels))
        rows.append(_f1(f"{size}: PBC eight classes, macro-F1", test.labels, said))
        smaller = answers(model, bench.cells("bccd", "test"))
        rows.append(share(f"{size}: BCCD boxes, held-out test groups", among_five(smaller) == smaller.labels))
    return Measured(rows)


def _f1(name: str, truth: Labels, said: Labels) -> Row:
    return figure(name, lambda some: macro_f1(truth[some], said[some]), len(truth))


SECTION: Final = Section(
    name="backbones",
    title="Larger networks of the same family",
    measure=measure,
    version=1,
    seconds=(0, 60),
    models=("both-lite1", "both-lite2"),
    whole_only=True,
    method="The same recipe, cells and 144 px, by their ONNX files in the plain view.",
)
