"""A case's figures and the page made of them."""

from datetime import datetime, timedelta

import pytest
import time_machine
from sqlmodel import select

from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.cases import service as cases
from server.insights import measures, service
from server.insights.schemas import Insights
from server.models import CaseCell, CaseMeasure
from server.models.base import utc_now
from server.reviews import activity, second_opinions
from server.reviews import service as reviews
from shared.contracts.errors import ForbiddenError
from shared.contracts.ontology import CellClass
from shared.statistics import share
from tests.reading import look_through, sign_input
from tests.server.conftest import Ward
from tests.server.reviews.opinions import asked, classify, drawn, save, sent_later

BL, NE, BAND = CellClass.BLAST, CellClass.NEUTROPHIL, CellClass.BAND_NEUTROPHIL


def _claim(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        cases.claim(session, ward.reader, ward.case_id)


def _name(ward: Ward, cells: list[str], label: CellClass) -> None:
    with ward.centre.runtime.database.session() as session:
        reviews.reclassify(
            session, ward.reader, ward.case_id, cell_ids=cells, label=label, idempotency_key=f"{label}-{cells[0]}"
        )


def _sign(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        look_through(session, ward.reader, ward.case_id)
        shown = [one.id for one in second_opinions.opinions(session, ward.reader, ward.case_id)]
        signing = sign_input(session, ward.reader, ward.case_id, impression="Left shift.", opinions=shown)
        reviews.sign(session, ward.reader, ward.centre.runtime, ward.case_id, signing)


def _active(ward: Ward, keys: int) -> None:
    with ward.centre.runtime.database.session() as session:
        activity.was_active(session, ward.reader, ward.case_id, keys=keys, clicks=1)


def _figures(ward: Ward) -> CaseMeasure:
    with ward.centre.runtime.database.session(read_only=True) as session:
        return session.exec(select(CaseMeasure)).one()


def _page(ward: Ward, who: str = "coordinator") -> Insights:
    with ward.centre.runtime.database.session(read_only=True) as session:
        return service.insights(session, getattr(ward, who), days=90)


def test_figures_are_there_once_a_case_has_come_in(ward: Ward) -> None:
    figures = _figures(ward)
    assert (figures.cells, figures.ood_cells, figures.set_sizes, figures.stain) == (22, 0, 26, "scanner-1")
    assert (figures.signed_at, figures.pairs) == (None, {})
    page = _page(ward)
    assert (page.received, page.signed, page.ai.overall) == (1, 0, None)
    (drift,) = page.drift
    assert (drift.site, drift.weeks[-1].set_size, drift.weeks[-1].corrected) == ("Hospital A", 26 / 22, None)


def test_signing_adds_what_was_renamed_and_a_finer_class_is_no_correction(ward: Ward) -> None:
    _claim(ward)
    _name(ward, ["c1", "c2"], BL)
    _name(ward, ["c3"], BAND)
    _sign(ward)
    figures = _figures(ward)
    assert (figures.corrected, figures.added, figures.reader_id) == (2, 0, ward.reader.user_id)
    assert figures.pairs["neutrophil|blast"] == 2
    assert figures.pairs["neutrophil|neutrophil"] == 10
    page = _page(ward)
    assert [(row.name, row.cases, row.agreement.agreed) for row in page.ai.readers] == [("Dr. A. Reader", 1, 20)]
    assert [row.name for row in page.ai.sites] == ["Hospital A"]
    blast = next(row for row in page.ai.classes if row.label is BL)
    assert (blast.first_cells, blast.second_cells, blast.agreement.kappa) == (0, 2, None)
    assert page.drift[0].weeks[-1].corrected == 2 / 22


def test_a_first_impression_is_held_against_report_and_ai(ward: Ward) -> None:
    drawn(ward)
    classify(ward, ["c1", "c2"], BL, "k1", who=ward.reader)
    classify(ward, ["c3"], NE, "k2", who=ward.reader)
    save(ward, who=ward.reader)
    _name(ward, ["c1"], BL)
    _sign(ward)
    figures = _figures(ward)
    assert figures.blind_ai == {"neutrophil|blast": 2, "neutrophil|neutrophil": 1}
    assert figures.blind_final == {"blast|blast": 1, "blast|neutrophil": 1, "neutrophil|neutrophil": 1}
    page = _page(ward)
    assert (page.blind, page.blind_final.readers[0].agreement.agreed, page.blind_ai.sites[0].agreement.agreed) == (
        1,
        2,
        1,
    )


def test_time_with_and_without_the_ai_is_told_apart(ward: Ward) -> None:
    begin = utc_now()

    def later(seconds: float) -> datetime:
        return begin + timedelta(seconds=seconds)

    with time_machine.travel(begin, tick=False) as clock:
        drawn(ward)
        for second, keys in ((20, 7), (50, 4)):
            clock.move_to(later(second))
            _active(ward, keys)
        clock.move_to(later(200))  # a pause
        classify(ward, ["c1"], BL, "k1", who=ward.reader)
        clock.move_to(later(230))
        save(ward, who=ward.reader)
        clock.move_to(later(240))
        _active(ward, 9)
        clock.move_to(later(270))
        _sign(ward)
    figures = _figures(ward)
    assert [figures.blind_seconds, figures.seconds] == pytest.approx([50 + 30, 40])
    assert (figures.blind_keys, figures.keys, figures.blind_clicks, figures.clicks) == (11, 9, 2, 1)
    (row,) = _page(ward).times
    assert (row.shown.cases, row.blind.cases) == (0, 1)
    assert row.blind.seconds == pytest.approx(80)


def test_only_who_reads_a_case_is_measured(ward: Ward) -> None:
    _claim(ward)
    with ward.centre.runtime.database.session() as session:
        activity.was_active(session, ward.second_reader, ward.case_id, keys=50, clicks=0)
    _sign(ward)
    assert _figures(ward).keys == 0


def test_second_opinions_are_held_against_the_first(ward: Ward) -> None:
    asked(ward, of=ward.second_reader)
    classify(ward, ["c1"], BL, "k1", who=ward.second_reader)
    save(ward, who=ward.second_reader)
    (row,) = _page(ward).seconds.readers
    assert (row.name, row.agreement.cells, row.agreement.agreed) == ("Dr. A. Reader, then Dr. B. Second", 22, 21)


def test_colleagues_stand_together_for_a_reader_and_by_name_for_the_network(ward: Ward) -> None:
    asked(ward, of=ward.second_reader)
    classify(ward, ["c1"], BL, "k1", who=ward.second_reader)
    save(ward, who=ward.second_reader)
    _sign(ward)
    own, others, network = _page(ward, "reader"), _page(ward, "second_reader"), _page(ward)
    assert [row.name for row in own.ai.readers] == [row.name for row in network.ai.readers] == ["Dr. A. Reader"]
    assert [row.name for row in others.ai.readers] == [row.name for row in others.times] == ["other readers"]
    assert "Dr. A. Reader" not in others.model_dump_json(exclude={"seconds"})
    with ward.centre.runtime.database.session(read_only=True) as session:
        times = [service.case_time(session, who, ward.case_id) for who in (ward.reader, ward.second_reader, ward.it)]
    assert [time is not None for time in times] == [True, False, False]


def test_insights_are_not_for_a_hospitals_staff(ward: Ward) -> None:
    for who in ("it", "other_it"):
        with pytest.raises(ForbiddenError):
            _page(ward, who)


def test_figures_of_cases_from_before_are_taken_later_once(ward: Ward) -> None:
    _claim(ward)
    _sign(ward)
    database = ward.centre.runtime.database
    before = _figures(ward).model_dump()
    with database.session() as session:
        session.delete(session.exec(select(CaseMeasure)).one())
    with database.session() as session:
        assert measures.fill(session) == 1
    with database.session() as session:
        assert measures.fill(session) == 0
    assert _figures(ward).model_dump() == before


def test_cells_that_the_hospital_sent_later_are_the_ais_too(ward: Ward) -> None:
    _claim(ward)
    sent_later(ward, ["c1", "c2"])
    _name(ward, ["c1"], BL)
    _sign(ward)
    figures = _figures(ward)
    with ward.centre.runtime.database.session(read_only=True) as session:
        cells = len(session.exec(select(CaseCell)).all())
    assert (figures.cells, figures.added, figures.corrected) == (cells, 0, 1)
    assert (sum(figures.pairs.values()), figures.pairs["neutrophil|blast"]) == (cells, 1)


def test_cells_unlike_the_training_are_counted_by_site_and_stain_and_old_ones_are_not(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        session.exec(select(CaseMeasure)).one().ood_cells = 4
    with ward.centre.runtime.database.session(read_only=True) as session:
        [found] = service.unlike_training(session, ward.coordinator, days=56)
        assert (found.hospital_id, found.stain, found.cells) == ("a", "scanner-1", 22)
        assert found.share == share(4, 22)
        assert service.unlike_training(session, _clerk(ward, "a"), days=56) == [found]
        assert service.unlike_training(session, _clerk(ward, "elsewhere"), days=56) == []
        with pytest.raises(ForbiddenError):
            service.unlike_training(session, ward.reader, days=56)
        with time_machine.travel(utc_now() + timedelta(days=57)):
            assert service.unlike_training(session, ward.coordinator, days=56) == []


def test_a_case_that_waits_for_a_first_impression_tells_nothing_of_its_cells(ward: Ward) -> None:
    drawn(ward)
    with ward.centre.runtime.database.session(read_only=True) as session:
        assert service.unlike_training(session, ward.coordinator, days=56) == []


def _clerk(ward: Ward, hospital_id: str) -> Principal:
    return ward.coordinator.model_copy(update={"role": Role.HOSPITAL_IT, "hospital_id": hospital_id})
