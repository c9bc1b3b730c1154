"""A candidate is shown a site's cells in the view of the model in use where that suits it clearly better."""

from pathlib import Path

import pytest
import torch

from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import LabelledCell
from client_node.training.candidate import current_view, in_view, suits
from client_node.training.site import positions
from shared.vision.calibration import Adapter
from shared.vision.colour import SiteView
from shared.vision.model import CellModel, build
from tests.client_node.analysis.models import install_model
from tests.client_node.training.site import CLASSES, RECIPE, make_home

OTHER = SiteView(factors=(0.5, 1.6, 0.6))


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledCell]:
    home = make_home(tmp_path_factory.mktemp("site"), train=1, val=8, test=0)
    return Catalogue(home).cells(split="val")


def learnt(cells: list[LabelledCell], view: SiteView) -> CellModel:
    """A network whose head tells the classes apart, as cells look in a view."""
    model = build(RECIPE.backbone, len(CLASSES))
    truths = torch.from_numpy(positions(cells, CLASSES))
    seen: list[torch.Tensor] = []
    hook = model.head.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    in_view(model, RECIPE, cells, view, between=lambda: None)
    hook.remove()
    means = torch.stack([torch.cat(seen)[truths == place].mean(dim=0) for place in range(len(CLASSES))])
    with torch.no_grad():
        model.head.weight.copy_(means)
        model.head.bias.copy_(-0.5 * (means**2).sum(dim=1))
    return model


def test_a_view_counts_only_where_it_suits_the_candidate(cells: list[LabelledCell]) -> None:
    for model, suited in ((learnt(cells, OTHER), True), (learnt(cells, SiteView()), False)):
        plain = in_view(model, RECIPE, cells, SiteView(), between=lambda: None)
        assert suits(model, RECIPE, cells, plain, OTHER, between=lambda: None) is suited
        seen = in_view(model, RECIPE, cells, OTHER if suited else SiteView(), between=lambda: None)
        assert (seen.argmax(axis=1) == positions(cells, CLASSES)).mean() > 0.9
        assert not suits(model, RECIPE, cells, plain, SiteView(), between=lambda: None)
        assert not suits(model, RECIPE, cells[:10], plain[:10], OTHER, between=lambda: None)


def test_the_view_is_that_of_the_model_in_use(tmp_path: Path) -> None:
    assert current_view(tmp_path).plain
    folder = install_model(tmp_path)
    assert current_view(tmp_path).plain
    (folder / "adapter.json").write_text(Adapter(view=OTHER).model_dump_json())
    assert current_view(tmp_path) == OTHER
