"""Cases in the states that pictures show besides reading: asked about, counted further, signed with findings, amended,
and sent for the glass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from playwright.sync_api import Page, Route
from pydantic import JsonValue
from sqlmodel import Session

from server.accounts.schemas import Principal
from server.cases import comparing, supplements
from server.cases import service as cases
from server.consult import service as consult
from server.consult.schemas import About, Asked
from server.models import Case, CaseSupplement
from server.models.base import utc_now
from server.reviews import amending, findings, glass
from server.reviews import service as reviews
from server.reviews.schemas import GlassInput
from shared.contracts.case import Priority
from shared.contracts.report import GlassReason, ReportStatus
from shared.contracts.supplement import MoreAnswer, MoreState
from tests.browser.acts import open_sign
from tests.browser.room import READY
from tests.factories import PASSWORD
from tests.portal.drawn import DrawnSmear, send_case
from tests.portal.factories import Network
from tests.reading import look_through, sign_input

ENTRIES: Final[dict[str, JsonValue]] = {
    "grade.anisocytosis": 2,
    "grade.spherocytes": 0,
    "grade.schistocytes": 2,
    "schistocytes": {"counted": 1000, "schistocytes": 14},
    "platelets": {"adequacy": "decreased", "count": {"platelets": 46, "fields": 10, "factor": 15}},
    "malaria": {
        "presence": "seen", "species": ["falciparum"], "stages": ["ring", "gametocyte"],
        "parasitaemia": {"against": "red_cells", "parasites": 21, "counted": 1000},
    },
    "text.red_cells": "Helmet and triangular fragments.",
}  # fmt: skip
TEXT: Final = "Fragmented red cells and ring forms of P. falciparum. Phoned to the ward."


@dataclass(frozen=True)
class States:
    """A case in each of the states."""

    discussed: str
    """Asked about in two threads, and counted further three times."""
    entered: str
    """Every kind of finding is entered."""
    amended: str
    """Signed with findings, and opened again."""
    reported: str
    """Id of the report of a case that was signed with findings."""
    glass: str
    """Id of the letter that asks for the glass."""


def in_all_states(network: Network, drawn: Sequence[DrawnSmear]) -> States:
    """Send the cases and bring each into its state; the signed one is an earlier case of the first case's patient."""
    discussed, entered, amended, signed, unread = (
        send_case(network, hospital, drawn[smear], priority=Priority.URGENT, minutes_ago=30 + 7 * number)
        for number, (hospital, smear) in enumerate((("a", 0), ("b", 0), ("c", 0), ("a", -1), ("a", 0)))
    )
    with network.centre.runtime.database.session() as session:
        patient = session.get_one(Case, network.cases[0]).patient_pseudonym
        session.get_one(Case, signed).patient_pseudonym = patient
        comparing.share_references(session, network.people["admin"], "c", shares=True)
    reader = network.people["reader"]
    _discuss(network, discussed)
    _count_further(network, discussed)
    for case_id in (entered, amended, signed):
        _enter(network, case_id)
    sign_now(network, amended)
    reported = sign_now(network, signed)
    with network.centre.runtime.database.session() as session:
        reason = "The schistocytes were counted again on two further fields."
        amending.begin(session, reader, amended, kind=ReportStatus.AMENDED, reason=reason)
    with network.centre.runtime.database.session() as session:
        cases.claim(session, reader, unread)
        asked = GlassInput(
            password=PASSWORD, reason=GlassReason.STAIN, note="The second slide may be better.",
            case_version=cases.case_view(session, reader, unread).version,
        )  # fmt: skip
        letter = glass.ask(session, reader, network.centre.runtime, unread, asked)
    return States(discussed, entered, amended, reported, letter)


def _discuss(network: Network, case_id: str) -> None:
    reader, second = network.people["reader"], network.people["second"]
    with network.centre.runtime.database.session() as session:
        cell = cases.case_view(session, reader, case_id).cells[0].cell_id
        about = {"doubt": About(cell_id=cell), "clumps": About(field=1, box=(40, 40, 420, 380))}
        text = "Is this a blast? The chromatin is fine, but I see no nucleolus."
        first = consult.ask(session, reader, case_id, about["doubt"], _said(text, second))
        consult.reply(
            session, second, case_id, first, _said(f"No: a reactive lymphocyte. @{reader.display_name}", reader)
        )
        other = consult.ask(session, second, case_id, about["clumps"], _said("Are these platelet clumps?", reader))
        consult.resolve(session, reader, case_id, other, resolved=True, key="pictured-resolved")


def _said(text: str, to: Principal) -> Asked:
    return Asked(text=text, people=[to.user_id], key=f"pictured-{text[:12]}")


def _count_further(network: Network, case_id: str) -> None:
    """One request came, one was refused, one is under way."""
    with network.centre.runtime.database.session() as session:
        cases.claim(session, network.people["reader"], case_id)
        came = _request(session, network, case_id)
        came.state, came.cells_came, came.fields_came = MoreState.CAME, 104, 3
        came.asked_at, came.changed_at = utc_now() - timedelta(minutes=21), utc_now() - timedelta(minutes=17)
        refused = _request(session, network, case_id)
        why = MoreAnswer(taken=False, reason="All images that this hospital keeps of the smear were looked at.")
        supplements.answer(session, node_id=refused.node_id, request_id=refused.id, said=why)
        refused.asked_at, refused.changed_at = utc_now() - timedelta(minutes=9), utc_now() - timedelta(minutes=8)
        _request(session, network, case_id)


def _request(session: Session, network: Network, case_id: str) -> CaseSupplement:
    asked = supplements.ask(session, network.people["reader"], case_id)
    return session.get_one(CaseSupplement, asked.request_id)


def _enter(network: Network, case_id: str) -> None:
    reader = network.people["reader"]
    with network.centre.runtime.database.session() as session:
        cases.claim(session, reader, case_id)
        for item, value in ENTRIES.items():
            findings.record(
                session, reader, case_id, item=item, value=value, idempotency_key=f"{case_id}-{item}", few=frozenset()
            )


def sign_now(network: Network, case_id: str) -> str:
    reader = network.people["reader"]
    with network.centre.runtime.database.session() as session:
        look_through(session, reader, case_id)
        view = cases.case_view(session, reader, case_id)
        unsure = [cell.cell_id for cell in view.cells if cell.doubtful]
        if unsure:
            label = next(cell.current_class for cell in view.cells if not cell.doubtful)
            reviews.reclassify(
                session, reader, case_id, cell_ids=unsure, label=label, idempotency_key=f"{case_id}-signed"
            )
        look_through(session, reader, case_id)
    with network.centre.runtime.database.session() as session:
        signing = sign_input(session, reader, case_id, impression=TEXT)
        return reviews.sign(session, reader, network.centre.runtime, case_id, signing)


# What a reader does for the picture.


def ask_colleague(page: Page) -> None:
    """Open the questions, and begin one that mentions somebody."""
    page.wait_for_selector(READY)
    page.keyboard.press("Shift+C")
    page.locator(".thread").first.wait_for()
    page.locator("#ask-text").fill("Please look at cell 12 too, @")
    page.locator("#ask-text").press("End")
    page.keyboard.type("Dr")
    page.wait_for_timeout(300)


def show_requests(page: Page) -> None:
    """Bring what was asked of the hospital into sight."""
    page.locator("#more-cells li").first.scroll_into_view_if_needed()


def open_panel(name: str) -> Callable[[Page], None]:
    """Return what opens a tab of findings."""
    return lambda page: page.get_by_role("tab", name=name).click()


def choose_cases(page: Page) -> None:
    """Choose three cases of the list."""
    page.wait_for_selector(".rows tbody tr")
    for key in ("j", "x", "j", "j", "Shift+X"):
        page.keyboard.press(key)


def assign_cases(page: Page) -> None:
    """Open the list of colleagues for them."""
    choose_cases(page)
    page.keyboard.press("a")
    page.locator("#assign[open]").wait_for()


def save_view(page: Page) -> None:
    """Open the dialog that keeps filters and order."""
    page.wait_for_selector(".rows tbody tr")
    page.keyboard.press("s")
    page.locator("#save-view[open] #view-name").fill("STAT, oldest first")


def lose_connection(page: Page) -> None:
    """Go on without the centre; what waits is dropped again with the answer to it."""
    page.wait_for_selector(READY)
    page.route("**/cells", lambda route: route.abort())
    _change_two(page)
    page.locator("#saved", has_text="wait").wait_for()


def leave_unsent(page: Page) -> None:
    """Sign out while changes wait for the connection."""
    lose_connection(page)
    page.get_by_role("button", name="Sign out", exact=True).click()
    page.wait_for_selector("#unsaved[open]")


def come_back_to_other_text(page: Page) -> None:
    """Write an impression, and open the page again where the centre has another text by then."""
    open_sign(page)
    page.route("**/impression", _went_on_elsewhere)
    page.locator("#impression").fill("Left shift with toxic granulation. Smudge cells.")
    page.locator("#draft", has_text="until the connection").wait_for()
    page.reload()
    open_sign(page)
    page.unroute_all()
    page.locator("#sign-form .was").wait_for()


def _went_on_elsewhere(route: Route) -> None:
    route.fetch(post_data="impression=Gone+on+with+at+another+computer.")
    route.abort()


def meet_conflict(page: Page) -> None:
    """Have the centre refuse a change, as it does where another reader was faster."""
    said = {"message": "The cell was split by Dr. M. Osei."}
    page.wait_for_selector(READY)
    page.route("**/cells", lambda route: route.fulfill(status=409, json=said))
    _change_two(page)
    page.locator("#conflict[open]").wait_for()
    page.unroute_all()


def _change_two(page: Page) -> None:
    for key in (".", "2", "3"):  # two classes: a cell may have one of them already
        page.keyboard.press(key)
