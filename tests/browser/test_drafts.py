"""What is being written outlives a closed tab and an ended session, is one in two tabs, and is gone after sign-out."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from server.reviews import amending, findings, opinions
from server.reviews import service as reviews
from shared.contracts.report import ReportStatus
from tests.browser.conftest import OpenRoom
from tests.browser.opinions import begun_blind, blind_case
from tests.browser.room import READY, SIGNED_OUT, Room
from tests.browser.states import sign_now
from tests.browser.world import CHROMIUM, sign_in
from tests.factories import PASSWORD
from tests.portal.drawn import DrawnSmear
from tests.portal.factories import Network, add_hospital

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: make browser"),
]
KEPT = "Object.keys(localStorage).filter((key) => key.startsWith('hv-draft/'))"
ACTS = "Object.keys(localStorage).filter((key) => key.startsWith('hv-acts/'))"


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
    room.rests()
    room.end_sessions()
    page.locator("#impression").fill("After the end.")
    expect(page.locator("#expired")).to_be_visible()
    _sign_in_again(page, room.case_id)
    expect(page.locator("#impression")).to_have_value("After the end.")
    assert page.locator("#sign-form [data-dismiss]").first.is_checked()
    expect(page.locator("#sign-form .reason").first).to_have_value("Known since birth.")
    room.tell_nothing_of(*SIGNED_OUT)


def open_blind(network: Network, open_room: OpenRoom, drawn: list[DrawnSmear]) -> tuple[Room, str]:
    """Open a case that is read without the AI first, and of which the reader has classified two cells."""
    if "b" not in network.nodes:
        add_hospital(network, "b")
    smear = next(one for one in drawn if one.smear.fields)
    room = open_room(smear, claim=False)
    case_id = blind_case(network, smear)
    begun_blind(network, case_id, cells=2)
    room.page.goto(f"/cases/{case_id}")
    room.page.wait_for_selector(READY)
    return room, case_id


def test_ended_session_keeps_blind_estimates(network: Network, open_room: OpenRoom, drawn: list[DrawnSmear]) -> None:
    room, case_id = open_blind(network, open_room, drawn)
    page = room.page
    page.keyboard.press("Control+Enter")
    room.rests()
    room.end_sessions()
    page.locator("#blind-text").fill("One blast, I think.")
    page.locator("#estimate-neutrophil").fill("61,5")
    expect(page.locator("#expired")).to_be_visible()
    _sign_in_again(page, case_id)
    expect(page.locator("#blind-text")).to_have_value("One blast, I think.")
    expect(page.locator("#estimate-neutrophil")).to_have_value("61,5")
    expect(page.locator("#blind-draft")).to_have_text("Draft kept.")
    assert page.evaluate(KEPT) == []  # the centre has it
    room.tell_nothing_of(*SIGNED_OUT)


def _sign_out(room: Room, _address: str) -> None:
    room.page.get_by_role("button", name="Sign out").click()
    room.page.wait_for_url("**/login")


def _next_person(room: Room, address: str) -> None:
    """Somebody else signs in where the session of the first has ended."""
    room.end_sessions()
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
    room.tell_nothing_of("ERR_FAILED", *SIGNED_OUT)


def _offered(page: Page, form: str) -> Locator:
    return page.locator(f"{form} .was")


def test_text_that_went_on_elsewhere_stays_and_the_draft_is_offered(room: Room) -> None:
    _write_everything(room)
    with room.network.centre.runtime.database.session() as session:
        reviews.save_impression(session, room.network.people["reader"], room.case_id, "Gone on elsewhere.")
    page = _again(room)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#impression")).to_have_value("Gone on elsewhere.")
    expect(_offered(page, "#sign-form")).to_contain_text("Left shift, unsent.")
    assert page.locator("#sign-form [data-dismiss]").first.is_checked()  # over nothing that was changed elsewhere
    page.locator("#impression").press("End")
    page.locator("#impression").press_sequentially(" Newer.")
    expect(page.locator("#draft")).to_have_text("Draft kept.")
    page = _again(room)  # nothing was decided: it is offered again, whatever was written since
    page.keyboard.press("Control+Enter")
    expect(page.locator("#impression")).to_have_value("Gone on elsewhere. Newer.")
    _offered(page, "#sign-form").get_by_role("button", name="Use it").click()
    expect(page.locator("#impression")).to_have_value("Left shift, unsent.")
    expect(page.locator("#draft")).to_have_text("Draft kept.")
    page = _again(room)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#impression")).to_have_value("Left shift, unsent.")
    expect(_offered(page, "#sign-form")).to_have_count(0)
    room.tell_nothing_of("ERR_FAILED")


def test_draft_from_before_a_signature_does_not_come_into_the_amendment(room: Room) -> None:
    _write_everything(room)
    reader = room.network.people["reader"]
    room.page.goto("/worklist")
    sign_now(room.network, room.case_id)
    with room.network.centre.runtime.database.session() as session:
        amending.begin(session, reader, room.case_id, kind=ReportStatus.AMENDED, reason="Counted again.")
    page = _again(room)
    page.keyboard.press("Control+Enter")
    expect(_offered(page, "#sign-form")).to_contain_text("Left shift, unsent.")
    expect(page.locator("#impression")).not_to_have_value("Left shift, unsent.")
    assert not page.locator("#sign-form [data-dismiss]").first.is_checked()
    expect(_offered(page, "#sign-form")).to_contain_text("The smear is thick.")
    _offered(page, "#sign-form").get_by_role("button", name="Drop it").click()
    expect(_offered(page, "#sign-form")).to_have_count(0)
    page.keyboard.press("Escape")
    page.keyboard.press("Shift+G")
    expect(page.locator("#glass-note")).to_have_value("")
    _offered(page, "#glass-form").get_by_role("button", name="Use it").click()
    expect(page.locator("#glass-note")).to_have_value("Too thick to read.")
    page = _again(room)
    expect(page.locator("#glass-note")).to_have_value("Too thick to read.")
    expect(page.locator(".was")).to_have_count(1)  # the question
    with room.network.centre.runtime.database.session(read_only=True) as session:
        assert reviews.impression(session, reader, room.case_id) != "Left shift, unsent."
    room.tell_nothing_of("ERR_FAILED")


def test_blind_text_that_went_on_elsewhere_stays(
    network: Network, open_room: OpenRoom, drawn: list[DrawnSmear]
) -> None:
    room, case_id = open_blind(network, open_room, drawn)
    page = room.page
    page.route("**/blind/draft", lambda route: route.abort())
    page.keyboard.press("Control+Enter")
    page.locator("#blind-text").fill("One blast, unsent.")
    page.locator("#estimate-neutrophil").fill("61,5")
    expect(page.locator("#blind-draft")).to_contain_text("until the connection is back")
    with network.centre.runtime.database.session() as session:
        opinions.keep_draft(session, network.people["reader"], case_id, text="Gone on elsewhere.", estimate={})
    page.unroute_all()
    page.reload()
    page.wait_for_selector(READY)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#blind-text")).to_have_value("Gone on elsewhere.")
    expect(page.locator("#estimate-neutrophil")).to_have_value("61,5")  # of which the centre had nothing still
    expect(page.locator("#blind-draft")).to_have_text("Draft kept.")
    expect(_offered(page, "#blind")).to_contain_text("One blast, unsent.")
    room.tell_nothing_of("ERR_FAILED")


def test_save_that_is_answered_after_the_sign_out_leaves_nothing_here(room: Room) -> None:
    page = room.page
    held: list[Route] = []
    page.route("**/impression", lambda route: held.append(route))
    # The next page is slow to come: this one is still there.
    page.evaluate("document.getElementById('sign-out').addEventListener('submit', (event) => event.preventDefault())")
    page.keyboard.press("Control+Enter")
    _dismiss(page, "The smear is thick.")
    with page.expect_request("**/impression"):
        page.locator("#impression").fill("Left shift.")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Sign out", exact=True).click()
    assert page.evaluate(KEPT) == []
    held[0].continue_()
    expect(page.locator("#draft")).to_have_text("Draft kept.")
    assert page.evaluate(KEPT) == []


def _comment_unsent(room: Room) -> None:
    """A comment among the findings that the centre does not get."""
    page = room.page
    room.nothing_waits()
    page.route("**/findings", lambda route: route.abort())
    page.locator("#tab-red_cells").click()
    page.locator("#text-red_cells").fill("Helmets, unsent.")
    expect(page.locator("#saved")).to_contain_text("1 change waits")


def _comment(room: Room) -> object:
    with room.network.centre.runtime.database.session(read_only=True) as session:
        return findings.view(session, room.network.people["reader"], room.case_id).items.get("text.red_cells")


def test_sign_out_asks_before_it_drops_what_was_not_sent(room: Room) -> None:
    _comment_unsent(room)
    page = room.page
    leave = page.get_by_role("button", name="Sign out", exact=True)
    leave.click()
    expect(page.locator("#unsaved-what")).to_have_text("1 change is not saved yet.")
    expect(page.locator("#unsaved-where")).to_contain_text(room.case_id)
    page.get_by_role("button", name="Stay").click()
    assert len(page.evaluate(ACTS)) == 1
    leave.click()
    page.get_by_role("button", name="Sign out and drop them").click()
    page.wait_for_url("**/login")
    assert page.evaluate(ACTS) == []
    assert _comment(room) is None
    room.tell_nothing_of("ERR_FAILED")


def test_sign_out_goes_on_by_itself_once_all_is_saved(room: Room) -> None:
    _comment_unsent(room)
    page = room.page
    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page.locator("#unsaved")).to_be_visible()
    page.unroute_all()
    page.wait_for_url("**/login")
    assert _comment(room) == "Helmets, unsent."
    room.tell_nothing_of("ERR_FAILED")


def test_next_person_finds_no_unsent_act(room: Room, address: str) -> None:
    _comment_unsent(room)
    _next_person(room, address)
    assert room.page.evaluate(ACTS) == []
    room.tell_nothing_of("ERR_FAILED", *SIGNED_OUT)


def test_answer_on_its_way_outlives_a_closed_tab(room: Room) -> None:
    _write_everything(room)
    page = room.page
    page.locator("#ask-text").press("Control+Enter")
    page.route("**/messages", lambda _route: None)  # never answered
    with page.expect_request("**/messages"):
        page.locator(".answer textarea").fill("A slow answer.")
        page.locator(".answer textarea").press("Control+Enter")
    page = _again(room)
    page.keyboard.press("Shift+C")
    expect(page.locator(".answer textarea")).to_have_value("A slow answer.")
    page.locator(".answer textarea").press("Control+Enter")
    expect(page.locator(".thread .said p")).to_have_text(["Is this a blast?", "A slow answer."])
    expect(page.locator(".answer textarea")).to_have_value("")
    page = _again(room)
    page.keyboard.press("Shift+C")
    expect(page.locator(".answer textarea")).to_have_value("")
    room.tell_nothing_of("ERR_FAILED")
