"""Nothing is lost in a real browser: offline, an ended session, a second tab, a case taken over."""

import pytest
from playwright.sync_api import Page, Route, expect
from sqlmodel import select

from server.cases import service as cases
from server.models import Report
from shared.contracts.ontology import CellClass
from tests.browser.conftest import OpenRoom
from tests.browser.room import READY, SIGNED_OUT, Room
from tests.browser.world import CHROMIUM
from tests.factories import PASSWORD
from tests.portal.drawn import DrawnSmear

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: make browser"),
]

NO_CONNECTION = "There is no connection: try again when it is back."


def test_change_made_offline_outlives_a_closed_tab(room: Room) -> None:
    page, cell = room.page, room.chosen()
    page.route("**/cells", lambda route: route.abort())
    page.keyboard.press("x")
    expect(page.locator("#saved")).to_contain_text("waits for the connection")
    context = page.context
    page.close()
    room.page = context.new_page()
    room.page.goto(f"/cases/{room.case_id}")
    room.saved()
    assert [(one.cell_id, one.current_class) for one in room.case().cells if one.changed_by] == [
        (cell, CellClass.ARTEFACT)
    ]
    room.tell_nothing_of("ERR_FAILED")


def test_differential_says_that_it_is_not_counted_yet_until_the_centre_has_answered(room: Room) -> None:
    page, table = room.page, room.page.locator("table.differential")
    caption, rows = page.locator("#differential-caption"), page.locator("#differential tr")
    counted = caption.inner_text()
    expect(table).not_to_contain_class("waits")
    page.route("**/cells", lambda route: route.abort())
    page.keyboard.press("x")
    expect(page.locator("#saved")).to_contain_text("waits for the connection")
    expect(table).to_contain_class("waits")
    expect(caption).to_contain_text("not counted yet")
    before = rows.all_inner_texts()
    page.unroute("**/cells")
    room.saved()
    expect(table).not_to_contain_class("waits")
    expect(caption).not_to_contain_text("not counted yet")
    assert (caption.inner_text(), rows.all_inner_texts()) != (counted, before)
    room.tell_nothing_of("ERR_FAILED")


def test_session_that_ends_keeps_changes_and_draft_for_after_the_sign_in(room: Room) -> None:
    page, cell = room.page, room.chosen()
    page.keyboard.press("Shift+D")
    page.keyboard.press("a")
    room.saved()
    page.keyboard.press("Control+Enter")
    page.locator("#impression").fill("Left shift, before the session ended.")
    expect(page.locator("#draft")).to_have_text("Draft kept.")
    page.keyboard.press("Escape")
    room.rests()
    room.end_sessions()
    room.tile(cell).click()
    page.keyboard.press("x")
    expect(page.locator("#expired")).to_contain_text("1 change waits here")
    page.get_by_role("link", name="Sign in and go on here").click()
    page.locator("input[name=username]").fill("reader")
    page.locator("input[name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/cases/{room.case_id}")
    room.saved()
    assert room.cell(cell).current_class is CellClass.ARTEFACT
    expect(page.locator("#impression")).to_have_value("Left shift, before the session ended.")
    room.tell_nothing_of(*SIGNED_OUT)


def test_page_that_is_left_alone_says_that_the_session_has_ended(room: Room) -> None:
    page = room.page
    page.clock.install()
    page.reload()
    page.wait_for_selector(READY)
    room.rests()
    room.end_sessions()
    with page.expect_response("**/heartbeat") as beat:
        page.clock.fast_forward(60_000)
    assert beat.value.status == 401
    expect(page.locator("#expired")).to_contain_text("Everything was saved")
    page.close()
    room.tell_nothing_of(*SIGNED_OUT)


def _lose_the_first_answer(page: Page, pattern: str) -> None:
    """Let the centre do what it is asked, and the connection break before it can say so."""
    asked: list[str] = []

    def lose(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) == 1:
            assert route.fetch().ok
            route.abort()
        else:
            route.continue_()

    page.route(pattern, lose)


def _reports(room: Room) -> int:
    with room.network.centre.runtime.database.session(read_only=True) as session:
        return len(session.exec(select(Report).where(Report.case_id == room.case_id)).all())


def test_signature_whose_answer_was_lost_is_sent_again_and_comes_to_the_one_report(room: Room) -> None:
    page = room.page
    page.keyboard.press("Shift+D")
    page.keyboard.press("a")
    room.saved()
    expect(page.locator(".unseen")).to_have_count(0)
    room.nothing_waits()  # that the groups were seen is still on its way
    _lose_the_first_answer(page, "**/sign")
    page.keyboard.press("Control+Enter")
    page.locator("#impression").fill("Left shift.")
    page.locator("#password").fill(PASSWORD)
    # The page hears that nobody holds the case any more, and reads it anew; the dialog is closed and opened again.
    with page.expect_response(f"**/{room.case_id}.json"):
        page.keyboard.press("Enter")
        expect(page.locator("#sign-error")).to_have_text(NO_CONNECTION)
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Enter")
    page.locator("#password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/reports/*")
    assert _reports(room) == 1
    room.tell_nothing_of("ERR_FAILED")


def test_glass_whose_answer_was_lost_is_asked_for_again_and_comes_to_the_one_letter(room: Room) -> None:
    page = room.page
    _lose_the_first_answer(page, "**/glass")
    page.keyboard.press("Shift+G")
    page.get_by_label("out of focus").check()
    page.locator("#glass-password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#glass-form .error")).to_have_text(NO_CONNECTION)
    page.locator("#glass-password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/reports/*")
    assert _reports(room) == 1
    room.tell_nothing_of("ERR_FAILED")


def test_second_tab_shows_what_the_first_one_does(room: Room) -> None:
    cell = room.chosen()
    second = room.page.context.new_page()
    second.goto(f"/cases/{room.case_id}")
    second.wait_for_selector(READY)
    room.page.keyboard.press("x")
    room.saved()
    expect(second.locator(f'.tile[data-cell="{cell}"] .tag')).to_have_text("AR")
    second.locator(f'.tile[data-cell="{cell}"]').click()
    second.keyboard.press("8")
    expect(second.locator("#saved")).to_have_text("saved")
    expect(room.tile(cell).locator(".tag")).to_have_text("BL")
    assert room.cell(cell).current_class is CellClass.BLAST


def test_change_to_a_case_that_was_taken_over_is_shown_as_refused(room: Room) -> None:
    page, cell = room.page, room.chosen()
    before = room.cell(cell).current_class
    with room.network.centre.runtime.database.session() as session:
        cases.claim(session, room.network.people["second"], room.case_id, take_over=True)
    page.keyboard.press("x")
    expect(page.locator("#conflict")).to_contain_text("Dr. M. Osei holds the case now")
    expect(page.locator("#conflict-list")).to_contain_text("artefact")
    expect(room.tile(cell).locator(".tag")).to_have_text(before.info.mark)
    page.get_by_role("link", name="Reload the case").click()
    expect(page.get_by_role("button", name="Take over")).to_be_visible()
    room.tell_nothing_of("409")


def test_case_is_taken_over_by_key_once_that_was_asked(open_room: OpenRoom, drawn: list[DrawnSmear]) -> None:
    room = open_room(drawn[0], claim=False)
    page, database = room.page, room.network.centre.runtime.database
    with database.session() as session:
        cases.claim(session, room.network.people["second"], room.case_id)
    page.reload()
    page.wait_for_selector(READY)
    asked = page.get_by_role("dialog", name="Take this case over?")
    for leave in ("Enter", "Escape"):  # enter stands on the safe answer
        page.keyboard.press("c")
        expect(asked).to_contain_text("Dr. M. Osei is reading it until")
        expect(asked.get_by_role("button", name="Leave it")).to_be_focused()
        page.keyboard.press(leave)
        expect(asked).to_be_hidden()
    assert room.case().claimed_by == "Dr. M. Osei"
    page.keyboard.press("c")
    page.keyboard.press("c")  # pressed twice takes nothing from anybody
    expect(asked).to_be_visible()
    page.keyboard.press("t")
    page.wait_for_selector("#open-sign")
    assert room.case().claimed_by_id == room.network.people["reader"].user_id


def test_free_case_is_claimed_by_one_key(open_room: OpenRoom, drawn: list[DrawnSmear]) -> None:
    page = open_room(drawn[0], claim=False).page
    page.keyboard.press("c")
    page.wait_for_selector("#open-sign")


def test_change_of_a_cell_that_is_gone_is_refused_and_the_rest_goes_on(room: Room) -> None:
    page, order = room.page, room.order()
    taken = {"times": 0}

    def refuse_once(route: Route) -> None:
        taken["times"] += 1
        if taken["times"] == 1:
            body = '{"code": "not_found", "message": "1 of the marked cells are not of this case (any more)."}'
            route.fulfill(status=404, content_type="application/json", body=body)
        else:
            route.continue_()

    page.route("**/cells", lambda route: route.abort())
    room.tile(order[-1]).click()
    page.keyboard.press("x")
    room.tile(order[-2]).click()
    page.keyboard.press("8")
    expect(page.locator("#saved")).to_contain_text("2 changes wait")
    page.unroute("**/cells")
    page.route("**/cells", refuse_once)
    expect(page.locator("#conflict")).to_contain_text("not of this case")
    page.get_by_role("button", name="Make them again").click()
    room.saved()
    assert (room.cell(order[-1]).current_class, room.cell(order[-2]).current_class) == (
        CellClass.ARTEFACT,
        CellClass.BLAST,
    )
    room.tell_nothing_of("404", "ERR_FAILED")


def test_note_that_a_group_was_on_screen_troubles_nobody_when_it_is_refused(
    open_room: OpenRoom, drawn: list[DrawnSmear]
) -> None:
    room = open_room(max(drawn, key=lambda one: len(one.smear.cells)), width=1280, height=420)
    page = room.page
    page.route("**/seen", lambda route: route.fulfill(status=409, json={"code": "conflict", "message": "No more."}))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_response("**/seen"):
        page.keyboard.press("Space")
    page.keyboard.press("x")
    room.saved()
    expect(page.locator("#conflict")).to_be_hidden()
    assert [url for url in asked if url.endswith(f"{room.case_id}.json")] == []  # what a conflict begins with
    assert room.cell(room.chosen()).current_class is CellClass.ARTEFACT
    room.tell_nothing_of("409")
