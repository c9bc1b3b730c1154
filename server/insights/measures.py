"""A case's figures: taken when it comes in and again when it is signed, so that a page over many cases is cheap."""

from collections import Counter
from collections.abc import Iterable

from sqlmodel import Session

from server.insights import repository
from server.insights.clock import active_seconds
from server.models import Case, CaseCell, CaseMeasure
from shared.contracts.ontology import CellClass, alike

SEPARATOR = "|"
FILL_AT_ONCE = 100


def measure(session: Session, case: Case) -> CaseMeasure:
    """Take a case's figures as they are now; repeating it changes nothing."""
    session.flush()
    rows = repository.cells(session, case.id)
    found = [cell for cell in rows if cell.added_by is None]
    context = case.context
    figures = repository.of_case(session, case.id)
    if figures is None:
        figures = CaseMeasure(
            case_id=case.id, hospital_id=case.hospital_id, received_at=case.received_at, cells=0, ood_cells=0,
            set_sizes=0,
        )  # fmt: skip
        repository.add(session, figures)
    figures.stain = str(context.get("stain") or context.get("scanner_alias") or "")
    figures.cells = len(found)
    figures.ood_cells = sum(cell.ood_score > 1.0 for cell in found)
    figures.set_sizes = sum(len(cell.prediction_set) for cell in found)
    figures.blind = case.blind_read_at is not None
    if case.signed_at is not None:
        _signed(session, case, rows, figures)
    return figures


def fill(session: Session) -> int:
    """Take the figures of cases that an earlier version took in; return of how many."""
    cases = repository.unmeasured(session, FILL_AT_ONCE)
    for case in cases:
        measure(session, case)
    return len(cases)


def pairs(named: Iterable[tuple[CellClass, CellClass]]) -> dict[str, int]:
    """Count pairs of names; where they agree but for fineness, both are the first."""
    return dict(Counter(f"{one}{SEPARATOR}{one if alike(one, other) else other}" for one, other in named))


def counts(stored: dict[str, int]) -> dict[tuple[str, str], int]:
    """Return what `pairs` made as a table of two readings."""
    return {(one, other): count for key, count in stored.items() for one, _, other in [key.partition(SEPARATOR)]}


def _signed(session: Session, case: Case, rows: Iterable[CaseCell], figures: CaseMeasure) -> None:
    standing = [cell for cell in rows if cell.stands]
    found = [cell for cell in standing if cell.added_by is None]
    figures.signed_at = case.signed_at
    figures.reader_id = repository.signer(session, case.id)
    figures.added = len(standing) - len(found)
    figures.corrected = sum(not alike(cell.ai_class, cell.current_class) for cell in found)
    figures.pairs = pairs((cell.ai_class, cell.current_class) for cell in found)
    impression = repository.impression(session, case.id)
    if impression is not None:
        thought = {cell_id: CellClass(label) for cell_id, label in impression.labels.items()}
        both = [(thought[cell.cell_id], cell) for cell in found if cell.cell_id in thought]
        figures.blind_final = pairs((label, cell.current_class) for label, cell in both)
        figures.blind_ai = pairs((cell.ai_class, label) for label, cell in both)
        figures.blind_labelled = len(thought)
    if figures.reader_id is not None:
        _timed(session, case, figures.reader_id, figures)


def _timed(session: Session, case: Case, reader_id: str, figures: CaseMeasure) -> None:
    """Measure the signer's time: up to the saved first impression without the AI, after it with the AI."""
    told = repository.activity(session, case.id, reader_id)
    moments = [*repository.acts(session, case.id, reader_id), *(row.at for row in told)]
    shown_at = case.blind_read_at
    open_moments = [at for at in moments if shown_at is None or at >= shown_at]
    open_told = [row for row in told if shown_at is None or row.at > shown_at]
    figures.seconds = active_seconds(open_moments)
    figures.keys, figures.clicks = sum(row.keys for row in open_told), sum(row.clicks for row in open_told)
    if shown_at is not None:
        blind_told = [row for row in told if row.at <= shown_at]
        # The audit notes the saving a moment after the time that stands with it.
        figures.blind_seconds = active_seconds([*(at for at in moments if at <= shown_at), shown_at])
        figures.blind_keys = sum(row.keys for row in blind_told)
        figures.blind_clicks = sum(row.clicks for row in blind_told)
