"""Class colours are told apart with each kind of colour blindness, and stand out from the viewport."""

import re
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab

import portal

CSS: Final = (Path(portal.__file__).parent / "static" / "css" / "app.css").read_text()
NAMES: Final = ("ne", "ig", "bl", "ly", "vl", "mo", "eo", "ba", "ot")
# Linear RGB as somebody without one kind of cones sees it: G. M. Machado et al., IEEE TVCG 15 (2009) 1291, severity 1.
SEEN: Final = {
    "by most": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
APART: Final = 10.0
"""CIEDE2000; about 2.3 is just noticeable side by side. Every chip and box also carries its class's two letters."""


@pytest.mark.parametrize("how", SEEN)
def test_each_two_class_colours_are_told_apart(how: str) -> None:
    seen = {name: simulated(colour(name), how) for name in NAMES}
    near = {f"{a}/{b}": distance(seen[a], seen[b]) for a, b in combinations(NAMES, 2)}
    assert {pair: round(far, 1) for pair, far in near.items() if far < APART} == {}


@pytest.mark.parametrize("how", SEEN)
def test_boxes_stand_out_from_the_viewport(how: str) -> None:
    ground = simulated(hexadecimal("1e1e20"), how)
    assert {name: far for name in NAMES if (far := distance(simulated(colour(name), how), ground)) < 2 * APART} == {}


def colour(name: str) -> NDArray[np.float64]:
    """Return a class's colour, sRGB within 0 and 1."""
    found = re.search(rf"--{name}: #([0-9a-f]{{6}});", CSS)
    assert found, name
    return hexadecimal(found[1])


def hexadecimal(digits: str) -> NDArray[np.float64]:
    """Return ``d55e00`` as sRGB within 0 and 1."""
    return np.array([int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)])


def simulated(srgb: NDArray[np.float64], how: str) -> NDArray[np.float64]:
    """Return what is seen of a colour, sRGB within 0 and 1."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(SEEN[how]) @ linear, 0, 1)
    out: NDArray[np.float64] = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    return out


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the CIEDE2000 distance of two colours."""
    return float(deltaE_ciede2000(rgb2lab(one), rgb2lab(other)))
