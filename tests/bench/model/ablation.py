"""What each measure in training does for an unknown laboratory, on the recipe that trains in seconds."""

from typing import Final

from client_node.training import augment
from shared.contracts.training import Augmentation
from tests.bench.model.bench import Bench
from tests.bench.model.evaluate import Answers, answers_of
from tests.bench.model.figures import balanced
from tests.bench.model.frozen import Balanced, Frozen, as_cut, cut_by
from tests.bench.model.rows import Row
from tests.bench.model.say import say
from tests.bench.model.section import Measured, Section
from tests.bench.model.stages import FEDERATED
from tests.bench.model.unknown import directions

_VIEWS: Final = 4
_MEASURES: Final[tuple[tuple[str, Augmentation, int, Balanced | None], ...]] = (
    ("no looks", Augmentation.MILD, 1, None),
    ("mild looks (dye and light)", Augmentation.MILD, _VIEWS, None),
    ("strong looks (HED jitter)", Augmentation.STRONG, _VIEWS, None),
    ("mild looks, no white balance", Augmentation.MILD, _VIEWS, as_cut),
    ("strong looks, no white balance", Augmentation.STRONG, _VIEWS, as_cut),
)


def measure(bench: Bench) -> Measured:
    """Train with each measure, both ways, and ask the other source."""
    rows: list[Row] = []
    for name, strength, views, cut in _MEASURES:
        recipe = FEDERATED.model_copy(update={"augmentation": strength})
        with cut_by(cut):
            frozen = Frozen(bench.work / "maps", recipe, most_views=_VIEWS)
            for way in directions(bench):
                say(f"{way.name}: {name}")
                model = frozen.trained(bench.cells(way.known, "train"), views=views)
                found: list[tuple[str, Answers]] = [
                    ("test groups", answers_of(model, recipe, way.test)),
                    ("other groups", answers_of(model, recipe, way.choosing)),
                ]
                rows += [balanced(f"{way.name} {groups}, default recipe, {name}", one) for groups, one in found]
    rows.sort(key=lambda row: str(row["measure"]).split(",", maxsplit=1)[0], reverse=True)
    return Measured(rows)


SECTION: Final = Section(
    name="ablation",
    title="Measures in training against an unknown laboratory",
    measure=measure,
    version=1,
    seconds=(260, 260),
    whole_only=True,
    also=lambda _: [FEDERATED.model_dump(mode="json"), augment.VERSION],
    method=(
        "The product's default recipe (a frozen trunk; see above), by eager torch: each line is a training of its own "
        "that differs in the named measure alone. White balance is switched off in training and in asking."
    ),
)
