"""Finds the nucleated cells of a field by their dye: proposals that a trained step and a reader judge, no more.

White balance against the glass, optical density in red light (nuclei absorb it, haemoglobin hardly does), Otsu's
threshold, morphology, and a watershed where two cells touch. Tuned on the training and validation fields of one public
source; a stain far from Romanowsky's needs another detector.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from client_node.analysis.morphology import closed, filled, opened

Box = tuple[int, int, int, int]
Pixels = NDArray[np.uint8]
Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

_BODY_OPENING: Final = 4
_WORKING_SIDE: Final = 320
"""The longer side, in pixels, at which a field is searched: the constants below are in these pixels."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """Constants of the search, in pixels of the working size and units of optical density (base 10)."""

    darkest_glass: float = 60.0
    """Below this mean grey level no light came through: there is nothing to search."""
    red_weight: float = 1.5
    """Nuclei absorb red light; blue absorption, which haemoglobin has too, is taken off it."""
    smoothing: float = 2.2
    least_threshold: float = 0.09
    most_threshold: float = 0.30
    body_share: float = 0.4
    """Share of the threshold down to which a cell's body (pale nucleus, cytoplasm) reaches."""
    body_least: float = 0.05
    joining: int = 8
    """Lobes nearer than twice this are one nucleus."""
    least_area: int = 200
    least_thickness: float = 5.5
    """Radius of the largest disc within the cell: platelets and dirt are thinner."""
    split_distance: int = 14
    notch: int = 3
    """As ``joining``, where touching cells are told apart."""
    split_depth: float = 0.62
    """Two parts are two cells where the neck is thinner than this share of the thinner part."""
    likeness: float = 0.6
    """Two cells are of like thickness to this share."""
    roundness: float = 0.6
    """Least share of a part that its largest disc covers."""
    relative_area: float = 0.18
    """Least area as a share of the field's largest cell: a clump of platelets is smaller."""
    margin: float = 0.14
    """Added around the body, in its radii."""


STRICT: Final = Tuning()
"""For a model whose finder was never trained: each proposal is a cell."""
GENEROUS: Final = replace(
    STRICT, least_area=100, least_thickness=4.0, split_depth=0.8, likeness=0.4, roundness=0.45, relative_area=0.0
)
"""For a trained finder, which rejects what is too much: it missed no cell of those training and validation fields, for
one and a half times as many proposals."""
_SAME: Final = 0.8
"""Intersection over union from which two proposals are one."""
_NEAR: Final = 0.15
"""Gap, in the least side of two boxes, up to which they may be parts of one cell."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A place where a nucleated cell may lie."""

    box: Box
    """In pixels of the field."""
    edge: bool
    """Whether the field's edge cuts it; see `touches_edge`."""


def detect_white_cells(image: Pixels, tuning: Tuning = STRICT) -> list[Box]:
    """Return the boxes of nucleated cells in a field (uint8 height x width x RGB), in its pixels, top to bottom."""
    return _search(image, tuning, (tuning,))


def propose(image: Pixels, *, generous: bool) -> list[Proposal]:
    """Return where nucleated cells may lie in a field (uint8 height x width x RGB), top to bottom.

    ``generous`` proposals overlap where it is not clear whether two parts are one cell or two: the pair and the whole
    are both among them.
    """
    height, width = image.shape[:2]
    boxes = with_unions(_search(image, GENEROUS, (GENEROUS, STRICT))) if generous else detect_white_cells(image)
    return [Proposal(box, touches_edge(box, width, height)) for box in boxes]


def with_unions(boxes: Sequence[Box]) -> list[Box]:
    """Return ``boxes`` and, for each two that nearly touch, the box around both: they may be lobes of one nucleus."""
    found = list(boxes)
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            across = max(one[0], other[0]) - min(one[2], other[2])
            down = max(one[1], other[1]) - min(one[3], other[3])
            least = min(one[2] - one[0], one[3] - one[1], other[2] - other[0], other[3] - other[1])
            if max(across, down) > _NEAR * least:
                continue
            both = min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])
            if all(overlap(both, known) < _SAME for known in found):
                found.append(both)
    return sorted(found, key=lambda box: (box[1], box[0]))


def touches_edge(box: Box, width: int, height: int) -> bool:
    """Return whether ``box`` reaches the edge of its field to within a hundredth of the field: the cell may be cut."""
    reach = max(1, round(0.01 * min(width, height)))
    return box[0] < reach or box[1] < reach or box[2] > width - reach or box[3] > height - reach


def shared_area(one: Box, other: Box) -> int:
    """Return the area that two boxes share."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    if across <= 0:
        return 0
    return across * max(0, min(one[3], other[3]) - max(one[1], other[1]))


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes, 0 to 1."""
    shared = shared_area(one, other)
    if not shared:
        return 0.0
    areas = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return shared / (areas - shared)


def _search(image: Pixels, tuning: Tuning, splits: Sequence[Tuning]) -> list[Box]:
    """Search with ``tuning``, splitting touching cells in the way of each of ``splits``."""
    height, width = image.shape[:2]
    factor = max(height, width) / _WORKING_SIDE
    small = _resized(image, factor) if factor > 1.05 or factor < 0.75 else image
    factor = max(height, width) / max(small.shape[:2])
    glass = background_colour(small)
    if glass.mean() < tuning.darkest_glass:
        return []
    index = nuclear_index(small, tuning, glass)
    boxes: list[Box] = []
    known: dict[tuple[int, int, int, bytes], bool] = {}

    def is_cell(where: tuple[slice, ...], part: Mask) -> bool:
        """Each way of splitting finds most parts again."""
        key = where[0].start, where[1].start, part.shape[1], part.tobytes()
        if key not in known:
            known[key] = _is_cell(part, tuning)
        return known[key]

    for labels in _cells(index, tuning, splits):
        parts = [
            (where, labels[where] == number)
            for number, where in enumerate(ndimage.find_objects(labels), start=1)
            if where is not None
        ]
        cells = [(where, part) for where, part in parts if is_cell(where, part)]
        largest = max((int(part.sum()) for _, part in cells), default=0)
        found = [
            _cell_box(where, part, tuning, factor, width, height)
            for where, part in cells
            if part.sum() >= tuning.relative_area * largest
        ]
        boxes += [box for box in found if all(overlap(box, other) < _SAME for other in boxes)]
    return sorted(boxes, key=lambda box: (box[1], box[0]))


def _resized(image: Pixels, factor: float) -> Pixels:
    height, width = image.shape[:2]
    size = (max(8, round(width / factor)), max(8, round(height / factor)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def background_colour(image: Pixels) -> NDArray[np.float32]:
    """Return the colour of empty glass: the median of the brightest tenth, by the darkest channel, float32 RGB."""
    flat = image[::2, ::2].reshape(-1, 3)
    least = np.minimum(np.minimum(flat[:, 0], flat[:, 1]), flat[:, 2])  # far faster than over an axis of three
    bright = flat[least >= np.percentile(least, 90)]
    return np.asarray(np.maximum(np.median(bright, axis=0), 40), np.float32)


def optical_density(image: Pixels, glass: NDArray[np.float32] | None = None) -> Plane:
    """Return the white-balanced optical density (base 10), float32 height x width x RGB, 0 where as bright as glass."""
    glass = background_colour(image) if glass is None else glass
    table = np.log10(np.maximum(np.arange(256, dtype=np.float32), 4))
    return np.asarray(np.clip(np.log10(glass) - table[image], 0, None), np.float32)


def nuclear_index(image: Pixels, tuning: Tuning = STRICT, glass: NDArray[np.float32] | None = None) -> Plane:
    """Return how nucleus-like each pixel is: weighted red optical density less the blue one; haemoglobin is below 0."""
    density = optical_density(image, glass)
    index = tuning.red_weight * density[..., 0] - density[..., 2]
    return np.asarray(ndimage.gaussian_filter(index, tuning.smoothing), np.float32)


def _cells(index: Plane, tuning: Tuning, splits: Sequence[Tuning]) -> list[NDArray[np.int32]]:
    """Label the cells once for each of ``splits``: bodies that hold a nucleus, split where two touch."""
    stained = index[index > tuning.body_least]
    if stained.size < tuning.least_area:
        return []
    threshold = _otsu(stained, tuning)
    stained_body = index > max(tuning.body_least, tuning.body_share * threshold)
    body = _closed(stained_body, tuning.joining)
    body = opened(filled(body), _BODY_OPENING)
    components, _ = ndimage.label(body)
    cored = np.unique(components[index > threshold])
    body = np.asarray(np.isin(components, cored[cored > 0]))
    # Closing joins lobes, and fills the notch between two touching cells too: those are told apart before it.
    tight = filled(_closed(stained_body, tuning.notch)) & body
    return _split(body, tight, splits)


def _otsu(stained: Plane, tuning: Tuning) -> float:
    threshold = threshold_otsu(stained)
    return float(np.clip(threshold, tuning.least_threshold, tuning.most_threshold))


def _closed(mask: Mask, radius: int) -> Mask:
    inner = slice(radius, -radius)
    return closed(np.pad(mask, radius, mode="edge"), radius)[inner, inner]


def _split(body: Mask, tight: Mask, splits: Sequence[Tuning]) -> list[NDArray[np.int32]]:
    """Label the cells of ``body``; one that is two round parts with a thin neck in ``tight`` becomes two."""
    thickness = np.asarray(
        ndimage.gaussian_filter(ndimage.distance_transform_edt(np.pad(tight, 1))[1:-1, 1:-1], 1.5), np.float32
    )
    components, _ = ndimage.label(body)
    peaks = peaks_of(thickness, components, splits[0].split_distance)
    markers = np.zeros(body.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    flooded = watershed(-thickness, markers, mask=body)
    labels = np.asarray(flooded, np.int32)
    tops = np.concatenate([[0.0], thickness[tuple(peaks.T)]])
    areas = np.bincount(labels.ravel(), minlength=len(tops))
    necks = _necks(labels, thickness)
    return [_merged(labels, necks, tops, areas, tuning) for tuning in splits]


def peaks_of(thickness: Plane, components: NDArray[np.int32], apart: int) -> NDArray[np.intp]:
    """Return each component's peaks, no two of one component within less than ``apart``, as N × (row, column).

    Where no two are equally high these are the peaks of `skimage.feature.peak_local_max` with these labels, several
    times as fast: nearly every component has one candidate, and nothing to be kept apart from it.
    """
    found: list[tuple[int, int]] = []
    for number, where in enumerate(ndimage.find_objects(components), start=1):
        if where is None:
            continue
        own = np.where(components[where] == number, thickness[where], np.float32(-1.0))
        highest = ndimage.maximum_filter(own, 2 * apart + 1, mode="nearest")
        rows, columns = np.nonzero((own == highest) & (own > 0.0))
        kept: list[tuple[int, int]] = []
        for place in np.argsort(-own[rows, columns], kind="stable"):
            row, column = int(rows[place]), int(columns[place])
            if all(max(abs(row - above), abs(column - left)) >= apart for above, left in kept):
                kept.append((row, column))
        found += [(where[0].start + row, where[1].start + column) for row, column in kept]
    return np.array(found, np.intp).reshape(-1, 2)


def _necks(labels: NDArray[np.int32], thickness: Plane) -> dict[tuple[int, int], float]:
    """Return the thickness at the thickest place of each border between two parts."""
    necks: dict[tuple[int, int], float] = {}
    for one, other, deep in (
        (labels[:-1], labels[1:], thickness[:-1]),
        (labels[:, :-1], labels[:, 1:], thickness[:, :-1]),
    ):
        border = (one != other) & (one > 0) & (other > 0)
        for first, second, value in zip(one[border], other[border], deep[border], strict=True):
            pair = (int(min(first, second)), int(max(first, second)))
            necks[pair] = max(necks.get(pair, 0.0), float(value))
    return necks


def _merged(
    labels: NDArray[np.int32],
    necks: dict[tuple[int, int], float],
    tops: NDArray[np.float64],
    areas: NDArray[np.intp],
    tuning: Tuning,
) -> NDArray[np.int32]:
    """Join neighbouring parts again unless both are round, of like size, and their neck is thin."""
    roots = list(range(len(tops)))
    for (one, other), neck in sorted(necks.items(), key=lambda item: -item[1]):
        thin, thick = sorted((tops[one], tops[other]))
        roundness = min(np.pi * tops[part] ** 2 / areas[part] for part in (one, other))
        alike = thin >= tuning.least_thickness and thin >= tuning.likeness * thick
        if neck >= tuning.split_depth * thin or not alike or roundness < tuning.roundness:
            target, source = roots[one], roots[other]
            roots = [target if value == source else value for value in roots]
    return np.asarray(np.array(roots, np.int32)[labels], np.int32)


def _is_cell(part: Mask, tuning: Tuning) -> bool:
    if int(part.sum()) < tuning.least_area:
        return False
    around = np.zeros((part.shape[0] + 2, part.shape[1] + 2), bool)
    around[1:-1, 1:-1] = part
    return float(ndimage.distance_transform_edt(around).max()) >= tuning.least_thickness


def _cell_box(where: tuple[slice, ...], part: Mask, tuning: Tuning, factor: float, width: int, height: int) -> Box:
    rows, columns = where
    grow = tuning.margin * float(np.sqrt(part.sum() / np.pi))
    return (
        max(0, int((columns.start - grow) * factor)),
        max(0, int((rows.start - grow) * factor)),
        min(width, round((columns.stop + grow) * factor)),
        min(height, round((rows.stop + grow) * factor)),
    )
