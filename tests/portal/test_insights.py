"""The insights page and a report's time, as people see them."""

from server.models import CaseMeasure
from server.models.base import utc_now
from tests.portal.client import Browser
from tests.portal.factories import SITES, Network


def _signed(network: Network, *, by: str) -> None:
    with network.centre.runtime.database.session() as session:
        figures = session.get_one(CaseMeasure, network.cases[0])
        figures.signed_at, figures.reader_id = utc_now(), network.people[by].user_id
        figures.pairs = {"monocyte|monocyte": 19, "monocyte|blast": 1, "neutrophil|neutrophil": 30}
        figures.seconds, figures.keys, figures.corrected = 95.0, 41, 1


def test_page_without_a_signed_case_says_so(visitor: Browser) -> None:
    page = visitor.sign_in("coordinator").get("/insights").text
    assert "No case was signed in this time." in page
    assert "Drift of the AI" in page
    assert SITES["a"] in page


def test_page_names_readers_to_the_coordinator_and_draws_what_it_tables(visitor: Browser, network: Network) -> None:
    _signed(network, by="reader")
    page = visitor.sign_in("coordinator").get("/insights").text
    assert "Dr. A. Reader" in page
    assert "1 min 35 s" in page
    assert 'class="kappa"' in page
    assert "98.0 %" in page
    assert f'href="/cases/{network.cases[0]}"' not in page


def test_a_reader_sees_colleagues_together(visitor: Browser, network: Network) -> None:
    _signed(network, by="second")
    page = visitor.sign_in("reader").get("/insights").text
    assert "Dr. M. Osei" not in page
    assert "other readers" in page


def test_a_period_that_is_none_is_refused(visitor: Browser) -> None:
    visitor.sign_in("admin")
    assert visitor.get("/insights?days=7").status_code == 422
    assert visitor.get("/insights.json?days=365").json()["days"] == 365
