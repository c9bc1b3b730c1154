"""Classes taught by a few examples, without training: prototypes in the model's whitened features. numpy only.

A class's prototype is the mean direction of its examples (Snell et al. 2017; centred and brought to unit length as by
Wang et al. 2019). A cell takes the class where it is nearer to the prototype than the examples themselves prove to
lie when each is left out in turn, nearer than to the centroid of any class of the model's own, and, where the model
knows the class's parent, only where it thinks of the parent. Such a reading is provisional.

``H/taught/classes.json`` names each class's examples, ``H/taught/images`` keeps them; ``H/taught/<model>.json`` holds
the prototypes of one model, made anew from the images when another model comes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from client_node.analysis.model import LoadedModel, Reading
from client_node.analysis.references import Floats, Progress, Space, index_of, key_of, normalised
from client_node.datasets.images import ImageStore, read_limited, write_atomic
from client_node.datasets.labelled import as_predicted
from client_node.datasets.splits import Split
from shared.contracts.errors import (
    ConfigError,
    DataInvalidError,
    HematovisionError,
    NotFoundError,
    NothingToDoError,
    UsageError,
)
from shared.contracts.ontology import CellClass
from shared.space import space_guard
from shared.vision.images import load_image

LEAST: Final = 5
"""Examples that a class needs."""
LEAST_LABELLED: Final = 20
"""Cells of the site's catalogue, of at least two classes, that the examples are compared with."""
LEAST_FOUND: Final = 0.5
"""Share of the examples that must be recognised with each left out in turn; else the model cannot tell the class."""
MOST_STRANGERS: Final = 0.02
"""Share of the site's cells of other classes that the threshold may let in; the parent's cells are not counted."""
_NOTHING_TO_COMPARE: Final = (
    f"Examples are compared with labelled cells of this site: import at least {LEAST_LABELLED} (a node that only "
    "analyses can, too), of two or more of the model's classes, then teach again. What the model carries of other "
    "laboratories holds no single cell, so it cannot tell how many others would be called so."
)
log = structlog.get_logger(__name__)


class Prototype(BaseModel):
    """A taught class, as one model sees it."""

    model_config = ConfigDict(frozen=True)

    cls: CellClass
    parent: CellClass | None
    """The class of the model under which it falls, if any."""
    direction: tuple[float, ...]
    threshold: float
    """Distance (1 − cosine) up to which a cell may take the class."""
    found: float
    """Share of the examples recognised with each left out."""
    strangers: float
    """Share of the site's labelled cells of other classes that would take it."""
    problem: str | None = None
    """Why the class is not used with this model."""


class Stored(BaseModel):
    """``<model>.json``: the prototypes of one model, and the space they live in."""

    model_config = ConfigDict(frozen=True)

    examples: dict[CellClass, tuple[str, ...]]
    """What they were made of: SHA-256 of each example."""
    mean: tuple[float, ...]
    scaled: tuple[tuple[float, ...], ...]
    own: tuple[tuple[float, ...], ...]
    """Centroids of the model's own classes at this site."""
    prototypes: tuple[Prototype, ...]


class Examples(BaseModel):
    """The examples of one class."""

    model_config = ConfigDict(frozen=True)

    images: tuple[str, ...]
    """Below ``H/taught/images``."""
    taught_at: datetime

    @property
    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of each example."""
        return tuple(Path(name).stem for name in self.images)


@dataclass(frozen=True, slots=True)
class Prototypes:
    """The taught classes of a site, for one model."""

    space: Space
    own: Floats
    prototypes: tuple[Prototype, ...]

    def revise(self, readings: list[Reading], features: NDArray[np.float32]) -> list[Reading]:
        """Return the readings of N cells (features N × F); those of a taught class name it and are provisional.

        Such a reading's set holds the taught class and the model's own set. Its probability only says how much nearer
        the prototype is than the nearest of the model's own classes: it is above 0.5 and not calibrated.
        """
        usable = [one for one in self.prototypes if one.problem is None]
        if not usable or not readings:
            return readings
        points = self.space(features)
        own = (1.0 - points @ self.own.T).min(axis=1)
        distances = np.stack([1.0 - points @ np.asarray(one.direction) for one in usable], axis=1)
        return [
            _revised(reading, usable, row, float(nearest))
            for reading, row, nearest in zip(readings, distances, own, strict=True)
        ]


def _revised(reading: Reading, prototypes: Sequence[Prototype], distances: Floats, own: float) -> Reading:
    for place in np.argsort(distances, kind="stable"):
        one, distance = prototypes[place], max(0.0, float(distances[place]))
        thought_of = one.parent is None or one.parent is reading.cls or one.parent in reading.prediction_set
        if thought_of and distance <= one.threshold and distance < own:
            others = tuple(cls for cls in (reading.cls, *reading.prediction_set) if cls is not one.cls)
            members = tuple(dict.fromkeys((one.cls, *others)))
            sure = own / (own + distance)
            return replace(
                reading, cls=one.cls, probability=sure, prediction_set=members, provisional=True, margin=None
            )
    return reading


def fit(
    cls: CellClass, examples: NDArray[np.float32], readings: Sequence[Reading], *, classes: Sequence[CellClass],
    space: Space, own: Floats, cells: Floats, labels: Sequence[CellClass],
) -> Prototype:  # fmt: skip
    """Return the prototype of ``cls``, with a ``problem`` where this model cannot tell it from its own classes.

    Args:
        cls: the class to teach.
        examples: features of its N examples, N × F; ``readings``: what the model says of them by itself.
        classes: what the model predicts.
        space: whitens features.
        own: centroids of the model's own classes, K × D.
        cells: whitened features of the site's labelled cells that stand for everything else, M × D.
        labels: their classes, as labelled.
    """
    parent = as_predicted(cls, classes)
    points = space(examples)
    total = points.sum(axis=0)
    direction = normalised(total)
    left_out = 1.0 - (normalised(total - points) * points).sum(axis=1)
    foreign = np.array([label is not cls and as_predicted(label, classes) is not parent for label in labels], bool)
    if parent is None:
        foreign = np.array([label is not cls for label in labels], bool)
    strange = np.sort(1.0 - cells[foreign] @ direction)
    nearest = (1.0 - points @ own.T).min(axis=1)
    # As far as the farthest example, unless strangers live there.
    threshold = float(left_out.max())
    allowed = int(MOST_STRANGERS * len(strange))
    if allowed < len(strange):
        threshold = min(threshold, float(np.nextafter(strange[allowed], -1.0)))
    thought_of = np.array([parent is None or parent in (one.cls, *one.prediction_set) for one in readings])
    found = float(((left_out <= threshold) & (left_out < nearest) & thought_of).mean())
    problem = None
    if found < LEAST_FOUND:
        names = sorted({one.cls.info.name for one in readings})
        problem = (
            f"The model cannot tell these examples from its own classes: of {len(examples)}, {round(found * 100)} % "
            f"are recognised when each is left out in turn; by itself it calls them {', '.join(names)}. Give more, or "
            "more typical examples."
        )
    return Prototype(
        cls=cls, parent=parent, direction=tuple(direction.tolist()), threshold=max(0.0, threshold), found=found,
        strangers=float((strange <= threshold).mean()) if len(strange) else 0.0, problem=problem,
    )  # fmt: skip


def _stored(store: ImageStore, images: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Keep the examples that can be read, each once; return where they lie, and what was left out and why."""
    kept: dict[str, str] = {}
    left_out = []
    for path in images:
        try:
            data = read_limited(path)
            load_image(data)
            stored = store.put(data)
        except DataInvalidError as error:
            left_out.append(f"{path.name}: {error.message}")
            continue
        if stored.sha256 in kept:
            left_out.append(f"{path.name}: the same image was given twice")
        kept.setdefault(stored.sha256, stored.relative)
    return list(kept.values()), left_out


def _enough(cls: CellClass, kept: Sequence[str], left_out: Sequence[str]) -> Examples:
    if len(kept) < LEAST:
        why = f" ({left_out[0].rstrip('.')})" if left_out else ""
        raise DataInvalidError(
            f"{len(kept)} different readable examples of {cls.value}{why}: at least {LEAST} are needed."
        )
    return Examples(images=tuple(kept), taught_at=datetime.now(UTC))


def _usable(prototype: Prototype) -> Prototype:
    if prototype.problem is not None:
        raise DataInvalidError(prototype.problem)
    return prototype


class Lessons:
    """The taught classes of a node's home."""

    def __init__(self, home: Path) -> None:
        self._home = Path(home)
        self.root = self._home / "taught"

    def classes(self) -> dict[CellClass, Examples]:
        """Return the examples by class, in the ontology's order.

        Raises:
            ConfigError: the list is damaged.
        """
        try:
            rows = json.loads((self.root / "classes.json").read_text())
            found = {CellClass(name): Examples.model_validate(row) for name, row in rows.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, ValidationError) as error:
            raise ConfigError("taught/classes.json is damaged: restore it, or remove it and teach again.") from error
        return {cls: found[cls] for cls in CellClass if cls in found}

    def teach(
        self, cls: CellClass, images: Sequence[Path], model: LoadedModel, *, progress: Progress | None = None
    ) -> tuple[Prototype, list[str]]:
        """Add a class by examples, or replace the one taught before; return its prototype and what was left out, why.

        Raises:
            UsageError: the model predicts the class by itself.
            DataInvalidError: too few examples can be read, or the model cannot tell them from its own classes, or the
                site has too few labelled cells to find that out. Nothing is kept then.
            NoSpaceError: the disk is full.
        """
        if cls in model.classes:
            raise UsageError(f"The model predicts {cls.value} by itself: there is nothing to teach.")
        if cls is CellClass.UNIDENTIFIED:
            raise UsageError("What is unidentified cannot be taught: name the class.")
        store = ImageStore(self.root / "images")
        try:
            kept, left_out = _stored(store, images)
            known = {**self.classes(), cls: _enough(cls, kept, left_out)}
            made = self._make(known, model, progress)
            prototype = _usable(next(one for one in made.prototypes if one.cls is cls))
            self._write_classes(known)
            self._write(self._file(model), made.model_dump_json())
        except BaseException:
            store.take_back()
            raise
        return prototype, left_out

    def forget(self, cls: CellClass) -> None:
        """Remove a class and the images that no other class uses.

        Raises:
            NotFoundError: it was never taught.
        """
        known = self.classes()
        if cls not in known:
            raise NotFoundError(f"{cls.value} was not taught here: `teach --list` names what was.")
        gone = known.pop(cls)
        self._write_classes(known)
        used = {name for one in known.values() for name in one.images}
        for name in gone.images:
            if name not in used:
                (self.root / "images" / name).unlink(missing_ok=True)

    def prototypes(self, model: LoadedModel, *, progress: Progress | None = None) -> tuple[Prototype, ...]:
        """Return how ``model`` sees each taught class."""
        stored = self._stored(model, progress)
        return stored.prototypes if stored else ()

    def on(self, model: LoadedModel) -> LoadedModel:
        """Return ``model`` with what the site has taught; as it is where that is nothing, or cannot be used."""
        try:
            stored = self._stored(model, None)
        except HematovisionError as error:
            log.warning("teach.unused", code=error.code, reason=error.message)
            return model
        if stored is None:
            return model
        for one in stored.prototypes:
            if one.problem is not None:
                log.warning("teach.unused", cls=one.cls.value, reason=one.problem)
        space = Space(np.asarray(stored.mean), np.asarray(stored.scaled))
        return replace(model, taught=Prototypes(space, np.asarray(stored.own), stored.prototypes))

    def _stored(self, model: LoadedModel, progress: Progress | None) -> Stored | None:
        known = self.classes()
        if not known:
            return None
        file = self._file(model)
        try:
            stored = Stored.model_validate_json(file.read_text())
            if stored.examples == {cls: one.hashes for cls, one in known.items()}:
                return stored
        except (OSError, ValidationError):
            pass  # another model, or damaged: made anew from the kept images
        stored = self._make(known, model, progress)
        self._write(file, stored.model_dump_json())
        return stored

    def _make(self, known: dict[CellClass, Examples], model: LoadedModel, progress: Progress | None) -> Stored:
        bare = replace(model, taught=None)
        try:
            index = index_of(self._home, bare, progress=progress)
        except NothingToDoError:
            raise DataInvalidError(_NOTHING_TO_COMPARE) from None
        labels = [as_predicted(cell.cls, model.classes) for cell in index.cells]
        train, held = index.of(Split.TRAIN), index.of(Split.VAL)
        points = index.space(index.features)
        own = [
            normalised(points[places].mean(axis=0))
            for cls in model.classes
            if (places := train & np.array([label is cls for label in labels], bool)).any()
        ]
        if len(index.cells) < LEAST_LABELLED or len(own) < 2:
            raise DataInvalidError(_NOTHING_TO_COMPARE)
        # The model has learnt its training cells by heart: where there are others, they stand for what is to come.
        others = held if held.sum() >= LEAST_LABELLED else train | held
        stands_for = [cell.cls for cell, there in zip(index.cells, others, strict=True) if there]
        made = [
            self._prototype(cls, examples, bare, index.space, np.stack(own), points[others], stands_for)
            for cls, examples in known.items()
        ]
        return Stored(
            examples={cls: one.hashes for cls, one in known.items()}, mean=tuple(index.space.mean.tolist()),
            scaled=tuple(map(tuple, index.space.scaled.tolist())), own=tuple(tuple(row.tolist()) for row in own),
            prototypes=tuple(made),
        )  # fmt: skip

    def _prototype(
        self, cls: CellClass, examples: Examples, model: LoadedModel, space: Space, own: Floats, cells: Floats,
        labels: Sequence[CellClass],
    ) -> Prototype:  # fmt: skip
        crops = [model.cut(load_image(self.root / "images" / name), None) for name in examples.images]
        features = np.concatenate([outputs.features for outputs in model.outputs(crops)])
        readings = model.read(crops)
        made = fit(cls, features, readings, classes=model.classes, space=space, own=own, cells=cells, labels=labels)
        if cls in model.classes:
            return made.model_copy(update={"problem": f"The model predicts {cls.value} by itself now."})
        return made

    def _file(self, model: LoadedModel) -> Path:
        return self.root / f"{key_of(model)}.json"

    def _write_classes(self, known: dict[CellClass, Examples]) -> None:
        rows = {cls.value: one.model_dump(mode="json") for cls, one in known.items()}
        self._write(self.root / "classes.json", json.dumps(rows))

    @staticmethod
    def _write(file: Path, text: str) -> None:
        with space_guard(file.parent):
            write_atomic(file, text.encode())
