"""The labelled cells of this hospital that look most like a given one to the model: by distance of its features.

numpy only. The index of one model version lies in ``H/references/`` and is made anew, as far as needed, when the
catalogue or the model has changed.
"""

import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from client_node.analysis.model import LoadedModel, adapter_file
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.images import write_atomic
from client_node.datasets.labelled import LabelledCell, Origin
from client_node.datasets.splits import Split
from shared.contracts.errors import DataInvalidError, NothingToDoError
from shared.contracts.ontology import CellClass
from shared.space import space_guard
from shared.vision import preprocessing
from shared.vision.images import load_image

Floats = NDArray[np.float64]
Progress = Callable[[int, int], None]
MOST: Final = {Split.TRAIN: 3000, Split.VAL: 1000}
"""Cells of the index: references come from the training split; the validation cells measure and set thresholds."""
DIMENSIONS: Final = 64
"""Leading components that distances are taken in; chosen among 32, 64 and 128 on validation cells of PBC."""
TIE: Final = 0.01
"""Differences of distance below this say nothing: a signed reference then stands before an imported one."""
_CELLS_A_DIMENSION: Final = 4
_KEPT_FILES: Final = 4
log = structlog.get_logger(__name__)


class Reference(BaseModel):
    """A labelled cell near to another."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    hash: str
    """In the catalogue."""
    cls: CellClass = Field(alias="class")
    signed: bool
    """Whether the label came home with a signed report; else it was imported."""
    distance: float
    """1 − cosine of the whitened features: 0 = alike, 1 = unrelated, 2 = opposite."""
    path: str


@dataclass(frozen=True, slots=True)
class Space:
    """Centres and whitens features by the leading principal components of the site's training cells."""

    mean: Floats
    scaled: Floats
    """Components divided by their deviations, F × D; the unit matrix where the site has too few cells for that."""

    def __call__(self, features: NDArray[np.floating[Any]]) -> Floats:
        """Return N × D whitened features of length 1. Any: half or single precision."""
        return normalised((features.astype(np.float64) - self.mean) @ self.scaled)


def normalised(points: Floats) -> Floats:
    """Return the points (N × D) brought to length 1."""
    result: Floats = points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-12)
    return result


def fit_space(features: NDArray[np.float32]) -> Space:
    """Fit the space on the features (N × F) of training cells; with fewer than a few dozens it only centres."""
    points = features.astype(np.float64)
    mean = points.mean(axis=0)
    dimensions = min(DIMENSIONS, len(points) // _CELLS_A_DIMENSION, points.shape[1])
    if dimensions < 2:
        return Space(mean, np.eye(points.shape[1]))
    _, values, rows = np.linalg.svd(points - mean, full_matrices=False)
    deviations = values[:dimensions] / np.sqrt(len(points))
    usable = deviations > 1e-6 * max(float(deviations[0]), 1e-12)
    return Space(mean, rows[:dimensions][usable].T / deviations[usable])


@dataclass(frozen=True, slots=True)
class Index:
    """Features of labelled cells by one model."""

    features: NDArray[np.float16]
    hashes: tuple[str, ...]
    cells: tuple[LabelledCell, ...]
    """As the catalogue has them, in the order of the features."""
    space: Space

    def of(self, split: Split) -> NDArray[np.bool_]:
        """Which cells belong to a split."""
        return np.array([cell.split is split for cell in self.cells], bool)

    def nearest(
        self, features: NDArray[np.float32], count: int, *, without: Collection[str] = (), signed: bool = False
    ) -> list[tuple[Reference, ...]]:
        """Return for each of N cells (features N × F) its nearest references, signed ones first where it is a tie.

        References are the training cells and all that carry a reader's signed label; with ``signed`` only the latter.

        Raises:
            NothingToDoError: ``signed`` is asked for, and no label has come home with a report yet.
        """
        vouched = np.array([cell.origin is Origin.FEEDBACK for cell in self.cells], bool)
        if signed and not vouched.any():
            raise NothingToDoError(
                "No label of this site has come home with a signed report yet: leave --signed out to see imported ones."
            )
        wanted = vouched if signed else vouched | self.of(Split.TRAIN)
        places = np.flatnonzero(wanted & np.array([name not in without for name in self.hashes], bool))
        distances = 1.0 - self.space(features) @ self.space(self.features[places]).T
        found = []
        for row in distances:
            order = np.lexsort((row, ~vouched[places], np.round(row / TIE)))[:count]
            found.append(tuple(_reference(self.cells[places[one]], float(row[one])) for one in order))
        return found


def _reference(cell: LabelledCell, distance: float) -> Reference:
    signed = cell.origin is Origin.FEEDBACK
    return Reference(hash=cell.hash, cls=cell.cls, signed=signed, distance=max(0.0, distance), path=str(cell.path))


def index_of(home: Path, model: LoadedModel, *, progress: Progress | None = None) -> Index:
    """Return the index of ``model``; only cells that it does not hold yet are run through the network.

    Raises:
        NothingToDoError: the catalogue has no labelled training cell.
        NoSpaceError: the disk is full.
    """
    cells = _chosen(Catalogue(home).cells())
    file = Path(home) / "references" / f"{key_of(model)}.npz"
    known = _known(file)
    fresh = [cell for cell in cells if cell.hash not in known]
    known |= _computed(model, fresh, progress)
    held = [cell for cell in cells if cell.hash in known]
    if not any(cell.split is Split.TRAIN for cell in held):
        raise NothingToDoError("The catalogue has no labelled training cells to compare with: import some first.")
    features = np.stack([known[cell.hash] for cell in held])
    if fresh:
        _write(file, features, [cell.hash for cell in held])
    train = np.array([cell.split is Split.TRAIN for cell in held], bool)
    return Index(features, tuple(cell.hash for cell in held), tuple(held), fit_space(features[train]))


def key_of(model: LoadedModel) -> str:
    """Return a file name for what belongs to this model, its precision and how it is shown its cells."""
    parts = (model.card.version, adapter_file(model.engine), model.adapter.view.model_dump_json())
    digest = hashlib.sha256("\n".join((*parts, str(preprocessing.VERSION))).encode()).hexdigest()[:12]
    return f"{Path(model.card.version).name}-{digest}"


def _chosen(cells: Sequence[LabelledCell]) -> list[LabelledCell]:
    """Of each split so many, signed ones first, then class by class in turn; and signed ones of the test split.

    To be looked at beside another cell neither trains on a test cell nor sets a threshold by it.
    """
    chosen = [cell for cell in cells if cell.split not in MOST and cell.origin is Origin.FEEDBACK]
    for split, most in MOST.items():
        by_class = defaultdict(list)
        for cell in cells:
            if cell.split is split:
                by_class[cell.cls].append(cell)
        lists = [sorted(group, key=lambda cell: cell.origin is not Origin.FEEDBACK) for group in by_class.values()]
        chosen += [cell for turn in zip_longest(*lists) for cell in turn if cell is not None][:most]
    return sorted(chosen, key=lambda cell: cell.hash)


def _known(file: Path) -> dict[str, NDArray[np.float16]]:
    try:
        with np.load(file, allow_pickle=False) as kept:
            return dict(zip(kept["hashes"].tolist(), kept["features"], strict=True))
    except (OSError, ValueError, KeyError):  # not there yet, or damaged: it is made anew
        return {}


def _computed(
    model: LoadedModel, cells: Sequence[LabelledCell], progress: Progress | None
) -> dict[str, NDArray[np.float16]]:
    found: dict[str, NDArray[np.float16]] = {}
    for start in range(0, len(cells), model.engine.batch):
        names, crops = [], []
        for cell in cells[start : start + model.engine.batch]:
            try:
                crops.append(model.cut(load_image(cell.path), cell.box))
            except DataInvalidError as error:
                log.warning("references.unreadable", cell=cell.hash, code=error.code)
                continue
            names.append(cell.hash)
        for outputs in model.outputs(crops):
            rows = np.clip(outputs.features, -6e4, 6e4).astype(np.float16)
            found |= dict(zip(names, rows, strict=True))
        if progress is not None:
            progress(min(len(cells), start + model.engine.batch), len(cells))
    return found


def _write(file: Path, features: NDArray[np.float16], hashes: list[str]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, features=features, hashes=np.array(hashes))
    with space_guard(file.parent):
        write_atomic(file, buffer.getvalue())
    files = sorted(file.parent.glob("*.npz"), key=lambda one: one.stat().st_mtime_ns, reverse=True)
    for old in files[_KEPT_FILES:]:
        old.unlink(missing_ok=True)
