"""What an analysis says about a smear; the JSON of ``hematovision-node analyze`` and the body of a case."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from shared.contracts.objects import ObjectKind
from shared.contracts.ontology import CellClass

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Percent = Annotated[float, Field(ge=0.0, le=100.0)]


class Contract(BaseModel):
    """Base of everything on the wire: immutable, refusing unknown fields, and never repeating a value in an error:
    errors end up in logs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, hide_input_in_errors=True)


class Severity(StrEnum):
    """How urgently a flag wants eyes; order is from most to least."""

    CRITICAL = "critical"
    URGENT = "urgent"
    ROUTINE = "routine"


class FieldImage(Contract):
    """One field image of a smear."""

    path: str
    """Path as given on the node; inside a case it is the blob name instead."""
    width: int
    height: int
    ood_score: float | None = None
    """Median over its cells; without cells, of its dyed pixels' colours, and None where these tell nothing. Above 1 the
    field as a whole is unlike what the model knows."""
    origin: tuple[int, int] | None = None
    """Of a field cut from a slide: where its upper left corner lies, in pixels of the slide."""
    microns: Annotated[float, Field(gt=0)] | None = None
    """Micrometres a pixel, where the file says so. Left out of the JSON where it is not known: a centre that does not
    know of it reads such fields as before."""

    @model_serializer(mode="wrap")
    def _without_unknown(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:  # Any: JSON
        plain: dict[str, Any] = handler(self)
        return {name: value for name, value in plain.items() if name != "microns" or value is not None}


class Cell(Contract):
    """One found cell. ``field`` indexes ``Smear.fields`` (None in a gallery, where ``box`` is the whole image)."""

    id: str
    field: int | None
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1 in pixels of the field (gallery: of the cell image)."""
    cls: CellClass = Field(alias="class")
    probability: Fraction
    prediction_set: tuple[CellClass, ...]
    ood_score: float
    """0 = as trained; 1 = at the site's fitted threshold; above 1 = out of distribution."""
    edge: bool = False
    """Whether the field's edge cuts the cell: what is missing may have told its class."""
    source: str | None = None
    """Gallery: the cell image's path on the node (blob name inside a case)."""
    provisional: bool = False
    """The class is one that the site has taught by a few examples: a hint, its probability is not calibrated."""
    margin: Fraction | None = None
    """By how much the calibrated probability leads that of the second class. Left out of the JSON where not known."""

    @model_serializer(mode="wrap")
    def _without_unknown(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:  # Any: JSON
        plain: dict[str, Any] = handler(self)
        return {name: value for name, value in plain.items() if name != "margin" or value is not None}

    @property
    def doubtful(self) -> bool:
        """Whether a reader should look twice."""
        return len(self.prediction_set) != 1 or self.ood_score > 1.0 or self.provisional


class ClassShare(Contract):
    """A line of the differential, with its exact 95 % Clopper–Pearson interval, in percent."""

    count: int
    percent: Percent
    low: Percent
    high: Percent


Differential = dict[CellClass, ClassShare]
ClassLimits = dict[CellClass, tuple[Percent, ...]]
"""Class → the percentages at which a rule of the hospital fires, ascending."""


class FlagEvidence(Contract):
    """Why a rule fired, in figures and cell ids."""

    text: str
    cells: tuple[str, ...] = ()
    count: int | None = None
    total: int | None = None
    percent: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None


class Flag(Contract):
    """A rule that fired. ``kind`` tells morphology from quality: only morphology makes a smear worth a reader."""

    id: str
    severity: Severity
    evidence: FlagEvidence
    kind: Literal["morphology", "quality"] = "morphology"


class Quality(Contract):
    """Image quality of the smear as a whole."""

    white_cells: int
    focus: float
    """Variance of the Laplacian, median over fields or cells (8-bit grey levels squared)."""
    brightness: float
    """Median grey level of the background, 0–255."""
    dye: float | None = None
    """Median over the images of the optical density (natural logarithm) of their darkest pixels."""
    ood_fraction: Fraction
    empty_fields: int = 0
    """Fields without a single cell whose colours could be judged; a slide without any counts as one."""
    strange_fields: int = 0
    """Those of them whose dye is unlike what is known here."""
    warnings: tuple[str, ...] = ()
    rejected: dict[ObjectKind, int] = Field(default_factory=dict)
    """What the model made of dark spots that are no nucleated cell."""


class Smear(Contract):
    """A smear, analysed."""

    id: str
    fields: tuple[FieldImage, ...]
    cells: tuple[Cell, ...]
    differential: Differential
    flags: tuple[Flag, ...]
    quality: Quality
    model_version: str
    engine: str
    """Which runtime classified: "onnxruntime", "onnxruntime-int8" or "torch"; on a GPU with "-cuda" behind it."""
    untrained_classes: tuple[CellClass, ...] = ()
    """Classes a reader may expect that this model cannot predict (above all `blast`)."""
    limits: ClassLimits = Field(default_factory=dict)
    """Of the hospital's rules, whether they fired or not. Left out of the JSON where there are none: a centre that does
    not know of them reads such smears as before."""
    pseudo: bool = False
    """Composed of images of several patients: a demonstration, never a patient."""
    synthetic: bool = False

    @model_serializer(mode="wrap")
    def _without_empty_limits(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:  # Any: JSON
        plain: dict[str, Any] = handler(self)
        return {name: value for name, value in plain.items() if name != "limits" or value}


class AnalysisOutput(Contract):
    """The whole JSON of ``analyze``."""

    smears: tuple[Smear, ...]


class EvaluationClass(Contract):
    """One row of the per-class table."""

    precision: Fraction
    recall: Fraction
    f1: Fraction
    support: int


class EvaluationOutput(Contract):
    """The JSON of ``evaluate``; ``confusion`` is truth → predicted → count."""

    n: int
    accuracy: Fraction
    macro_f1: Fraction
    per_class: dict[CellClass, EvaluationClass]
    confusion: dict[CellClass, dict[CellClass, int]]
    ece: Fraction
    coverage: Fraction
    mean_set_size: float
    ood_fraction: Fraction
    model_version: str
    engine: str
    skipped: tuple["SkippedFile", ...] = ()


class SkippedFile(Contract):
    """A file that an import or analysis left out, and why."""

    path: str
    reason: str


class ImportOutput(Contract):
    """The JSON of ``import``."""

    imported: int
    skipped: tuple[SkippedFile, ...]
    classes: dict[CellClass, int]
    objects: dict[ObjectKind, int] = Field(default_factory=dict)
    """What is marked in fields without a class: it teaches to find cells."""
