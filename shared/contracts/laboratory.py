"""What a laboratory's cells and images look like, in figures that may leave a hospital.

By them a model tells an unlearnt laboratory from those that taught it, and one can bring another's dye near its own.
"""

from base64 import b64decode
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from shared.contracts.analysis import Contract

Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
MOST_FEATURES: Final = 2048
MOST_COMPONENTS: Final = 32
MOST_LABORATORIES: Final = 64
"""A model carries what so many laboratories look like, and no more."""
KNOWN_FILE: Final = "known.json"
"""Where in a model version they stand: `KnownLaboratories`."""
_MOST_NUMBERS: Final = 8 * ((2 * (MOST_COMPONENTS + 1) * MOST_FEATURES + 5) // 6)
"""Characters of base64."""

Triple = tuple[float, float, float]
_Lab = Annotated[float, Field(ge=-128, le=128, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Stain = tuple[_Share, _Share, _Share]


class Dye(Contract):
    """How the stained pixels of a laboratory's cells look as a whole; see `shared.vision.dye` for how it is made."""

    lab_mean: tuple[_Lab, _Lab, _Lab]
    """In CIE L*a*b* (Reinhard et al. 2001)."""
    lab_deviation: tuple[Positive, Positive, Positive]
    stains: tuple[_Stain, _Stain] | None = None
    """Its two dyes as unit vectors of optical density, the bluer one first (Macenko et al. 2009)."""
    strengths: tuple[Positive, Positive] | None = None
    """Amount of each that 1 % of the stained pixels exceed."""


class KnownSpace(Contract):
    """Where one laboratory's cells lie among a model's features; see `shared.vision.known` for how it is made.

    It leaves the hospital. It holds a mean over at least 50 cells, directions in which they differ and how much, over
    ten cells or more a direction: no image, no feature of any one cell, no name. At most 181 kB, so that a reply
    stays below the 256 KiB that the centre takes.
    """

    size: int = Field(ge=1, le=MOST_FEATURES)
    """Numbers of a cell's features."""
    numbers: Annotated[str, Field(max_length=_MOST_NUMBERS)]
    """Base64 of little-endian fp16, row by row: the mean, then each component."""
    deviations: tuple[Positive, ...] = Field(min_length=1, max_length=MOST_COMPONENTS)
    """Spread along each component."""
    residual: Positive
    """Length of what the components leave out that 99 % of its cells stay below."""
    share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
    """The same of its share of a cell's whole length."""
    threshold: Annotated[float, Field(gt=0, le=100.0, allow_inf_nan=False)]
    """Distance at which a cell is unlike this laboratory's; a usual cell's is below 1."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if len(b64decode(self.numbers, validate=True)) != 2 * self.size * (1 + len(self.deviations)):
            raise ValueError("the numbers are not as many as the space needs")
        return self


class Gamut(Contract):
    """Which colours the dyed pixels of one laboratory's images take; see `shared.vision.gamut` for how it is made."""

    bins: Annotated[str, Field(pattern=r"^[0-9a-f]{192}$")]
    """A bit for each bin of hue and strength, in hex."""
    limit: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
    """Share of an image's dyed pixels outside of these at which it is strange."""


_Density = Annotated[float, Field(gt=0.05, lt=6.0, allow_inf_nan=False)]
DyeRange = tuple[_Density, _Density]
"""Least and greatest optical density (natural logarithm)."""


class KnownLaboratory(Contract):
    """What one laboratory, whose cells taught a model, looks like; it has no name."""

    space: KnownSpace | None = None
    """Its cells, to the model."""
    gamut: Gamut | None = None
    """Its images' colours."""
    dye_of_fields: DyeRange | None = None
    """How dark the darkest pixels of its good fields are; see `client_node.analysis.ranges`."""
    dye_of_cells: DyeRange | None = None
    """The same of its pictures of single cells."""


class KnownLaboratories(Contract):
    """The file `KNOWN_FILE` of a model version: how an unlearnt laboratory is told from those it learnt from."""

    laboratories: tuple[KnownLaboratory, ...] = Field(default=(), max_length=MOST_LABORATORIES)
