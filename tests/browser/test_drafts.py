"""What is being written outlives a closed tab and an ended session, is one in two tabs, and is gone after sign-out."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from sqlmodel import select

from server.models import UserSession
from server.models.base import utc_now
from tests.browser.conftest import OpenRoom
from tests.browser.opinions import begun_blind, blind_case
from tests.browser.room import READY, Room
from tests.browser.world import CHROMIUM, sign_in
from tests.factories import PASSWORD
from tests.portal.drawn import DrawnSmear
from tests.portal.factories import Network, add_hospital

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: make browser"),
]
KEPT = "Object.keys(localStorage).filter((key) => key.startsWith('hv-draft/'))"


def _end_session(network: Network) -> None:
    with network.centre.runtime.database.session() as session:
        for row in session.exec(select(UserSession).where(UserSession.user_id == network.people["reader"].user_id)):
            row.revoked_at = utc_now()


def _sign_in_again(page: Page, case_id: str) -> None:
    page.get_by_role("link", name="Sign in and go on here").click()
    page.locator("input[name=username]").fill("reader")
    page.locator("input[name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/cases/{case_id}")
    page.wait_for_selector(READY)


def _dismiss(page: Page, why: str) -> None:
    flag = page.locator("#sign-form .decide").first
    flag.get_by_label("Dismiss", exact=True).check()
    flag.locator(".reason").fill(why)


def _write_everything(room: Room) -> None:
    """Into every form of the room, without the centre: nothing of it is sent."""
    page = room.page
    page.route("**/impression", lambda route: route.abort())
    page.keyboard.press("Control+Enter")
    page.locator("#impression").fill("Left shift, unsent.")
    _dismiss(page, "The smear is thick.")
    page.locator("#password").fill("half a passw")
    page.keyboard.press("Escape")
    page.keyboard.press("Shift+G")
    page.locator("#glass").get_by_role("radio").nth(1).check()
    page.locator("#glass-note").fill("Too thick to read.")
    page.keyboard.press("Escape")
    room.tile(room.order()[3]).click()
    page.keyboard.press("Shift+C")
    page.locator("#ask-who").select_option(label="Dr. M. Osei")
    page.locator("#ask-text").fill("Is this a blast?")


def _again(room: Room) -> Page:
    """Close the tab and open the case in another one."""
    context = room.page.context
    room.page.close()
    room.page = context.new_page()
    room.page.goto(f"/cases/{room.case_id}")
    room.page.wait_for_selector(READY)
    return room.page


def test_all_that_was_written_outlives_a_closed_tab_until_it_is_sent_or_signed(room: Room) -> None:
    asked = room.order()[3]
    _write_everything(room)
    page = room.page
    assert "half a passw" not in str(page.evaluate("JSON.stringify({ ...localStorage })"))
    page = _again(room)
    expect(page.locator("#impression")).to_have_value("Left shift, unsent.")
    expect(page.locator("#draft")).to_have_text("Draft kept.")
    assert page.locator("#sign-form [data-dismiss]").first.is_checked()
    expect(page.locator("#sign-form .reason").first).to_have_value("The smear is thick.")
    assert page.locator("#sign-form .reason").first.get_attribute("required") is not None
    expect(page.locator("#glass-note")).to_have_value("Too thick to read.")
    assert page.locator("#glass input[name=reason]").nth(1).is_checked()
    page.keyboard.press("Shift+C")
    expect(page.locator("#ask-text")).to_have_value("Is this a blast?")
    assert room.chosen_all() == [asked]  # what the question is on
    page.locator("#ask-text").press("Control+Enter")
    expect(page.locator(".thread .said p")).to_have_text(["Is this a blast?"])
    page.locator(".answer textarea").fill("Or an artefact?")
    page = _again(room)
    page.keyboard.press("Shift+C")
    expect(page.locator(".answer textarea")).to_have_value("Or an artefact?")
    expect(page.locator("#ask-text")).to_have_value("")
    page.keyboard.press("Escape")
    page.keyboard.press("Shift+D")
    page.keyboard.press("a")
    room.saved()
    expect(page.locator(".unseen")).to_have_count(0)
    page.keyboard.press("Control+Enter")
    page.locator("#password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/reports/*")
    expect(page.get_by_text("The smear is thick.")).to_be_visible()
    assert page.evaluate(KEPT) == []
    room.tell_nothing_of("ERR_FAILED")


def test_two_tabs_show_the_newest_edit_and_neither_overwrites_it(room: Room) -> None:
    first, second = room.page, room.page.context.new_page()
    second.goto(f"/cases/{room.case_id}")
    second.wait_for_selector(READY)
    for page in (first, second):
        page.keyboard.press("Control+Enter")
    first.route("**/impression", lambda route: route.abort())
    first.locator("#impression").fill("Older, unsent.")
    expect(first.locator("#draft")).to_contain_text("until the connection is back")
    expect(second.locator("#impression")).to_have_value("Older, unsent.")
    second.locator("#impression").fill("Newer.")
    _dismiss(second, "Expected.")
    expect(second.locator("#draft")).to_have_text("Draft kept.")
    expect(first.locator("#impression")).to_have_value("Newer.")
    expect(first.locator("#sign-form .reason").first).to_have_value("Expected.")
    first.unroute_all()
    first.reload()
    first.wait_for_selector(READY)
    expect(first.locator("#impression")).to_have_value("Newer.")
    assert first.locator("#sign-form [data-dismiss]").first.is_checked()
    room.tell_nothing_of("ERR_FAILED")


def test_ended_session_keeps_dismissals_with_their_reasons(room: Room) -> None:
    page = room.page
    page.keyboard.press("Control+Enter")
    _dismiss(page, "Known since birth.")
    _end_session(room.network)
    page.locator("#impression").fill("After the end.")
    expect(page.locator("#expired")).to_be_visible()
    _sign_in_again(page, room.case_id)
    expect(page.locator("#impression")).to_have_value("After the end.")
    assert page.locator("#sign-form [data-dismiss]").first.is_checked()
    expect(page.locator("#sign-form .reason").first).to_have_value("Known since birth.")
    room.tell_nothing_of("401")


def test_ended_session_keeps_blind_estimates(network: Network, open_room: OpenRoom, drawn: list[DrawnSmear]) -> None:
    if "b" not in network.nodes:
        add_hospital(network, "b")
    smear = next(one for one in drawn if one.smear.fields)
    room = open_room(smear, claim=False)
    page, case_id = room.page, blind_case(network, smear)
    begun_blind(network, case_id, cells=2)
    page.goto(f"/cases/{case_id}")
    page.wait_for_selector(READY)
    page.keyboard.press("Control+Enter")
    _end_session(network)
    page.locator("#blind-text").fill("One blast, I think.")
    page.locator("#estimate-neutrophil").fill("61,5")
    expect(page.locator("#expired")).to_be_visible()
    _sign_in_again(page, case_id)
    expect(page.locator("#blind-text")).to_have_value("One blast, I think.")
    expect(page.locator("#estimate-neutrophil")).to_have_value("61,5")
    expect(page.locator("#blind-draft")).to_have_text("Draft kept.")
    assert page.evaluate(KEPT) == []  # the centre has it
    room.tell_nothing_of("401")


def _sign_out(room: Room, _address: str) -> None:
    room.page.get_by_role("button", name="Sign out").click()
    room.page.wait_for_url("**/login")


def _next_person(room: Room, address: str) -> None:
    """Somebody else signs in where the session of the first has ended."""
    _end_session(room.network)
    sign_in(room.page, address, "second")


@pytest.mark.parametrize("leave", [_sign_out, _next_person])
def test_no_draft_stays_for_whoever_comes_next(room: Room, address: str, leave: Callable[[Room, str], None]) -> None:
    _write_everything(room)
    page = room.page
    page.keyboard.press("Escape")
    assert len(page.evaluate(KEPT)) == 3
    leave(room, address)
    assert page.evaluate(KEPT) == []
    assert "Too thick" not in str(page.evaluate("JSON.stringify({ ...localStorage, ...sessionStorage })"))
    room.tell_nothing_of("ERR_FAILED", "401")
