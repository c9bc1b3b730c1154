"""What hospitals teach the finder is of use to each of them once it is averaged.

Each site's tail learns too, and what the averaged finder looks through is the average of the tails.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from client_node.analysis.detection import Box, overlap, propose
from client_node.analysis.detection.accept import accept
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.importers import import_source
from client_node.datasets.labelled import LabelledField
from client_node.datasets.synthetic import CLASSES, SCANNERS, make_synthetic
from client_node.training.service import TrainingService
from server.federation.strategies.fedavg import FedAvg
from server.federation.strategies.port import Sent
from server.federation.strategies.tensors import read_tensors, wire_tensors
from server.federation.strategies.updates import verify
from shared.contracts.training import Recipe, TrainReply, TrainRequest
from shared.vision import backbones
from shared.vision.images import load_image
from shared.vision.model import CellModel, build
from shared.vision.preprocessing import cell_crop, to_input, white_point
from shared.vision.weights import base_sha256

RECIPE = Recipe(classes=CLASSES, input_size=64, views=2, local_epochs=1, batch_size=16)
BASE = base_sha256(backbones.get(RECIPE.backbone))


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two hospitals of different stain and scanner."""
    folder = tmp_path_factory.mktemp("network")
    make_synthetic(folder / "smears", sites=2, fields_per_site=12, cells_per_field=4, gallery_cells_per_site=8)
    found = []
    for scanner in SCANNERS[:2]:
        home = folder / scanner.name
        home.mkdir()
        (home / "policy.toml").write_text("[training]\n")
        import_source(home, folder / "smears", site=scanner.name)
        found.append(home)
    return found


def averaged(homes: list[Path], sent: bytes) -> bytes:
    """Return the average of what each home learns in a round."""
    begun = Sent.of(1, sent)
    average = FedAvg().begin(begun)
    for home in homes:
        request = TrainRequest(run_key="r", round=1, rounds=1, base_sha256=BASE, recipe=RECIPE, participants=2)
        reply, tensors = TrainingService(home).handle(request, load(sent))
        assert isinstance(reply, TrainReply)
        assert reply.boxes > 20
        average.add(verify(home.name, save(tensors), begun, examples=reply.examples, boxes=reply.boxes))
    return wire_tensors(average.result().tensors)


def model_of(body: bytes) -> CellModel:
    model = build(RECIPE.backbone, len(CLASSES))
    model.load_trainable({name: torch.from_numpy(array) for name, array in read_tensors(body).items()})
    return model


def found_in(field: LabelledField, model: CellModel) -> list[Box]:
    image = load_image(field.path)
    white, boxes = white_point(image), [one.box for one in propose(image, generous=True)]
    crops = [cell_crop(image, box, white) for box in boxes]
    seen = np.stack([to_input(crop, RECIPE.input_size, model.entry.mean, model.entry.std) for crop in crops])
    with torch.inference_mode():
        objects = model(torch.from_numpy(seen))[2].numpy()
    return [cell.box for cell in accept(boxes, objects, field.width, field.height).cells]


def figures(home: Path, model: CellModel) -> tuple[float, float]:
    """Return recall and precision on the fields of patients that nobody trained on."""
    fields = [field for split in ("val", "test") for field in Catalogue(home).fields(split=split)]
    hits = cells = boxes = 0
    for field in fields:
        found = found_in(field, model)
        hits += sum(any(overlap(cell, box) >= 0.5 for box in found) for cell in field.cells)
        cells, boxes = cells + len(field.cells), boxes + len(found)
    assert cells >= 10
    return hits / cells, hits / max(1, boxes)


def test_an_averaged_finder_finds_the_cells_of_both_hospitals(homes: list[Path]) -> None:
    fresh = build(RECIPE.backbone, len(CLASSES))
    sent = wire_tensors({name: value.numpy() for name, value in fresh.trainable_state().items()})
    model = model_of(averaged(homes, sent))
    for home in homes:
        recall, precision = figures(home, model)
        assert recall >= 0.85
        assert precision >= 0.85
        assert figures(home, fresh) == (0.0, 0.0)  # it has learnt that
