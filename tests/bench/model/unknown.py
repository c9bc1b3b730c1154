"""A laboratory that the model never saw: models of one source on the other, with and without each measure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from client_node.analysis.evaluation import svg
from client_node.analysis.model import LoadedModel
from client_node.datasets.labelled import LabelledCell
from client_node.models.view import MOST_CELLS, SURROUNDS, chosen_view
from shared.contracts.ontology import CORE_FIVE
from shared.vision import colour, preprocessing
from shared.vision import dye as dyes
from shared.vision.colour import SiteView
from shared.vision.images import load_image
from shared.vision.site_head import SiteHead, chosen_head
from tests.bench.model.bench import Bench
from tests.bench.model.evaluate import Answers, answers, answers_in, loaded
from tests.bench.model.figures import balanced
from tests.bench.model.framing import all_alike, by_own_size, usual_side
from tests.bench.model.frozen import as_cut, cut_by
from tests.bench.model.rows import Row, measure_of
from tests.bench.model.say import say
from tests.bench.model.section import Measured, Section

GOAL: Final = 0.55
_FEW: Final = 40
_UNSURE: Final = 80
"""So many cells tell in which view the model is least unsure."""
_METHODS: Final = {"density": "density", "reinhard": "Reinhard's method", "macenko": "Macenko's method"}
Ask = Callable[[Sequence[LabelledCell]], Answers]


@dataclass(frozen=True, slots=True)
class Direction:
    """From the source that a model knows to one that it does not: cells to choose measures by, and to judge by."""

    name: str
    known: str
    choosing: tuple[LabelledCell, ...]
    test: tuple[LabelledCell, ...]


def directions(bench: Bench) -> list[Direction]:
    """Return both directions; of the larger source only its validation groups choose."""
    return [
        Direction("PBC → BCCD", "pbc", _core(bench, "bccd", "train", "val"), _core(bench, "bccd", "test")),
        Direction("BCCD → PBC", "bccd", _core(bench, "pbc", "val"), _core(bench, "pbc", "test")),
    ]


def _core(bench: Bench, source: str, *splits: str) -> tuple[LabelledCell, ...]:
    return tuple(cell for cell in bench.cells(source, *splits) if cell.cls in CORE_FIVE)


def measure(bench: Bench) -> Measured:
    """Measure both directions; which measure counts is chosen on groups that are no test groups."""
    rows: list[Row] = []
    notes = []
    for way in directions(bench):
        found, note = _way(way, loaded(bench.model(way.known)))
        rows += found
        notes.append(note)
        if not bench.quick:
            rows += _strong(way, loaded(bench.model(f"{way.known}-strong")))
    lines = [measure_of(row, str(row["measure"]).replace(", balanced accuracy", "")) for row in rows if "test" in
             str(row["measure"])]  # fmt: skip
    title = "Balanced accuracy on test groups of a laboratory that was not learnt from"
    return Measured(rows, notes, {"model-unknown": svg.measures_svg(lines, title, name="unknown", bars=True)})


def _way(way: Direction, model: LoadedModel) -> tuple[list[Row], str]:
    rows, chosen, least = [], "", -1.0
    tests = dict[str, Answers]()
    for name, ask in _measures(way, model):
        say(f"{way.name}: {name}")
        tests[name] = ask(way.test)
        rows.append(_row(way, name, tests[name]))
        if "labelled" in name:
            continue  # the cells that it was fitted on are among the others
        rows.append(balanced(f"{way.name} other groups, {name}", ask(way.choosing)))
        value = float(rows[-1]["value"] or 0.0)
        if value > least:
            chosen, least = name, value
    best = balanced(f"{way.name} test groups, balanced accuracy, the measures chosen on other groups", tests[chosen],
                    goal=GOAL)  # fmt: skip
    taught = [cell for cell in way.test if cell.cls.value != "basophil"]
    four = balanced(f"{way.name} the same without basophils", tests[chosen].of(_are(way.test, taught)))
    own = f"own head of {_FEW} labelled cells"
    with_head = f"{way.name} test groups, balanced accuracy, {_FEW} labelled cells and a head of its own"
    few = balanced(with_head, tests[own], goal=GOAL)
    note = f"{way.name}: of the measures without labels, the best on the other groups is: {chosen}."
    absent = [method for method in _METHODS.values() if f"dye brought near by {method}" not in tests]
    if absent:
        note += f" Nothing by {' nor '.join(absent)}: the dyes are farther apart than what may be changed."
    return [best, four, few, *rows], note


def _are(cells: Sequence[LabelledCell], some: Sequence[LabelledCell]) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    kept = {cell.hash for cell in some}
    return np.array([cell.hash in kept for cell in cells])


def _row(way: Direction, name: str, found: Answers) -> Row:
    return balanced(f"{way.name} test groups, {name}", found)


def _measures(way: Direction, model: LoadedModel) -> Iterator[tuple[str, Ask]]:
    """Yield each measure that needs no training, by name."""
    yield "as trained", lambda cells: answers(model, cells)
    yield "without white balance", lambda cells: _unbalanced(model, cells)
    yield "averaged over eight turns", lambda cells: answers(model, cells, turned=True)
    some = sorted(way.choosing, key=lambda cell: cell.hash)[:MOST_CELLS]
    for name, view in views(model, some).items():
        yield f"dye brought near by {name}", partial(answers_in, model, view=view)
    dye = nearest(model, some)
    yield "dye and width that leave the model least unsure", partial(answers_in, model, view=dye)
    framed = _framing(way, some)
    yield "framed as the model's cells were", partial(_framed_in, model, framed, SiteView())
    for name, view in views(model, framed(some)).items():
        yield f"framed so, dye by {name}", partial(_framed_in, model, framed, view)
    both = nearest(model, framed(some))
    yield "framed so, dye and width that leave it least unsure", partial(_framed_in, model, framed, both)
    few = some[:_FEW]
    known = chosen_view(model, few, pause=lambda: None)
    yield f"view chosen by {_FEW} labelled cells", lambda cells: answers_in(model, cells, known)
    for count in (_FEW, MOST_CELLS):
        head = _head(answers(model, some[:count]), some[:count])
        yield f"own head of {count} labelled cells", partial(_by_head, model, head)
    better = _head(answers_in(model, framed(few), both), few)
    yield (
        f"framed so, and own head of {_FEW} labelled cells",
        lambda cells: _corrected(better, answers_in(model, framed(cells), both)),
    )


def _framing(way: Direction, some: Sequence[LabelledCell]) -> Callable[[Sequence[LabelledCell]], list[LabelledCell]]:
    """Return what frames the other source's cells as those that the model learnt from."""
    if any(cell.box is None for cell in some):
        return by_own_size
    side = usual_side(some)
    return lambda cells: all_alike(cells, side)


def views(model: LoadedModel, cells: Sequence[LabelledCell]) -> dict[str, SiteView]:
    """Return the views that bring the cells' dye to what the model knows, by method; none needs a label."""
    crops = (preprocessing.cell_crop(load_image(cell.path), cell.box) for cell in cells)
    found = colour.views_towards(dyes.stained_pixels(crops), model.card.calibration)
    return {_METHODS[view.method]: view for view in found}


def nearest(model: LoadedModel, cells: Sequence[LabelledCell]) -> SiteView:
    """Return the view in which the model's answers have the least mean entropy: first the dye, then the width.

    It asks for no label.
    """
    some = cells[:_UNSURE]

    def unsure(view: SiteView) -> float:
        return _entropy(answers_in(model, some, view).logits)

    dye = min([SiteView(), *views(model, some).values()], key=unsure)
    return min((dye.model_copy(update={"surround": width}) for width in SURROUNDS), key=unsure)


def _framed_in(
    model: LoadedModel, framed: Callable[[Sequence[LabelledCell]], list[LabelledCell]], view: SiteView,
    cells: Sequence[LabelledCell],
) -> Answers:  # fmt: skip
    return answers_in(model, framed(cells), view)


def _head(few: Answers, cells: Sequence[LabelledCell]) -> SiteHead | None:
    """Return the head that a hospital with these labelled cells and no others would get."""
    return chosen_head(few.logits, few.features, few.labels, [cell.group for cell in cells])


def _by_head(model: LoadedModel, head: SiteHead | None, cells: Sequence[LabelledCell]) -> Answers:
    return _corrected(head, answers(model, cells))


def _corrected(head: SiteHead | None, found: Answers) -> Answers:
    return found if head is None else replace(found, logits=head.applied(found.logits, found.features))


def _unbalanced(model: LoadedModel, cells: Sequence[LabelledCell]) -> Answers:
    with cut_by(as_cut):
        return answers(model, cells)


def _entropy(logits: "np.ndarray[tuple[int, int], np.dtype[np.float32]]") -> float:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    chances = powers / powers.sum(axis=1, keepdims=True)
    return float(-(chances * np.log(np.maximum(chances, 1e-12))).sum(axis=1).mean())


def _strong(way: Direction, model: LoadedModel) -> list[Row]:
    """The same network trained with strong looks, as it is and with the dye brought near."""
    asks = dict(_measures(way, model))
    return [
        _row(way, f"strong looks (HED jitter), {name}", asks[name](way.test))
        for name in ("as trained", "dye brought near by density", "framed as the model's cells were")
        if name in asks
    ]  # fmt: skip


SECTION: Final = Section(
    name="unknown",
    title="A laboratory that it never saw",
    measure=measure,
    version=1,
    seconds=(110, 260),
    models=("pbc", "bccd"),
    whole_models=("pbc-strong", "bccd-strong"),
    method=(
        "A network trained on one source alone, by its ONNX file, asked among the five classes on the other source; "
        "mean of the recalls of the classes that have at least two cells. Which measure counts was chosen on the other "
        "source's train and validation groups (of PBC the validation groups), never on its test groups. A laboratory's "
        "dye is known without any label. BCCD has one basophil: a model of BCCD cannot know that class, so its row "
        "without basophils stands beside it."
    ),
)
