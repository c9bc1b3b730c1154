"""Which form of an installed model runs: the signed fp32 file, or what the site has made of it.

``model.own.onnx`` is the network with the site's own normalisation, ``model.int8.onnx`` the INT8 derivative of the one
of these two fp32 files that runs. Both are made here and never signed: ``own.json`` and ``int8.json`` beside them hold
the hash of what they were made from, so that they count for nothing once that has changed. numpy-free and torch-free.
"""

from datetime import datetime
from enum import StrEnum
from hashlib import file_digest
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.contracts.errors import NotFoundError

ONNX_FILE: Final = "model.onnx"
DELTA_FILE: Final = "delta.safetensors"
OWN_ONNX_FILE: Final = "model.own.onnx"
OWN_DELTA_FILE: Final = "delta.own.safetensors"
OWN_FACTS_FILE: Final = "own.json"
INT8_FILE: Final = "model.int8.onnx"
FACTS_FILE: Final = "int8.json"


class Precision(StrEnum):
    """The numbers that a model computes with."""

    FP32 = "fp32"
    INT8 = "int8"


class Comparison(BaseModel):
    """INT8 beside fp32 on the same cells of a site, and the same batches on the same CPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int = Field(ge=1)
    """Cells."""
    accuracy_fp32: float
    accuracy_int8: float
    lost: int
    """Cells that only fp32 gets right."""
    won: int
    """Cells that only INT8 gets right."""
    p_value: float
    """Of McNemar's exact test that neither form is better."""
    ms_fp32: float
    """Median milliseconds a cell."""
    ms_int8: float

    @property
    def loss(self) -> float:
        """Accuracy lost, as a fraction of the cells; below 0 if INT8 does better."""
        return (self.lost - self.won) / self.n

    @property
    def speed_up(self) -> float:
        """How many times faster INT8 is."""
        return self.ms_fp32 / self.ms_int8


class OwnFacts(BaseModel):
    """`own.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source_sha256: str
    """Of the ``model.onnx`` whose place it takes."""
    onnx_sha256: str
    delta_sha256: str
    made_at: datetime


def own_facts(folder: Path) -> OwnFacts | None:
    """Return the facts of the sound form with the site's own normalisation; None if there is none, or it is void."""
    try:
        facts = OwnFacts.model_validate_json((folder / OWN_FACTS_FILE).read_bytes())
        fits = sha256_of(folder / ONNX_FILE) == facts.source_sha256
        sound = sha256_of(folder / OWN_ONNX_FILE) == facts.onnx_sha256
        return facts if fits and sound and sha256_of(folder / OWN_DELTA_FILE) == facts.delta_sha256 else None
    except (OSError, ValidationError):
        return None


def whole_file(folder: Path) -> Path:
    """Return the fp32 file that runs: the signed one, or the one with the site's own normalisation."""
    return folder / (OWN_ONNX_FILE if own_facts(folder) is not None else ONNX_FILE)


def delta_file(folder: Path) -> Path:
    """Return the tensors of what `whole_file` computes."""
    return folder / (OWN_DELTA_FILE if own_facts(folder) is not None else DELTA_FILE)


class Int8Facts(BaseModel):
    """`int8.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source_sha256: str
    """Of the fp32 file that it was made from."""
    int8_sha256: str
    calibration_cells: int
    comparison: Comparison
    made_at: datetime
    in_use: bool = True


def sha256_of(file: Path) -> str:
    """Return the hash (hex) of a file."""
    with file.open("rb") as handle:
        return file_digest(handle, "sha256").hexdigest()


def int8_facts(folder: Path) -> Int8Facts | None:
    """Return the facts of the sound INT8 form in a model's folder; None if there is none or the model has changed."""
    try:
        facts = Int8Facts.model_validate_json((folder / FACTS_FILE).read_bytes())
        fits = sha256_of(whole_file(folder)) == facts.source_sha256
        return facts if fits and sha256_of(folder / INT8_FILE) == facts.int8_sha256 else None
    except (OSError, ValidationError):
        return None


def precision_of(folder: Path) -> Precision:
    """Return the form that the site lets run."""
    facts = int8_facts(folder)
    return Precision.INT8 if facts is not None and facts.in_use else Precision.FP32


def switched(folder: Path, precision: Precision) -> Int8Facts | None:
    """Return the facts to keep so that ``precision`` runs; None where there are none to change.

    Raises:
        NotFoundError: INT8 is asked for and there is no sound INT8 form.
    """
    facts = int8_facts(folder)
    if facts is None:
        if precision is Precision.INT8:
            raise NotFoundError("There is no INT8 form of this model: make it with `hematovision-node model quantise`.")
        return None
    return facts.model_copy(update={"in_use": precision is Precision.INT8})
