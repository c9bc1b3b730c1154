"""Cells, qualities and drawn fields for tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client_node.datasets import painter
from client_node.datasets.labelled import Box
from client_node.datasets.synthetic import SCANNERS
from shared.contracts.analysis import Cell, Quality
from shared.contracts.ontology import CellClass


def make_cells(*classes: CellClass, probability: float = 0.9, ood: float = 0.2) -> tuple[Cell, ...]:
    """Sure cells of these classes."""
    return tuple(
        Cell.model_validate(
            {
                "id": f"c{number}", "field": 0, "box": (0, 0, 9, 9), "class": cls, "probability": probability,
                "prediction_set": (cls,), "ood_score": ood,
            }
        )
        for number, cls in enumerate(classes)
    )  # fmt: skip


def make_quality(**change: object) -> Quality:
    """A good one."""
    values = {"white_cells": 100, "focus": 50.0, "brightness": 220.0, "ood_fraction": 0.0, **change}
    return Quality.model_validate(values)


def draw_field(
    site: int, spots: Sequence[tuple[CellClass, float, float]], seed: int = 0
) -> tuple[NDArray[np.uint8], list[Box]]:
    """A field of one synthetic scanner with white cells at given places, and their boxes."""
    rng, scanner = np.random.default_rng(seed), SCANNERS[site]
    canvas = painter.blank(640, 480)
    boxes = [painter.paint_white_cell(canvas, cls, x, y, scanner.scale, rng) for cls, x, y in spots]
    for x in range(30, 640, 90):
        painter.paint_red_cell(canvas, x, 450, scanner.scale, rng)
        painter.paint_platelet(canvas, x, 390, scanner.scale, rng)
    return painter.develop(canvas, scanner, rng), boxes


def save(path: Path, image: NDArray[np.uint8]) -> Path:
    """Write an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path
