"""A promoted version with the site's own normalisation: made and used where the trial finds it better."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from client_node.analysis.activation import maps_of
from client_node.analysis.model import calibration_of, load_model, read_card
from client_node.datasets.catalogue import Catalogue
from client_node.home import NodeHome
from client_node.models.normalisation import OwnNormalisation
from client_node.models.trial import run_trial
from client_node.training import augment
from client_node.training.cache import CropCache
from client_node.training.loop import train
from client_node.training.site import current_metrics, positions
from client_node.training.sources import CropSource
from shared.contracts.training import OwnPart
from shared.vision.export import export_onnx
from shared.vision.model import CellModel, build
from shared.vision.normalisation import normalisation_of, wear
from shared.vision.precision import DELTA_FILE, ONNX_FILE, OWN_ONNX_FILE, own_facts
from tests.client_node.analysis.models import install_model
from tests.client_node.training.site import CLASSES, RECIPE, make_home

LOCAL = RECIPE.model_copy(update={"local_normalisation": True, "local_epochs": 1})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> NodeHome:
    """A hospital whose own normalisation goes with a version of which the average does not."""
    home = NodeHome(make_home(tmp_path_factory.mktemp("site") / "home", train=10, val=8, test=8))
    model = build(RECIPE.backbone, len(CLASSES))
    taught(home, model)
    own = {name: value.numpy() for name, value in normalisation_of(model).items()}
    folder = install_model(home.path)
    card = read_card(folder).model_copy(update={"recipe": LOCAL})
    OwnNormalisation(home.path, LOCAL, card.base_sha256).keep(card.run_key, 1, own)
    wear(model, {name: value.roll(7) for name, value in normalisation_of(model).items()})
    export_onnx(model, RECIPE.input_size, folder / ONNX_FILE)
    save_file(model.trainable_state(), folder / DELTA_FILE)
    (folder / "card.json").write_text(card.model_dump_json(by_alias=True))
    return home


def taught(home: NodeHome, model: CellModel) -> None:
    cells = Catalogue(home.path).cells(split="train")
    cells, crops = CropCache(home.path / "crops", size=RECIPE.input_size).load(cells, between=lambda: None)
    source = CropSource(crops, model, RECIPE.input_size, augment.STRENGTHS[RECIPE.augmentation])
    whole = _Whole(source, model)
    torch.set_num_threads(1)
    train(model, whole, positions(cells, CLASSES), LOCAL, seed=1, between=lambda: None)


class _Whole:
    """Crops through the frozen trunk, as cached maps would be."""

    def __init__(self, crops: CropSource, model: CellModel) -> None:
        self._crops, self._model = crops, model

    def __len__(self) -> int:
        return len(self._crops)

    def draw(self, chosen: np.ndarray[tuple[int], np.dtype[np.int64]], random: np.random.Generator) -> torch.Tensor:
        with torch.no_grad():
            seen: torch.Tensor = self._model.trunk(self._crops.draw(chosen, random))
            return seen

    def plain(self, start: int, stop: int) -> torch.Tensor:
        with torch.no_grad():
            seen: torch.Tensor = self._model.trunk(self._crops.plain(start, stop))
            return seen


def test_the_better_of_shared_and_own_analyses(site: NodeHome) -> None:
    signed = (site.model("test-1") / ONNX_FILE).read_bytes()
    plain = current_metrics(site.path, "test")
    trial = run_trial(site, "test-1", None)
    folder = site.model("test-1")
    model = load_model(folder)
    assert OwnPart.NORMALISATION in trial.parts
    assert model.engine.name.startswith("onnxruntime-own")
    assert (folder / ONNX_FILE).read_bytes() == signed
    found = current_metrics(site.path, "test")
    assert plain is not None
    assert found is not None
    assert found.accuracy > plain.accuracy
    bare = current_metrics(site.path, "test", own=False)
    assert bare is not None
    assert bare.accuracy < found.accuracy  # as it was signed, in the view chosen for that
    assert load_model(folder, own=False).engine.name == "onnxruntime"
    assert trial.accuracy is not None
    assert trial.accuracy > 0.85
    assert not list(folder.glob(".trying*"))
    assert calibration_of(folder)[0] == model.adapter

    maps, _ = maps_of(folder, model.card.recipe)  # what is explained is what analysed
    images = np.zeros((1, 3, RECIPE.input_size, RECIPE.input_size), np.float32)
    own = maps(images, 0)
    shown = folder / OWN_ONNX_FILE
    body = shown.read_bytes()
    shown.write_bytes(body[:-1] + b"x")  # a damaged form counts for nothing, and has its own calibration
    assert own_facts(folder) is None
    signed_model = load_model(folder)
    assert "own" not in signed_model.engine.name
    assert signed_model.adapter != model.adapter
    assert not np.allclose(maps_of(folder, model.card.recipe)[0](images, 0), own)


def test_a_site_that_keeps_none_and_a_recipe_that_asks_for_none_run_the_signed_file(site: NodeHome) -> None:
    folder = site.model("test-1")
    card = read_card(folder)
    for other in (
        card.model_copy(update={"recipe": LOCAL.model_copy(update={"local_normalisation": False})}),
        card.model_copy(update={"base_sha256": "1" * 64}),
    ):
        (folder / "card.json").write_text(other.model_dump_json(by_alias=True))
        trial = run_trial(site, "test-1", None)
        assert OwnPart.NORMALISATION not in trial.parts
        assert trial.lacks_own_normalisation is other.recipe.local_normalisation
        assert own_facts(folder) is None
        assert "own" not in load_model(folder).engine.name
    (folder / "card.json").write_text(card.model_dump_json(by_alias=True))
    assert json.loads((folder / "card.json").read_text())["recipe"]["local_normalisation"] is True
