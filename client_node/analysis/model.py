"""The model a node analyses with: its card, its runtime and the site's calibration, loaded together."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from shared.contracts.errors import ModelInvalidError
from shared.contracts.laboratory import KNOWN_FILE, KnownLaboratories, KnownLaboratory
from shared.contracts.model_card import ModelCard, SignedModelCard
from shared.contracts.ontology import CellClass
from shared.vision import backbones, calibration, preprocessing
from shared.vision.boxes import OUTPUTS
from shared.vision.engine import Engine, Outputs, load_engine
from shared.vision.known import Known, known
from shared.vision.precision import Precision, own_facts, precision_of

Pixels = NDArray[np.uint8]
_ADAPTER: Final = "adapter.json"
_INT8_ADAPTER: Final = "adapter.int8.json"
_OWN_ADAPTER: Final = "adapter.own.json"
_DAMAGED: Final = f"The model's {KNOWN_FILE} is damaged: install the model again."


@dataclass(frozen=True, slots=True)
class Reading:
    """What the model says about one cell."""

    cls: CellClass
    probability: float
    prediction_set: tuple[CellClass, ...]
    ood_score: float
    provisional: bool = False
    """Whether the class is one that the site has taught by a few examples; see `prototypes`."""
    margin: float | None = None
    """By how much the likeliest class leads the second, 0–1; None where no probability of the others is known."""


class Taught(Protocol):
    """Classes that the site has added to what the model knows."""

    def revise(self, readings: list[Reading], features: NDArray[np.float32]) -> list[Reading]:
        """Return the readings of N cells (features N × F), those of a taught class changed."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to classify crops."""

    card: ModelCard
    engine: Engine
    adapter: calibration.Adapter
    taught: Taught | None = None
    laboratories: tuple[KnownLaboratory, ...] = ()
    """Those that it learnt from, as it carries them; an old model carries none."""
    known: Known | None = None
    """Their cells, to score others by."""

    @property
    def classes(self) -> tuple[CellClass, ...]:
        """What it can predict, in the order of its outputs."""
        return self.card.recipe.classes

    @property
    def finds(self) -> bool:
        """Whether its finder says what is a cell here: it was trained, and this site's marked fields do not object."""
        return self.card.finds and self.adapter.finder is not False

    def read(self, crops: Iterable[Pixels]) -> list[Reading]:
        """Classify crops that `cut` made, in batches."""
        return self.look(crops)[0]

    def cut(self, image: Pixels, box: preprocessing.Box | None, white: NDArray[np.float64] | None = None) -> Pixels:
        """Cut a cell as wide as this site's cells are shown to the model; see `preprocessing.cell_crop`."""
        return preprocessing.cell_crop(image, box, white, surround=self.adapter.view.surround)

    def look(self, crops: Iterable[Pixels]) -> tuple[list[Reading], NDArray[np.float32]]:
        """Classify crops; return what else the network says of them too: N × `boxes.OUTPUTS`, for the finder."""
        readings: list[Reading] = []
        objects = [np.zeros((0, OUTPUTS), np.float32)]
        for outputs in self.outputs(crops):
            found = self.readings(outputs)
            readings.extend(found if self.taught is None else self.taught.revise(found, outputs.features))
            objects.append(outputs.objects)
        return readings, np.concatenate(objects)

    def inputs(self, crops: Iterable[Pixels]) -> Iterator[NDArray[np.float32]]:
        """Return the network's input for each crop that `cut` made: 3 × S × S float32."""
        entry, size, view = backbones.get(self.card.recipe.backbone), self.card.recipe.input_size, self.adapter.view
        return (preprocessing.to_input(view.coloured(crop), size, entry.mean, entry.std) for crop in crops)

    def outputs(self, crops: Iterable[Pixels]) -> Iterator[Outputs]:
        """Return what the network says of crops that `cut` made, batch by batch."""
        return map(self.engine.run, _batches(self.inputs(crops), self.engine.batch))

    def calibrated(self, logits: NDArray[np.float32], features: NDArray[np.float32]) -> calibration.Calibrated:
        """Return what the network's outputs for N cells mean at this site; see `calibration.apply`."""
        return calibration.apply(self.adapter, logits, features, self.known)

    @property
    def compared(self) -> str:
        """What a cell's strangeness is measured against, in words for the evidence of a flag."""
        return compared(self.adapter, self.known)

    def readings(self, outputs: Outputs) -> list[Reading]:
        """Return what the model itself says of a batch, without the classes that the site has taught."""
        return list(self._readings(outputs.logits, outputs.features))

    def _readings(self, logits: NDArray[np.float32], features: NDArray[np.float32]) -> Iterator[Reading]:
        if not (np.isfinite(logits).all() and np.isfinite(features).all()):
            raise ModelInvalidError("The model computes numbers that are not finite: roll back to the version before.")
        try:
            result = self.calibrated(logits, features)
        except ValueError as error:
            own = self.adapter.space is not None
            remedy = "The site's adapter.json does not fit the model: remove it." if own else _DAMAGED
            raise ModelInvalidError(remedy) from error
        for row, members, score in zip(result.probabilities, result.sets, result.ood_scores, strict=True):
            best = int(np.argmax(row))
            chosen = tuple(cls for cls, member in zip(self.classes, members, strict=True) if member)
            second = float(np.partition(row, -2)[-2]) if len(row) > 1 else 0.0
            sure = float(min(1.0, max(0.0, row[best])))
            yield Reading(
                self.classes[best], sure, chosen, float(score), margin=min(1.0, max(0.0, float(row[best]) - second))
            )


def _batches(inputs: Iterable[NDArray[np.float32]], size: int) -> Iterator[NDArray[np.float32]]:
    batch: list[NDArray[np.float32]] = []
    for one in inputs:
        batch.append(one)
        if len(batch) == size:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def current_model_dir(home: Path) -> Path:
    """Return the folder of the model the node runs now.

    Raises:
        ModelInvalidError: none is installed.
    """
    try:
        version = json.loads((Path(home) / "models" / "current.json").read_text())["version"]
    except FileNotFoundError:
        raise ModelInvalidError(
            "No model is installed yet: run `hematovision-node run` until the centre has promoted one, or name one "
            "with --model."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelInvalidError(
            "models/current.json cannot be read: restart the node to install the model again."
        ) from error
    if not isinstance(version, str) or Path(version).name != version:
        raise ModelInvalidError("models/current.json names no model version: restart the node to install it again.")
    return Path(home) / "models" / version


def load_model(folder: Path, *, precision: Precision | None = None, own: bool = True) -> LoadedModel:
    """Load the model in ``folder``: card.json, model.onnx, known.json, and adapter.json where the site has fitted one.

    The signature was verified when the model was installed. Without the site's own adapter the card's calibration is
    used. ``precision`` overrides the site's choice between the fp32 file and its INT8 form. ``own`` false loads the
    signed network, whatever normalisation of its own the site keeps.

    Raises:
        ModelInvalidError: a file is missing or damaged.
    """
    card = read_card(folder)
    engine = load_engine(folder, card.recipe, precision=precision, own=own)
    laboratories = _laboratories(folder)
    adapter = _adapter(folder / adapter_file(engine), card)
    return LoadedModel(card, engine, adapter, laboratories=laboratories, known=_known(laboratories))


def adapter_file(engine: Engine) -> str:
    """Return the name of the file with the site's calibration of ``engine``: each form's features lie elsewhere."""
    if "int8" in engine.name:
        return _INT8_ADAPTER
    return _OWN_ADAPTER if "-own" in engine.name else _ADAPTER


def read_card(folder: Path) -> ModelCard:
    """Return the card in ``folder``, signed or bare; see `load_model` for the errors."""
    try:
        data = json.loads((folder / "card.json").read_text())
        signed = isinstance(data, dict) and "card" in data
        return SignedModelCard.model_validate(data).card if signed else ModelCard.model_validate(data)
    except FileNotFoundError:
        raise ModelInvalidError("The model folder holds no card.json: name the folder of a model version.") from None
    except (OSError, ValueError, ValidationError) as error:
        raise ModelInvalidError("The model's card.json is damaged: install the model again.") from error


def calibration_of(folder: Path) -> tuple[calibration.Adapter, str]:
    """Return the calibration that analyses with the model in ``folder``, and what cells are `compared` with.

    The network itself is not loaded. See `load_model` for the errors.
    """
    whole = _ADAPTER if own_facts(folder) is None else _OWN_ADAPTER
    file = _INT8_ADAPTER if precision_of(folder) is Precision.INT8 else whole
    adapter = _adapter(folder / file, read_card(folder))
    return adapter, compared(adapter, _known(_laboratories(folder)))


def compared(adapter: calibration.Adapter, laboratories: Known | None) -> str:
    """Say what `calibration.strangeness` measures against."""
    taught = "" if laboratories is None else f"the {len(laboratories.spaces)} laboratories that taught the model"
    taught = taught.replace("the 1 laboratories", "the laboratory")
    if adapter.space is None and not taught:
        return "nothing: this model carries no laboratory, so only how unsure it is"
    if adapter.space is None:
        return taught if adapter.view.plain else f"{taught}; this site's dye was changed towards theirs without labels"
    if adapter.vouched or not taught:
        return "this site's own cells"
    return f"this site's own cells, and, as the model reads these badly, {taught}"


def _laboratories(folder: Path) -> tuple[KnownLaboratory, ...]:
    try:
        return KnownLaboratories.model_validate_json((folder / KNOWN_FILE).read_bytes()).laboratories
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise ModelInvalidError(_DAMAGED) from error


def _known(laboratories: tuple[KnownLaboratory, ...]) -> Known | None:
    try:
        return known(laboratories)
    except ValueError as error:
        raise ModelInvalidError(_DAMAGED) from error


def _adapter(file: Path, card: ModelCard) -> calibration.Adapter:
    if not file.is_file():
        return calibration.default_adapter(card.calibration)
    try:
        return calibration.Adapter.model_validate_json(file.read_text())
    except (OSError, ValueError) as error:
        raise ModelInvalidError(f"The site's {file.name} is damaged: remove it to use the model's own.") from error
