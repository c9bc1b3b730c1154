"""The insights page: agreement, the AI's drift and readers' time over a period.

Readers see themselves by name and their colleagues together: how a colleague reads is for whoever answers for the
network. Nobody sees anything of a patient here, nor of a case that they are to read blind.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from statistics import mean, median
from typing import Final

from sqlmodel import Session

from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.cases import service as cases
from server.insights import repository
from server.insights.measures import counts, pairs
from server.insights.repository import Measured
from server.insights.schemas import (
    AgreementRow,
    CaseTime,
    ClassRow,
    Comparison,
    Drift,
    Insights,
    Pace,
    TimeRow,
    TimeWeek,
    Unlike,
    Week,
)
from server.models import CaseMeasure
from server.models.base import utc_now
from shared.contracts.errors import ForbiddenError
from shared.contracts.ontology import CellClass
from shared.statistics import agreement_of_counts, share

ROLES: Final = frozenset({Role.HEMATOLOGIST, Role.COORDINATOR, Role.ADMIN})
NAMING: Final = frozenset({Role.COORDINATOR, Role.ADMIN})
NETWORK: Final = NAMING | {Role.AUDITOR, Role.HOSPITAL_IT}
"""Who sees how far sites lie apart: of readers it says nothing."""
OTHERS: Final = "other readers"
RECENT: Final = 20
Table = Counter[tuple[str, str]]


def insights(session: Session, principal: Principal, *, days: int) -> Insights:
    """Return the figures of the last ``days`` days.

    Raises:
        ForbiddenError: not for this role.
    """
    _require(principal)
    since = utc_now() - timedelta(days=days)
    hidden = cases.blind_cases(session, principal)
    rows = [row for row in repository.since(session, since) if row.figures.case_id not in hidden]
    signed = [row for row in rows if row.figures.signed_at is not None and row.figures.signed_at >= since]
    blind = [row for row in signed if row.figures.blind]
    name = _namer(principal)
    return Insights(
        days=days,
        signed=len(signed),
        received=sum(row.figures.received_at >= since for row in rows),
        blind=len(blind),
        ai=_compared((name(row), row.hospital, row.figures.pairs) for row in signed),
        blind_final=_compared((name(row), row.hospital, row.figures.blind_final) for row in blind),
        blind_ai=_compared((name(row), row.hospital, row.figures.blind_ai) for row in blind),
        seconds=_seconds(session, principal, since, hidden),
        drift=_drift(rows, since),
        times=_times(signed, name),
        time_weeks=_time_weeks(signed),
        recent=[_case_time(row, name(row)) for row in sorted(signed, key=_signed_at, reverse=True)][:RECENT],
        named=principal.role in NAMING,
    )


def unlike_training(session: Session, principal: Principal, *, days: int) -> list[Unlike]:
    """Return, by site and stain, how many cells of the last ``days`` days look unlike what the model was trained on.

    A hospital's own staff see their own site's.

    Raises:
        ForbiddenError: not for this role.
    """
    if principal.role not in NETWORK:
        raise ForbiddenError("How far sites lie apart is for who answers for the network.")
    only = (principal.hospital_id or "") if principal.role is Role.HOSPITAL_IT else None
    since, hidden = utc_now() - timedelta(days=days), cases.blind_cases(session, principal)
    return [
        Unlike(hospital_id=site, stain=stain, cells=cells, share=share(unlike, cells))
        for site, stain, cells, unlike in repository.unlike(session, since, only=only, hidden=hidden)
    ]


def case_time(session: Session, principal: Principal, case_id: str) -> CaseTime | None:
    """Return what a signed case took: to its reader and to whoever answers for the network; None to others."""
    figures = repository.of_case(session, case_id)
    if figures is None or figures.signed_at is None:
        return None
    if principal.role not in NAMING and principal.user_id != figures.reader_id:
        return None
    reader = repository.names(session).get(figures.reader_id or "", "")
    return _case_time(Measured(figures, "", reader), reader)


def _require(principal: Principal) -> None:
    if principal.role not in ROLES:
        raise ForbiddenError("The insights are for readers and for who answers for the network.")


def _namer(principal: Principal) -> Callable[[Measured], str]:
    def name(row: Measured) -> str:
        if principal.role in NAMING or row.figures.reader_id == principal.user_id:
            return row.reader or "—"
        return OTHERS

    return name


def _table(stored: Iterable[dict[str, int]]) -> Table:
    total: Table = Counter()
    for one in stored:
        total.update(counts(one))
    return total


def _compared(cases: Iterable[tuple[str, str, dict[str, int]]]) -> Comparison:
    """Return the agreement of cases, each with its reader's name, its site and its table of names."""
    known = [case for case in cases if case[2]]
    whole = _table(table for _, _, table in known)
    return Comparison(
        overall=agreement_of_counts(whole) if known else None,
        readers=_agreements((name, table) for name, _, table in known),
        sites=_agreements((site, table) for _, site, table in known),
        classes=_classes(whole),
    )


def _agreements(cases: Iterable[tuple[str, dict[str, int]]]) -> list[AgreementRow]:
    grouped: defaultdict[str, list[dict[str, int]]] = defaultdict(list)
    for name, table in cases:
        grouped[name].append(table)
    return [
        AgreementRow(name=name, cases=len(tables), agreement=agreement_of_counts(_table(tables)))
        for name, tables in sorted(grouped.items(), key=lambda item: (item[0] == OTHERS, item[0]))
    ]


def _classes(table: Table) -> list[ClassRow]:
    """Return agreement class by class: each cell is of this class or not, for the one reading and for the other."""
    found: list[ClassRow] = []
    for cls in CellClass:
        two: Counter[tuple[bool, bool]] = Counter()
        for (one, other), count in table.items():
            two[one == cls.value, other == cls.value] += count
        first, second = two[True, True] + two[True, False], two[True, True] + two[False, True]
        if first or second:
            row = ClassRow(label=cls, agreement=agreement_of_counts(two), first_cells=first, second_cells=second)
            found.append(row)
    return found


def _seconds(session: Session, principal: Principal, since: datetime, hidden: Collection[str]) -> Comparison:
    names = repository.names(session)
    found: list[tuple[str, str, dict[str, int]]] = []
    for one in repository.second_opinions(session, since):
        if one.opinion.case_id in hidden:
            continue
        first, second = one.opinion.compared_with, one.opinion.labels
        both = sorted(first.keys() & second.keys())
        asked_by, reader = one.opinion.asked_by or "", one.opinion.reader_id or ""
        known = principal.role in NAMING or principal.user_id in {asked_by, reader}
        name = f"{names.get(asked_by, '—')}, then {names.get(reader, '—')}" if known else OTHERS
        found.append((name, one.hospital, pairs((CellClass(first[cell]), CellClass(second[cell])) for cell in both)))
    return _compared(found)


def _monday(at: datetime) -> date:
    day = at.astimezone(UTC).date()
    return day - timedelta(days=day.weekday())


def _mondays(since: datetime) -> list[date]:
    first, last = _monday(since), _monday(utc_now())
    return [first + timedelta(weeks=number) for number in range((last - first).days // 7 + 1)]


def _drift(rows: Iterable[Measured], since: datetime) -> list[Drift]:
    grouped: defaultdict[tuple[str, str], list[CaseMeasure]] = defaultdict(list)
    for row in rows:
        grouped[row.hospital, row.figures.stain].append(row.figures)
    mondays = _mondays(since)
    return [
        Drift(site=site, stain=stain, weeks=_weeks(cases, mondays, since))
        for (site, stain), cases in sorted(grouped.items())
    ]


def _weeks(cases: list[CaseMeasure], mondays: list[date], since: datetime) -> list[Week]:
    came: defaultdict[date, list[CaseMeasure]] = defaultdict(list)
    left: defaultdict[date, list[CaseMeasure]] = defaultdict(list)
    for case in cases:
        if case.received_at >= since:
            came[_monday(case.received_at)].append(case)
        if case.signed_at is not None and case.signed_at >= since:
            left[_monday(case.signed_at)].append(case)
    return [
        Week(
            monday=monday,
            cases=len(came[monday]),
            ood=_ratio((case.ood_cells for case in came[monday]), (case.cells for case in came[monday])),
            set_size=_ratio((case.set_sizes for case in came[monday]), (case.cells for case in came[monday])),
            signed=len(left[monday]),
            corrected=_ratio((case.corrected for case in left[monday]), (case.cells for case in left[monday])),
        )
        for monday in mondays
    ]


def _ratio(parts: Iterable[int], wholes: Iterable[int]) -> float | None:
    whole = sum(wholes)
    return sum(parts) / whole if whole else None


def _times(signed: list[Measured], name: Callable[[Measured], str]) -> list[TimeRow]:
    grouped: defaultdict[str, list[CaseMeasure]] = defaultdict(list)
    for row in signed:
        grouped[name(row)].append(row.figures)
    return [
        TimeRow(
            name=key,
            shown=_shown(cases),
            blind=_blind(cases),
            corrections=mean(case.corrected + case.added for case in cases),
        )
        for key, cases in sorted(grouped.items(), key=lambda item: (item[0] == OTHERS, item[0]))
    ]


def _shown(cases: Iterable[CaseMeasure]) -> Pace:
    """Readings that began with the AI: what comes after a first impression is no reading of its own."""
    of = [case for case in cases if not case.blind and case.seconds > 0 and case.cells]
    return Pace(
        cases=len(of),
        seconds=_median(case.seconds for case in of),
        seconds_per_100=_median(100 * case.seconds / case.cells for case in of),
        keys=_median(case.keys for case in of),
        clicks=_median(case.clicks for case in of),
    )


def _blind(cases: Iterable[CaseMeasure]) -> Pace:
    of = [case for case in cases if case.blind and case.blind_seconds > 0]
    return Pace(
        cases=len(of),
        seconds=_median(case.blind_seconds for case in of),
        seconds_per_100=_median(100 * case.blind_seconds / case.blind_labelled for case in of if case.blind_labelled),
        keys=_median(case.blind_keys for case in of),
        clicks=_median(case.blind_clicks for case in of),
    )


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(median(found)) if found else None


def _time_weeks(signed: list[Measured]) -> list[TimeWeek]:
    grouped: defaultdict[date, list[CaseMeasure]] = defaultdict(list)
    for row in signed:
        grouped[_monday(_signed_at(row))].append(row.figures)
    return [
        TimeWeek(
            monday=monday,
            shown=_shown(grouped[monday]).seconds_per_100,
            blind=_blind(grouped[monday]).seconds_per_100,
        )
        for monday in (_mondays(_signed_at(min(signed, key=_signed_at))) if signed else [])
    ]


def _signed_at(row: Measured) -> datetime:
    return row.figures.signed_at or datetime.min.replace(tzinfo=UTC)


def _case_time(row: Measured, reader: str) -> CaseTime:
    figures = row.figures
    return CaseTime(
        case_id=figures.case_id,
        site=row.hospital,
        reader=reader,
        signed_at=_signed_at(row),
        cells=figures.cells,
        seconds=figures.seconds,
        keys=figures.keys,
        clicks=figures.clicks,
        corrected=figures.corrected,
        added=figures.added,
        blind=figures.blind,
        blind_seconds=figures.blind_seconds,
        blind_keys=figures.blind_keys,
        blind_labelled=figures.blind_labelled,
    )
