"""A candidate as this hospital would run it: in its view, with what it has of its own where that is clearly better.

What is kept is decided on validation cells, by the code that decides it again once the version is promoted
(`client_node.models.personal`); the figures are of test cells.
"""

from dataclasses import dataclass
from pathlib import Path

from client_node.models.personal import MOST_TAUGHT, Form, Seen, applied, choose
from client_node.training.cache import Between
from client_node.training.candidate import current_view, seen_in_view, suits
from client_node.training.evaluation import site_metrics
from shared.contracts.training import OwnPart, Recipe, SiteMetrics
from shared.vision.colour import SiteView
from shared.vision.model import CellModel
from shared.vision.site_head import SiteHead


@dataclass(frozen=True, slots=True)
class Cells:
    """What a network says of a site's cells."""

    taught: Seen
    validation: Seen
    test: Seen

    @property
    def form(self) -> Form:
        """What the site chooses by."""
        taught = self.taught
        some = slice(MOST_TAUGHT)
        few = Seen(taught.cells[some], taught.logits[some], taught.features[some], taught.labels[some])
        return Form(few, self.validation)


@dataclass(frozen=True, slots=True)
class RunHere:
    """How a candidate does at this hospital, on its test cells."""

    shared: SiteMetrics
    """As every hospital gets it, in the view that suits it here."""
    own: SiteMetrics
    parts: tuple[OwnPart, ...]
    view: SiteView


def as_run_here(home: Path, model: CellModel, recipe: Recipe, plain: Cells, *, between: Between) -> RunHere:
    """Return a candidate's figures; ``plain`` is what it says of the site's cells in the plain view."""
    view = current_view(home)
    found = plain
    if suits(model, recipe, plain.validation.cells, plain.validation.logits, view, between=between):
        splits = (plain.taught.cells[:MOST_TAUGHT], plain.validation.cells, plain.test.cells)
        found = Cells(*(seen_in_view(model, recipe, cells, view, between=between) for cells in splits))
    else:
        view = SiteView()
    choice = choose(found.form)
    parts = (OwnPart.VIEW,) if not view.plain else ()
    if choice.head is not None:
        parts = (*parts, OwnPart.HEAD)
    return RunHere(_metrics(found.test, None, recipe), _metrics(found.test, choice.head, recipe), parts, view)


def _metrics(test: Seen, head: SiteHead | None, recipe: Recipe) -> SiteMetrics:
    return site_metrics(applied(head, test.logits, test.features), test.labels, recipe.classes)
