"""The heat-map head on fields small and plain enough to know what must be found."""

from pathlib import Path

import numpy as np
import pytest
import torch

from client_node.analysis.detection import Box
from client_node.datasets.labelled import LabelledField, MarkedObject
from client_node.datasets.splits import Split
from shared.contracts.objects import ObjectKind
from shared.vision.model import build
from tests.bench.model.finding import Looked, counted
from tests.bench.model.heatmap import Seen, agreement, looked, threshold, train_head, turned_goals
from tests.bench.model.heatmap_head import HeatHead, goals, loss_of, peaks
from tests.bench.model.heatmap_time import Detector, FieldTrunk, exported

STRIDE, HEIGHT, WIDTH = 16, 15, 20
CELLS: tuple[Box, ...] = ((44, 30, 120, 126), (204, 120, 290, 204))


def said(
    wanted: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return the output of a head that says what it shall: its heat as a logit."""
    output = wanted.copy()
    heat = np.clip(wanted[0], 1e-4, 1 - 1e-4)
    output[0] = np.log(heat / (1 - heat))
    return output


def field(number: int, cells: tuple[Box, ...]) -> LabelledField:
    objects = tuple(MarkedObject(box, ObjectKind.CELL) for box in cells)
    return LabelledField(Path("x.png"), f"{number:064d}", WIDTH * STRIDE, HEIGHT * STRIDE, "s", "s", f"g{number}",
                         Split.TRAIN, objects)  # fmt: skip


def test_peaks_give_back_the_boxes_that_the_goals_were_made_of() -> None:
    found = peaks(said(goals(CELLS, HEIGHT, WIDTH, STRIDE)), STRIDE, WIDTH * STRIDE, HEIGHT * STRIDE, least=0.5)
    assert sorted(box for _, box in found) == sorted(CELLS)


def test_peaks_keep_the_surer_of_two_boxes_of_one_cell() -> None:
    output = said(goals(CELLS[:1], HEIGHT, WIDTH, STRIDE))
    output[:, 5, 7] = output[:, 5, 5]  # a second peak two places to the right, a little less sure
    output[0, 5, 7] = 1.0
    found = peaks(output, STRIDE, WIDTH * STRIDE, HEIGHT * STRIDE, least=0.5)
    assert [box for _, box in found] == [CELLS[0]]


@pytest.mark.parametrize("which", range(8))
def test_turned_goals_are_the_goals_of_the_turned_field(which: int) -> None:
    height, width = HEIGHT * STRIDE, WIDTH * STRIDE

    def turn(box: Box) -> Box:
        x0, y0, x1, y1 = box
        if which & 1:
            y0, y1 = height - y1, height - y0
        if which & 2:
            x0, x1 = width - x1, width - x0
        return (y0, x0, y1, x1) if which & 4 else (x0, y0, x1, y1)

    plain = torch.from_numpy(goals(CELLS, HEIGHT, WIDTH, STRIDE))[None]
    shape = (WIDTH, HEIGHT) if which & 4 else (HEIGHT, WIDTH)
    wanted = goals([turn(box) for box in CELLS], *shape, STRIDE)
    found = turned_goals(plain, which)[0].numpy()
    near = wanted[0] > 0.3
    np.testing.assert_allclose(found[0], wanted[0], atol=1e-5)
    np.testing.assert_allclose(found[:, near], wanted[:, near], atol=1e-4)


def test_loss_is_least_for_what_is_wanted() -> None:
    wanted = torch.from_numpy(goals(CELLS, HEIGHT, WIDTH, STRIDE))[None]
    right = torch.from_numpy(said(wanted[0].numpy()))[None]
    nothing, moved = torch.zeros_like(right), right.roll(4, dims=3)
    assert float(loss_of(right, wanted)) < 0.05
    assert min(float(loss_of(nothing, wanted)), float(loss_of(moved, wanted))) > 10.0


def test_a_trained_head_finds_what_its_maps_show_and_its_threshold_is_of_other_fields() -> None:
    random = np.random.default_rng(0)
    fields, maps, wanted = [], [], []
    for number in range(8):
        x, y = (int(value) for value in random.integers(20, 120, 2))
        cells = ((x, y, x + 80, y + 80),)
        goal = goals(cells, HEIGHT, WIDTH, STRIDE)
        look = np.stack([goal[0], random.normal(0, 0.1, goal[0].shape), goal[3], goal[4]])  # where, noise, which way
        fields.append(field(number, cells))
        maps.append(look[None])
        wanted.append(goal)
    views = Seen(STRIDE, np.stack(maps).astype(np.float16), np.stack(wanted))
    head = train_head(views, seed=1, steps=120)
    outputs = [head(torch.from_numpy(look).float())[0].detach().numpy() for look in views.maps]
    least = threshold(outputs, fields, STRIDE)
    hit, right = counted(looked(outputs, fields, STRIDE, least))
    assert hit.all()
    assert right.all()
    assert float(np.mean([len(one.found) for one in looked(outputs, fields, STRIDE, 1.01)])) == 0.0


def test_trunk_gives_maps_of_each_stride_of_a_field_that_is_no_square() -> None:
    model = build("tf_efficientnet_lite0", 3)
    trunk = FieldTrunk(model, (8, 16))
    images = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        eight, sixteen = trunk(images)
    assert eight.shape == (1, trunk.widths[8], 12, 16)
    assert sixteen.shape == (1, trunk.widths[16], 6, 8)
    found = exported(trunk, (96, 128), ["eight", "sixteen"]).run(None, {"images": images.numpy()})
    np.testing.assert_allclose(found[1], sixteen.numpy(), atol=1e-3)
    head = HeatHead(trunk.widths[16])
    assert head(sixteen).shape == (1, 5, 6, 8)
    whole = exported(Detector(model, head, 16), (96, 128), ["found"]).run(None, {"images": images.numpy()})[0]
    np.testing.assert_allclose(whole, head(sixteen).detach().numpy(), atol=1e-3)


def test_agreement_is_of_the_cells_that_were_found() -> None:
    fields = [Looked(Path("x"), ((0, 0, 10, 10), (50, 50, 60, 60)), ((0, 0, 10, 5),))]
    assert agreement(fields) == (0.5, 1)
