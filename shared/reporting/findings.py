"""Findings as statements: one wording for page, PDF, FHIR and HL7."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shared.contracts.findings import (
    SCHISTOCYTE_CELLS,
    SCHISTOCYTE_LIMIT,
    Against,
    Findings,
    Malaria,
    Parasitaemia,
    Part,
    PlateletCount,
    PlateletEstimate,
    SchistocyteCount,
    Term,
)
from shared.statistics import share

_PERCENT: Final = ("%", "%")
_CELLS_PER_LITRE: Final = ("10*9/L", "×10⁹/l")
_PER_MICROLITRE: Final = ("/uL", "/µl")


@dataclass(frozen=True)
class Measure:
    """A figure of a statement."""

    value: float
    ucum: str
    unit: str
    low: float | None = None
    """Of the exact 95 % interval, where it has one."""
    high: float | None = None


@dataclass(frozen=True)
class Statement:
    """One thing that was found."""

    key: str
    """Unique within the findings; letters, digits and hyphens."""
    part: Part
    name: str
    words: str
    loinc: str | None = None
    abnormal: bool = False
    remark: str = ""
    """What whoever reads it should mind."""
    grade: int | None = None
    measure: Measure | None = None


def statements(findings: Findings) -> list[Statement]:
    """Return what was found, part by part in reporting order, a part's free text last."""
    found = [
        *(_grade(term, grade) for term, grade in findings.grades.items()),
        *([_schistocytes(findings.schistocytes)] if findings.schistocytes else []),
        *(_platelets(findings.platelets, findings.grades.get(Term.PLATELET_CLUMPS, 0)) if findings.platelets else []),
        *(_malaria(findings.malaria) if findings.malaria else []),
        *(
            Statement(key=f"text-{_plain(part)}", part=part, name="comment", words=text, loinc=part.text_loinc)
            for part, text in findings.texts.items()
        ),
    ]
    return sorted(found, key=lambda one: list(Part).index(one.part))


def _grade(term: Term, grade: int) -> Statement:
    info = term.info
    clumped = term is Term.PLATELET_CLUMPS and grade > 0
    return Statement(
        key=_plain(term),
        part=info.part,
        name=info.name,
        words=info.scale.words[grade],
        loinc=info.loinc,
        abnormal=grade > 0,
        remark="A count by machine may be falsely low: ask for a citrate sample." if clumped else "",
        grade=grade,
    )


def _schistocytes(count: SchistocyteCount) -> Statement:
    part = share(count.schistocytes, count.counted)
    remarks = []
    if part.percent > SCHISTOCYTE_LIMIT:
        remarks.append(f"Above {SCHISTOCYTE_LIMIT:g} %: suspicious for thrombotic microangiopathy.")
    if count.counted < SCHISTOCYTE_CELLS:
        remarks.append(f"Fewer than {SCHISTOCYTE_CELLS:,} red cells were counted.")
    elif part.low <= SCHISTOCYTE_LIMIT <= part.high:
        remarks.append(f"The interval holds {SCHISTOCYTE_LIMIT:g} %: count more red cells to settle it.")
    return Statement(
        key="schistocyte-count",
        part=Part.RED_CELLS,
        name="schistocytes counted",
        words=f"{count.schistocytes:,} of {count.counted:,} red cells = {_interval(part.percent, part.low, part.high)}",
        abnormal=part.percent > SCHISTOCYTE_LIMIT,
        remark=" ".join(remarks),
        measure=Measure(part.percent, *_PERCENT, part.low, part.high),
    )


def _platelets(estimate: PlateletEstimate, clumps: int) -> Iterator[Statement]:
    remark = "Clumps were seen: the estimate may be too low." if clumps else ""
    if estimate.adequacy:
        yield Statement(
            key="platelet-adequacy",
            part=Part.PLATELETS,
            name="platelets by eye",
            words=estimate.adequacy.words,
            loinc="9317-9",
            abnormal=estimate.adequacy.value != "adequate",
            remark=remark,
        )
    if estimate.count:
        count, value = estimate.count, platelets_10e9_l(estimate.count)
        each = count.platelets / count.fields
        yield Statement(
            key="platelet-estimate",
            part=Part.PLATELETS,
            name="platelet estimate",
            words=f"about {value:.0f} ×10⁹/l ({each:.1f} a field in {count.fields} fields, × {count.factor:g})",
            remark="" if estimate.adequacy else remark,
            measure=Measure(value, *_CELLS_PER_LITRE),
        )


def platelets_10e9_l(count: PlateletCount) -> float:
    """Return the estimate by a count of fields, 10⁹/l."""
    return count.platelets / count.fields * count.factor


def _malaria(malaria: Malaria) -> Iterator[Statement]:
    seen = malaria.presence.value != "not_seen"
    part = Part.MALARIA
    yield Statement("malaria-presence", part, "Plasmodium", malaria.presence.words, "51587-4", abnormal=seen)
    if malaria.species:
        words = " and ".join(one.words for one in malaria.species)
        yield Statement("malaria-species", part, "species", words, "32206-5", abnormal=True)
    if malaria.stages:
        words = ", ".join(one.words for one in malaria.stages)
        yield Statement("malaria-stage", part, "stages", words, "41451-6", abnormal=True)
    if malaria.parasitaemia:
        yield _parasitaemia(malaria.parasitaemia)


def _parasitaemia(found: Parasitaemia) -> Statement:
    key, name = "malaria-parasitaemia", "parasitaemia"
    if found.against is Against.RED_CELLS:
        part = share(found.parasites, found.counted)
        words = f"{found.parasites:,} infected of {found.counted:,} red cells = "
        words += _interval(part.percent, part.low, part.high)
        measure = Measure(part.percent, *_PERCENT, part.low, part.high)
        return Statement(key, Part.MALARIA, name, words, abnormal=True, measure=measure)
    white = found.white_cells_10e9_l or 0.0  # the contract asks for it
    value = found.parasites / found.counted * white * 1000
    words = (
        f"{found.parasites:,} beside {found.counted:,} white cells = {value:,.0f} /µl at {white:g} ×10⁹/l white cells"
    )
    remark = "The white-cell count is assumed, not this patient's." if found.white_cells_assumed else ""
    measure = Measure(value, *_PER_MICROLITRE)
    return Statement(key, Part.MALARIA, name, words, abnormal=True, remark=remark, measure=measure)


def _interval(percent: float, low: float, high: float) -> str:
    return f"{_figure(percent)} % (95 % interval {_figure(low)}–{_figure(high)} %)"


def _figure(percent: float) -> str:
    """Two digits behind the point below 10 %: a limit of 1 % is told by them."""
    return f"{percent:.2f}" if percent < 10 else f"{percent:.1f}"


def _plain(value: str) -> str:
    return value.replace("_", "-")
