"""What was tried beside the product's own ways, in a whole run only: a heat-map head, warm-up, pruning."""

from typing import Final

from tests.bench.model.bench import Bench
from tests.bench.model.folder import started
from tests.bench.model.heatmap import heatmap_rows
from tests.bench.model.pruning import EPOCHS, RATIOS, prune_rows
from tests.bench.model.section import Measured, Section
from tests.bench.model.train import chosen
from tests.bench.model.warmup import installed, warmup_rows


def heat(bench: Bench) -> Measured:
    """Find white cells by a heat-map on the same layers that the folds of finding have."""
    recipe = bench.stage("pbc").recipe
    model = started(bench.model("pbc"), recipe).to("cpu")
    return Measured(heatmap_rows(model, recipe, bench.home))


def warm(bench: Bench) -> Measured:
    """Warm the unfrozen stages up on unlabelled cells."""
    rows = warmup_rows(bench.work, bench.home)
    absent = "Left out: lightly is not installed (`pip install --no-deps lightly==1.6.0 lightly_utils`)."
    return Measured(rows, [] if rows else [absent])


def pruned(bench: Bench) -> Measured:
    """Cut channels off the model of both sources, and train what is left."""
    recipe, test = bench.stage("both").recipe, [*bench.cells("pbc", "test"), *bench.cells("bccd", "test")]
    learn = chosen(bench.home, ("pbc", "bccd"))
    return Measured(prune_rows(bench.work, bench.model("both"), recipe, learn, test))


HEATMAP: Final = Section(
    name="heatmap",
    title="A heat-map head in place of proposals",
    measure=heat,
    version=1,
    seconds=(0, 900),
    models=("pbc",),
    whole_only=True,
    method=(
        "By the very folds of finding, on the maps of the same network at two strides; its threshold comes from "
        "training folds alone. Times are processor time on one core."
    ),
)
WARMUP: Final = Section(
    name="warmup",
    title="Self-supervised warm-up",
    measure=warm,
    version=1,
    seconds=(0, 600),
    also=lambda _: installed(),
    whole_only=True,
    method=(
        "The default recipe's unfrozen stages first learn from unlabelled cells that their looks belong together; then "
        "both arms learn from few labels, with the same cells, seeds and steps. On validation groups; differences are "
        "paired."
    ),
)
PRUNING: Final = Section(
    name="pruning",
    title="Structured pruning",
    measure=pruned,
    version=1,
    seconds=(0, 700),
    models=("both",),
    also=lambda _: [list(RATIOS), EPOCHS],
    whole_only=True,
    method=(
        "Whole channels are removed by torch-pruning, the statistics of normalisation are taken anew, and the "
        f"product's loop trains all layers for {EPOCHS} epochs on the same training cells. On test groups of both "
        "sources; differences are paired. Before and after, as exported to ONNX."
    ),
)
