"""A candidate as this hospital would run it: in its view, with what it has of its own where that is clearly better.

What is kept is decided on validation cells, by the code that decides it again once the version is promoted
(`client_node.models.personal`); the figures are of test cells.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch

from client_node.models.normalisation import OwnNormalisation
from client_node.models.personal import MOST_TAUGHT, Form, Seen, applied, choose
from client_node.training.cache import Between
from client_node.training.candidate import current_view, seen_in_view, suits
from client_node.training.evaluation import site_metrics
from shared.contracts.errors import ModelInvalidError
from shared.contracts.training import EvaluateRequest, OwnPart, Recipe, SiteMetrics
from shared.vision.colour import SiteView
from shared.vision.model import CellModel
from shared.vision.normalisation import normalisation_of, wear
from shared.vision.site_head import SiteHead

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Cells:
    """What a network says of a site's cells."""

    taught: Seen
    validation: Seen
    test: Seen

    @property
    def form(self) -> Form:
        """What the site chooses by."""
        return Form(self.taught.first(MOST_TAUGHT), self.validation)


@dataclass(frozen=True, slots=True)
class RunHere:
    """How a candidate does at this hospital, on its test cells."""

    shared: SiteMetrics
    """As every hospital gets it, in the view that suits it here."""
    own: SiteMetrics
    parts: tuple[OwnPart, ...]
    view: SiteView


@contextmanager
def own_worn(home: Path, model: CellModel, request: EvaluateRequest) -> Iterator[bool]:
    """Give a candidate the site's own normalisation for a while; say whether it has one, as the trial would make it."""
    recipe = request.recipe
    kept = OwnNormalisation(home, recipe, request.base_sha256).after(request.run_key)
    if kept is None or not recipe.local_normalisation:
        yield False
        return
    before = normalisation_of(model)
    try:
        wear(model, {name: torch.from_numpy(array) for name, array in kept.items()})
    except ModelInvalidError as error:
        log.warning("training.normalisation_unfit", reason=error.message)
        yield False
        return
    try:
        yield True
    finally:
        wear(model, before)


def as_run_here(
    home: Path,
    model: CellModel,
    recipe: Recipe,
    plain: Cells,
    own: Cells | None = None,
    *,
    hidden: bool = False,
    between: Between,
) -> RunHere:
    """Return a candidate's figures.

    ``plain`` is what it says of the site's cells in the plain view; ``own`` is the same with the site's own
    normalisation, which was learnt in the plain view and takes the place of another. ``hidden``: nothing of the
    training cells may show, so the site has nothing of its own but the view.
    """
    view = current_view(home, own=not hidden)
    found = plain
    if suits(model, recipe, plain.validation.cells, plain.validation.logits, view, between=between):
        splits = (plain.taught.cells[:MOST_TAUGHT], plain.validation.cells, plain.test.cells)
        found = Cells(*(seen_in_view(model, recipe, cells, view, between=between) for cells in splits))
    else:
        view = SiteView()
    if hidden:
        figures = _metrics(found.test, None, recipe)
        return RunHere(figures, figures, () if view.plain else (OwnPart.VIEW,), view)
    choice = choose(found.form, own.form if own else None)
    chosen = own if own and choice.normalisation else found
    flags = {
        OwnPart.VIEW: chosen is found and not view.plain,
        OwnPart.NORMALISATION: choice.normalisation,
        OwnPart.HEAD: choice.head is not None,
    }
    parts = tuple(part for part, has in flags.items() if has)
    return RunHere(_metrics(found.test, None, recipe), _metrics(chosen.test, choice.head, recipe), parts, view)


def _metrics(test: Seen, head: SiteHead | None, recipe: Recipe) -> SiteMetrics:
    return site_metrics(applied(head, test.logits, test.features), test.labels, recipe.classes)
