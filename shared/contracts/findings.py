"""What a reader finds beside the differential: red cells, white-cell changes, platelets, malaria.

Terms and grades follow the ICSH's recommendations (2015; schistocytes: 2021), codes are LOINC as listed in the clinical
reference. What was not looked for is absent; grade 0 says that it was looked for and not seen.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from shared.contracts.analysis import Contract

SCHISTOCYTE_CELLS: Final = 1000
"""Red cells that a percentage of schistocytes rests on at least."""
SCHISTOCYTE_LIMIT: Final = 1.0
"""Percent above which schistocytes are suspicious for thrombotic microangiopathy."""
TEXT_LIMIT: Final = 1000

Grade = Annotated[int, Field(ge=0, le=3)]


class Part(StrEnum):
    """What a finding is about; iteration order is the reporting order."""

    RED_CELLS = "red_cells"
    WHITE_CELLS = "white_cells"
    PLATELETS = "platelets"
    MALARIA = "malaria"

    @property
    def words(self) -> str:
        """As a heading."""
        return _TITLES[self]

    @property
    def text_loinc(self) -> str | None:
        """The code of its free text."""
        return _TEXT_LOINC.get(self)


_TITLES: Final = {
    Part.RED_CELLS: "Red cells",
    Part.WHITE_CELLS: "White cells",
    Part.PLATELETS: "Platelets",
    Part.MALARIA: "Malaria",
}
_TEXT_LOINC: Final = {Part.RED_CELLS: "6742-1", Part.WHITE_CELLS: "11156-7", Part.PLATELETS: "11125-2"}


class Scale(StrEnum):
    """How a term is graded, and the words for 0, 1, 2 and 3."""

    COUNTED = "counted"
    """Cells of a kind: few, moderate, many."""
    DEGREE = "degree"
    """A change of all of them: slight, moderate, marked."""
    PRESENCE = "presence"
    """Seen or not: 0 or 1."""

    @property
    def words(self) -> tuple[str, ...]:
        """The words of each grade, from 0."""
        return _GRADE_WORDS[self]


_GRADE_WORDS: Final = {
    Scale.COUNTED: ("not seen", "few (1+)", "moderate (2+)", "many (3+)"),
    Scale.DEGREE: ("none", "slight (1+)", "moderate (2+)", "marked (3+)"),
    Scale.PRESENCE: ("not seen", "seen"),
}


class Term(StrEnum):
    """One morphological change; iteration order is the reporting order."""

    ANISOCYTOSIS = "anisocytosis"
    MACROCYTES = "macrocytes"
    MICROCYTES = "microcytes"
    HYPOCHROMIA = "hypochromia"
    POLYCHROMASIA = "polychromasia"
    POIKILOCYTOSIS = "poikilocytosis"
    ACANTHOCYTES = "acanthocytes"
    BITE_CELLS = "bite_cells"
    BURR_CELLS = "burr_cells"
    ELLIPTOCYTES = "elliptocytes"
    HELMET_CELLS = "helmet_cells"
    OVALOCYTES = "ovalocytes"
    SCHISTOCYTES = "schistocytes"
    SICKLE_CELLS = "sickle_cells"
    SPHEROCYTES = "spherocytes"
    STOMATOCYTES = "stomatocytes"
    TARGET_CELLS = "target_cells"
    TEARDROP_CELLS = "teardrop_cells"
    ROULEAUX = "rouleaux"
    BASOPHILIC_STIPPLING = "basophilic_stippling"
    HOWELL_JOLLY_BODIES = "howell_jolly_bodies"
    PAPPENHEIMER_BODIES = "pappenheimer_bodies"
    AUER_RODS = "auer_rods"
    DOHLE_BODIES = "dohle_bodies"
    TOXIC_GRANULATION = "toxic_granulation"
    VACUOLATED = "vacuolated"
    HYPERSEGMENTED = "hypersegmented"
    PELGER_HUET = "pelger_huet"
    PLATELET_CLUMPS = "platelet_clumps"
    GIANT_PLATELETS = "giant_platelets"
    PLATELET_SATELLITISM = "platelet_satellitism"

    @property
    def info(self) -> "TermInfo":
        """Name, code, part, heading and scale."""
        return TERM_INFO[self]


@dataclass(frozen=True, slots=True)
class TermInfo:
    """What the product says about a term."""

    name: str
    loinc: str
    part: Part
    heading: str
    scale: Scale = Scale.COUNTED


_T, _R, _W, _P = Term, Part.RED_CELLS, Part.WHITE_CELLS, Part.PLATELETS
_SIZE, _SHAPE, _INSIDE, _OTHER = "Size and colour", "Shape", "Inclusions", "Arrangement"
TERM_INFO: Final[dict[Term, TermInfo]] = {
    _T.ANISOCYTOSIS: TermInfo("anisocytosis", "702-1", _R, _SIZE, Scale.DEGREE),
    _T.MACROCYTES: TermInfo("macrocytes", "738-5", _R, _SIZE),
    _T.MICROCYTES: TermInfo("microcytes", "741-9", _R, _SIZE),
    _T.HYPOCHROMIA: TermInfo("hypochromia", "728-6", _R, _SIZE, Scale.DEGREE),
    _T.POLYCHROMASIA: TermInfo("polychromasia", "10378-8", _R, _SIZE, Scale.DEGREE),
    _T.POIKILOCYTOSIS: TermInfo("poikilocytosis", "779-9", _R, _SHAPE, Scale.DEGREE),
    _T.ACANTHOCYTES: TermInfo("acanthocytes", "7789-1", _R, _SHAPE),
    _T.BITE_CELLS: TermInfo("bite cells", "10371-3", _R, _SHAPE),
    _T.BURR_CELLS: TermInfo("burr cells", "7790-9", _R, _SHAPE),
    _T.ELLIPTOCYTES: TermInfo("elliptocytes", "11274-8", _R, _SHAPE),
    _T.HELMET_CELLS: TermInfo("helmet cells", "10374-7", _R, _SHAPE),
    _T.OVALOCYTES: TermInfo("ovalocytes", "774-0", _R, _SHAPE),
    _T.SCHISTOCYTES: TermInfo("schistocytes", "800-3", _R, _SHAPE),
    _T.SICKLE_CELLS: TermInfo("sickle cells", "801-1", _R, _SHAPE),
    _T.SPHEROCYTES: TermInfo("spherocytes", "802-9", _R, _SHAPE),
    _T.STOMATOCYTES: TermInfo("stomatocytes", "10380-4", _R, _SHAPE),
    _T.TARGET_CELLS: TermInfo("target cells", "10381-2", _R, _SHAPE),
    _T.TEARDROP_CELLS: TermInfo("teardrop cells", "7791-7", _R, _SHAPE),
    _T.ROULEAUX: TermInfo("rouleaux", "7797-4", _R, _OTHER, Scale.DEGREE),
    _T.BASOPHILIC_STIPPLING: TermInfo("basophilic stippling", "703-9", _R, _INSIDE),
    _T.HOWELL_JOLLY_BODIES: TermInfo("Howell-Jolly bodies", "7793-3", _R, _INSIDE),
    _T.PAPPENHEIMER_BODIES: TermInfo("Pappenheimer bodies", "7795-8", _R, _INSIDE),
    _T.AUER_RODS: TermInfo("Auer rods", "11281-3", _W, "Changes", Scale.PRESENCE),
    _T.DOHLE_BODIES: TermInfo("Döhle bodies", "7792-5", _W, "Changes"),
    _T.TOXIC_GRANULATION: TermInfo("toxic granulation", "803-7", _W, "Changes", Scale.DEGREE),
    _T.VACUOLATED: TermInfo("vacuolated neutrophils", "18319-4", _W, "Changes"),
    _T.HYPERSEGMENTED: TermInfo("hypersegmented neutrophils", "765-8", _W, "Changes"),
    _T.PELGER_HUET: TermInfo("Pelger-Huët cells", "18311-1", _W, "Changes"),
    _T.PLATELET_CLUMPS: TermInfo("platelet clumps", "7796-6", _P, "Appearance"),
    _T.GIANT_PLATELETS: TermInfo("giant platelets", "5908-9", _P, "Appearance"),
    _T.PLATELET_SATELLITISM: TermInfo("platelet satellitism", "18312-9", _P, "Appearance", Scale.PRESENCE),
}


class SchistocyteCount(Contract):
    """Schistocytes among red cells counted."""

    counted: Annotated[int, Field(ge=1, le=100_000)]
    """Red cells, schistocytes among them."""
    schistocytes: Annotated[int, Field(ge=0, le=100_000)]

    @model_validator(mode="after")
    def _part_of_the_count(self) -> "SchistocyteCount":
        if self.schistocytes > self.counted:
            raise ValueError("There are more schistocytes than red cells counted: count the schistocytes among them.")
        return self


class Adequacy(StrEnum):
    """How many platelets a smear shows, by eye."""

    ADEQUATE = "adequate"
    DECREASED = "decreased"
    MARKEDLY_DECREASED = "markedly_decreased"
    INCREASED = "increased"
    NOT_ESTIMABLE = "not_estimable"

    @property
    def words(self) -> str:
        """As it is reported."""
        return "cannot be estimated" if self is Adequacy.NOT_ESTIMABLE else self.value.replace("_", " ")


class PlateletCount(Contract):
    """Platelets counted in oil-immersion fields, and what one a field stands for."""

    platelets: Annotated[int, Field(ge=0, le=100_000)]
    fields: Annotated[int, Field(ge=1, le=500)]
    factor: Annotated[float, Field(gt=0, le=100)]
    """10⁹/l for each platelet a field: what the site's microscope was measured to have."""


class PlateletEstimate(Contract):
    """The platelets by eye: a word, a count, or both."""

    adequacy: Adequacy | None = None
    count: PlateletCount | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "PlateletEstimate":
        if self.adequacy is None and self.count is None:
            raise ValueError("Say how many platelets there are: in a word, or by a count of fields.")
        return self


class Presence(StrEnum):
    """Whether parasites were seen."""

    NOT_SEEN = "not_seen"
    SEEN = "seen"
    UNCERTAIN = "uncertain"

    @property
    def words(self) -> str:
        """As it is reported."""
        return {"not_seen": "not seen", "seen": "seen", "uncertain": "cannot be ruled out on this smear"}[self.value]


class Species(StrEnum):
    """Which Plasmodium."""

    FALCIPARUM = "falciparum"
    VIVAX = "vivax"
    OVALE = "ovale"
    MALARIAE = "malariae"
    KNOWLESI = "knowlesi"
    UNDETERMINED = "undetermined"

    @property
    def words(self) -> str:
        """As it is reported."""
        return "species not determined" if self is Species.UNDETERMINED else f"Plasmodium {self.value}"


class Stage(StrEnum):
    """Which stages of it."""

    RING = "ring"
    TROPHOZOITE = "trophozoite"
    SCHIZONT = "schizont"
    GAMETOCYTE = "gametocyte"

    @property
    def words(self) -> str:
        """As it is reported."""
        return "ring forms" if self is Stage.RING else f"{self.value}s"


class Against(StrEnum):
    """What parasites are counted against."""

    RED_CELLS = "red_cells"
    WHITE_CELLS = "white_cells"


class Parasitaemia(Contract):
    """Infected red cells among red cells (thin film), or parasites beside white cells (thick film)."""

    against: Against
    parasites: Annotated[int, Field(ge=0, le=1_000_000)]
    """Infected red cells, or parasites."""
    counted: Annotated[int, Field(ge=1, le=1_000_000)]
    """Red cells, infected ones among them, or white cells."""
    white_cells_10e9_l: Annotated[float, Field(gt=0, le=1000)] | None = None
    """The white-cell count by which parasites beside white cells become parasites per microlitre."""
    white_cells_assumed: bool = False
    """The figure is the usual assumption and not this patient's count."""

    @model_validator(mode="after")
    def _fits(self) -> "Parasitaemia":
        if self.against is Against.RED_CELLS and self.parasites > self.counted:
            raise ValueError("There are more infected red cells than red cells counted: count the infected among them.")
        if self.against is Against.WHITE_CELLS and self.white_cells_10e9_l is None:
            raise ValueError("Give the white-cell count: parasites per microlitre are reckoned by it.")
        return self


class Malaria(Contract):
    """What was seen of malaria."""

    presence: Presence
    species: tuple[Species, ...] = ()
    stages: tuple[Stage, ...] = ()
    parasitaemia: Parasitaemia | None = None

    @field_validator("species")
    @classmethod
    def _species_once(cls, value: tuple[Species, ...]) -> tuple[Species, ...]:
        return tuple(one for one in Species if one in value)

    @field_validator("stages")
    @classmethod
    def _stages_once(cls, value: tuple[Stage, ...]) -> tuple[Stage, ...]:
        return tuple(one for one in Stage if one in value)

    @model_validator(mode="after")
    def _only_where_seen(self) -> "Malaria":
        if self.presence is not Presence.SEEN and (self.species or self.stages or self.parasitaemia):
            raise ValueError("Species, stage and parasitaemia are for parasites that were seen: say so first.")
        if self.presence is Presence.SEEN and not self.species:
            raise ValueError("Say which species was seen, or that it is not determined.")
        return self


class Findings(Contract):
    """All of it. What was not entered is left out of the JSON."""

    grades: dict[Term, Grade] = Field(default_factory=dict)
    schistocytes: SchistocyteCount | None = None
    platelets: PlateletEstimate | None = None
    malaria: Malaria | None = None
    texts: dict[Part, Annotated[str, Field(min_length=1, max_length=TEXT_LIMIT)]] = Field(default_factory=dict)

    @field_validator("grades")
    @classmethod
    def _on_their_scales(cls, value: dict[Term, int]) -> dict[Term, int]:
        for term, grade in value.items():
            if grade >= len(term.info.scale.words):
                raise ValueError(f"{term.info.name} are seen or not: they have no grade {grade}.")
        return {term: value[term] for term in Term if term in value}

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:  # Any: JSON
        plain: dict[str, Any] = handler(self)
        return {name: value for name, value in plain.items() if value not in (None, {})}

    @property
    def empty(self) -> bool:
        """Whether nothing was entered."""
        return not (self.grades or self.schistocytes or self.platelets or self.malaria or self.texts)
