"""Paints synthetic blood smears: red cells, platelets and white cells, as the light that two dyes let through.

A canvas holds the concentration of the two dyes of a Romanowsky stain, azure (nuclei, basophilia) and eosin
(haemoglobin, eosinophil granules). A site's stain and scanner turn that into a picture by Beer-Lambert's
law, so that the same cell looks different at another site, and overlapping cells darken each other.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from client_node.datasets.labelled import Box
from shared.contracts.ontology import CellClass

Plane = NDArray[np.float32]
Canvas = NDArray[np.float32]
"""Concentrations, shape (height, width, 2): azure, eosin."""
_C = CellClass
_STEPS: Final = 720


@dataclass(frozen=True, slots=True)
class Scanner:
    """How a site stains and photographs."""

    name: str
    azure: tuple[float, float, float]
    """Optical density of one unit of the dye in red, green, blue."""
    eosin: tuple[float, float, float]
    background: tuple[float, float, float]
    """8-bit colour of empty glass."""
    scale: float
    """Pixels a unit; a red cell's radius is 1."""
    blur: float
    noise: float
    vignette: float
    gamma: float = 1.0


@dataclass(frozen=True, slots=True)
class CellLook:
    """The drawn features of a class; lengths in red-cell radii, stain in dye units."""

    radius: tuple[float, float]
    cytoplasm: tuple[float, float]
    """Azure, eosin."""
    nucleus: str
    granules: int = 0
    granule_size: float = 0.0
    granule_dye: tuple[float, float] = (0.0, 0.0)
    vacuoles: int = 0


LOOKS: Final[dict[CellClass, CellLook]] = {
    _C.NEUTROPHIL: CellLook((1.55, 1.8), (0.06, 0.25), "lobes", 130, 0.06, (0.05, 0.16)),
    _C.LYMPHOCYTE: CellLook((1.1, 1.4), (0.30, 0.03), "round"),
    _C.MONOCYTE: CellLook((1.9, 2.25), (0.21, 0.13), "kidney", 60, 0.05, (0.05, 0.03), vacuoles=5),
    _C.EOSINOPHIL: CellLook((1.6, 1.85), (0.02, 0.32), "two lobes", 80, 0.105, (0.0, 0.7)),
    _C.BASOPHIL: CellLook((1.4, 1.65), (0.10, 0.18), "blurred", 46, 0.115, (0.55, 0.08)),
    _C.IMMATURE_GRANULOCYTE: CellLook((1.85, 2.15), (0.17, 0.13), "oval", 120, 0.06, (0.17, 0.13)),
}


def blank(width: int, height: int) -> Canvas:
    """Return empty glass."""
    return np.zeros((height, width, 2), np.float32)


def _grid(radius: float) -> tuple[Plane, Plane]:
    half = int(np.ceil(radius)) + 3
    axis = np.arange(-half, half + 1, dtype=np.float32)
    return axis[None, :], axis[:, None]


def _outline(angle: Plane, rng: np.random.Generator, wobble: float) -> Plane:
    """A closed wobbly contour around 1, looked up by angle (-pi to pi)."""
    turn = np.linspace(-np.pi, np.pi, _STEPS + 1, dtype=np.float32)
    contour = np.ones_like(turn)
    for order in (2, 3, 4, 5):
        contour += np.float32(wobble / order * rng.normal()) * np.cos(order * turn + np.float32(rng.uniform(0, 6.3)))
    return np.asarray(contour[((angle + np.float32(np.pi)) * np.float32(_STEPS / 6.2832)).astype(np.intp)], np.float32)


def _blob(xs: Plane, ys: Plane, radius: float, rng: np.random.Generator, wobble: float, soft: float) -> Plane:
    distance = np.hypot(xs, ys)
    contour = np.float32(radius) * _outline(np.arctan2(ys, xs), rng, wobble)
    return np.asarray(np.clip((contour - distance) / np.float32(soft) + np.float32(0.5), 0, 1), np.float32)


def _texture(shape: tuple[int, ...], rng: np.random.Generator, size: float) -> Plane:
    """Smooth noise of about unit deviation."""
    small = rng.standard_normal((int(shape[0] / size) + 3, int(shape[1] / size) + 3), dtype=np.float32)
    large = Image.fromarray(small).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(large, np.float32)


def _stamp(canvas: Canvas, patch: Canvas, x: float, y: float) -> None:
    """Add a patch centred at (x, y), cut at the border."""
    height, width = canvas.shape[:2]
    half = patch.shape[0] // 2
    left, top = round(x) - half, round(y) - half
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + patch.shape[1]), min(height, top + patch.shape[0])
    if x0 < x1 and y0 < y1:
        canvas[y0:y1, x0:x1] += patch[y0 - top : y1 - top, x0 - left : x1 - left]


def paint_red_cell(canvas: Canvas, x: float, y: float, scale: float, rng: np.random.Generator) -> None:
    """A biconcave disc: eosin with central pallor."""
    radius = scale * rng.uniform(0.86, 1.1)
    xs, ys = _grid(radius * 1.25)
    turn, squeeze = rng.uniform(0, 3.1), rng.uniform(0.86, 1.0)
    us = (xs * np.cos(turn) + ys * np.sin(turn)).astype(np.float32)
    vs = ((ys * np.cos(turn) - xs * np.sin(turn)) / squeeze).astype(np.float32)
    disc = _blob(us, vs, radius, rng, 0.05, 2.0)
    distance = np.hypot(us, vs) / radius
    pallor = np.exp(-((distance / rng.uniform(0.38, 0.52)) ** 2)) * rng.uniform(0.5, 0.85)
    patch = np.zeros((*disc.shape, 2), np.float32)
    patch[..., 1] = disc * rng.uniform(0.5, 0.66) * (1 - pallor) * (0.88 + 0.2 * distance**2)
    patch[..., 0] = disc * 0.015
    _stamp(canvas, patch, x, y)


def paint_platelet(canvas: Canvas, x: float, y: float, scale: float, rng: np.random.Generator) -> None:
    """A small azure fragment with a granular centre."""
    radius = scale * rng.uniform(0.22, 0.36)
    xs, ys = _grid(radius * 1.4)
    blob = _blob(xs, ys, radius, rng, 0.22, 2.5)
    centre = _blob(xs, ys, radius * 0.6, rng, 0.3, 2.0)
    patch = np.stack([0.13 * blob + 0.25 * centre, 0.10 * blob + 0.04 * centre], axis=-1).astype(np.float32)
    _stamp(canvas, patch, x, y)


def paint_white_cell(canvas: Canvas, cls: CellClass, x: float, y: float, scale: float, rng: np.random.Generator) -> Box:
    """Paint a white cell and return its box, cut at the border."""
    look = LOOKS[cls]
    radius = scale * rng.uniform(*look.radius)
    xs, ys = _grid(radius * 1.2)
    body = _blob(xs, ys, radius, rng, 0.05, 2.2)
    nucleus = _nucleus(look.nucleus, xs, ys, radius, rng)
    nucleus = np.minimum(ndimage.gaussian_filter(nucleus, scale * 0.02 + 0.4), body)
    azure = look.cytoplasm[0] * body * (1 + 0.12 * _texture(body.shape, rng, scale * 0.22))
    eosin = look.cytoplasm[1] * body * (1 + 0.10 * _texture(body.shape, rng, scale * 0.22))
    grains = _granules(look, body, nucleus, scale, rng)
    azure += grains * look.granule_dye[0]
    eosin += grains * look.granule_dye[1]
    if look.vacuoles:
        holes = _spots(body * (1 - nucleus), look.vacuoles, scale * 0.14, rng)
        azure *= 1 - 0.7 * holes
        eosin *= 1 - 0.7 * holes
    strength = 0.46 if look.nucleus == "blurred" else 0.86
    if look.nucleus in ("kidney", "oval"):
        strength = 0.72
    chromatin = 1 + 0.16 * _texture(body.shape, rng, scale * 0.17) + 0.06 * _texture(body.shape, rng, scale * 0.08)
    shade = rng.uniform(0.9, 1.1)
    patch = np.empty((*body.shape, 2), np.float32)
    patch[..., 0] = azure * (1 - 0.85 * nucleus) + nucleus * strength * np.clip(chromatin, 0.6, 1.4)
    patch[..., 1] = eosin * (1 - 0.7 * nucleus) + nucleus * 0.12
    if look.nucleus == "blurred":
        patch[..., 0] += 0.45 * grains * nucleus
    _stamp(canvas, np.clip(patch, 0, None) * np.float32(shade), x, y)
    return _box_of(body, x, y, canvas.shape[1], canvas.shape[0])


def _nucleus(kind: str, xs: Plane, ys: Plane, radius: float, rng: np.random.Generator) -> Plane:
    turn = rng.uniform(0, 6.3)
    us = (xs * np.cos(turn) + ys * np.sin(turn)).astype(np.float32)
    vs = (ys * np.cos(turn) - xs * np.sin(turn)).astype(np.float32)
    soft = 1.8
    if kind == "round":
        return _blob(us + 0.06 * radius, vs, radius * rng.uniform(0.82, 0.9), rng, 0.04, soft)
    if kind == "oval":
        return _blob(us + 0.14 * radius, vs / 0.9, radius * rng.uniform(0.66, 0.76), rng, 0.05, soft)
    if kind == "blurred":
        return np.asarray(
            ndimage.gaussian_filter(_blob(us, vs / 0.85, radius * 0.68, rng, 0.16, soft * 2), radius * 0.07), np.float32
        )
    if kind == "kidney":
        bean = _blob(us + 0.1 * radius, vs / 1.12, radius * rng.uniform(0.62, 0.7), rng, 0.06, soft)
        dent = _blob(us - radius * rng.uniform(0.5, 0.62), vs, radius * rng.uniform(0.3, 0.4), rng, 0.1, soft)
        return np.asarray(np.clip(bean - dent, 0, 1), np.float32)
    if kind == "two lobes":
        return _lobes(us, vs, radius, 2, 0.38, 1.25, rng)
    return _lobes(us, vs, radius, int(rng.integers(3, 6)), 0.29, rng.uniform(3.4, 4.4), rng)


def _lobes(us: Plane, vs: Plane, radius: float, count: int, size: float, arc: float, rng: np.random.Generator) -> Plane:
    """Lobes along an arc, joined by strands."""
    nucleus = np.zeros(np.broadcast(us, vs).shape, np.float32)
    angles = np.linspace(-arc / 2, arc / 2, count) + rng.normal(0, 0.1, count)
    reach = radius * rng.uniform(0.44, 0.52)
    centres = [(reach * np.cos(a) - 0.1 * radius, reach * np.sin(a)) for a in angles]
    for px, py in centres:
        lobe = _blob(us - px, vs - py, radius * size * rng.uniform(0.88, 1.12), rng, 0.1, 1.8)
        nucleus = np.maximum(nucleus, lobe)
    for (ax, ay), (bx, by) in pairwise(centres):
        length = (bx - ax) ** 2 + (by - ay) ** 2 + 1e-6
        along = np.clip(((us - ax) * (bx - ax) + (vs - ay) * (by - ay)) / length, 0, 1)
        gap = np.hypot(us - ax - along * (bx - ax), vs - ay - along * (by - ay))
        strand = np.clip((radius * rng.uniform(0.08, 0.13) - gap) / 1.8 + 0.5, 0, 1)
        nucleus = np.maximum(nucleus, strand.astype(np.float32))
    return nucleus


def _spots(mask: Plane, count: int, sigma: float, rng: np.random.Generator) -> Plane:
    """Round spots at random places of ``mask``, peak 1."""
    places = np.flatnonzero(mask > 0.6)
    spots = np.zeros(mask.shape, np.float32)
    if places.size:
        spots.flat[rng.choice(places, count)] = 1.0
    spots = ndimage.gaussian_filter(spots, max(sigma, 0.5))
    peak = 1.0 / (2 * np.pi * max(sigma, 0.5) ** 2)
    return np.asarray(np.clip(spots / peak * 1.3, 0, 1), np.float32)


def _granules(look: CellLook, body: Plane, nucleus: Plane, scale: float, rng: np.random.Generator) -> Plane:
    if not look.granules:
        return np.zeros(body.shape, np.float32)
    inner = ndimage.grey_erosion(body, size=(3, 3))
    where = inner if look.nucleus == "blurred" else np.asarray(inner * (1 - nucleus), np.float32)
    return _spots(where, look.granules, look.granule_size * scale, rng)


def _box_of(body: Plane, x: float, y: float, width: int, height: int) -> Box:
    rows, columns = np.flatnonzero((body > 0.5).any(axis=1)), np.flatnonzero((body > 0.5).any(axis=0))
    half = body.shape[0] // 2
    left, top = round(x) - half, round(y) - half
    return (
        int(max(0, left + columns[0])),
        int(max(0, top + rows[0])),
        int(min(width, left + columns[-1] + 1)),
        int(min(height, top + rows[-1] + 1)),
    )


def develop(canvas: Canvas, scanner: Scanner, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn dye into an 8-bit RGB picture: light through both dyes, lens blur, vignette, sensor noise and curve."""
    blurred = ndimage.gaussian_filter(canvas, (scanner.blur, scanner.blur, 0)) if scanner.blur else canvas
    stain = np.array([scanner.azure, scanner.eosin], np.float32) * np.float32(np.log(10) * rng.uniform(0.93, 1.07))
    height, width = canvas.shape[:2]
    ys, xs = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    uneven = (1 - scanner.vignette * (xs**2 + ys**2) / 2 + 0.015 * rng.normal() * xs).astype(np.float32)
    azure, eosin = np.ascontiguousarray(blurred[..., 0]), np.ascontiguousarray(blurred[..., 1])
    picture = np.empty((height, width, 3), np.float32)
    for channel, glass in enumerate(scanner.background):
        light = np.exp(-(azure * stain[0, channel] + eosin * stain[1, channel]))
        picture[..., channel] = light * uneven * np.float32(glass)
    if scanner.gamma != 1.0:
        picture = np.asarray(255 * (picture / 255) ** scanner.gamma, np.float32)
    picture += rng.standard_normal((height, width, 1), dtype=np.float32) * scanner.noise
    picture[..., ::2] += rng.standard_normal((height, width, 1), dtype=np.float32) * (scanner.noise * 0.4)
    return np.asarray(np.clip(picture, 0, 255), np.uint8)
