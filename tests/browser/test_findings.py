"""Findings beside the differential in a real browser: by keyboard, without a connection, into the signed report."""

import pytest
from playwright.sync_api import Page, expect
from sqlmodel import select

from server.models import FindingChange
from server.reviews import findings
from server.reviews.schemas import FindingsView
from shared.contracts.case import CaseState
from tests.browser.room import READY, Room
from tests.browser.world import CHROMIUM
from tests.factories import PASSWORD

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: make browser"),
]


def _kept(room: Room) -> FindingsView:
    with room.network.centre.runtime.database.session(read_only=True) as session:
        return findings.view(session, room.network.people["reader"], room.case_id)


def _steps(room: Room) -> int:
    with room.network.centre.runtime.database.session(read_only=True) as session:
        return len(session.exec(select(FindingChange).where(FindingChange.case_id == room.case_id)).all())


def _press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_red_cells_are_graded_by_keyboard_and_stand_in_the_signed_report(room: Room) -> None:
    page, before = room.page, room.classes()
    _press(page, "s")
    expect(page.locator("#panel-red_cells")).to_be_visible()
    _press(page, "2", "ArrowDown", "ArrowDown", "3", "1")  # anisocytosis 2; microcytes 3, for which 1 is no grade here
    expect(page.locator(".toast")).to_contain_text("not used here for microcytes")
    row = page.get_by_role("radiogroup", name="schistocytes")
    while not row.evaluate("row => row.contains(document.activeElement)"):
        _press(page, "ArrowDown")
    _press(page, "1")
    room.saved()
    assert _kept(room).items == {"grade.anisocytosis": 2, "grade.microcytes": 3, "grade.schistocytes": 1}
    assert room.classes() == before
    page.get_by_label("Red cells counted").focus()
    page.keyboard.type("1000")
    _press(page, "Tab")
    page.keyboard.type("14")
    _press(page, "Tab")
    says = page.locator('[data-says="schistocyte-count"]')
    expect(says).to_contain_text("14 of 1,000 red cells = 1.40 % (95 % interval 0.77–2.34 %)")
    expect(says).to_contain_text("suspicious for thrombotic microangiopathy")
    expect(page.locator("#tab-red_cells [data-count]")).to_have_text("4")
    _press(page, "Escape")
    assert room.chosen()
    _press(page, "Shift+D", "a")
    room.saved()
    _press(page, "Control+Enter")
    expect(page.locator("#sign-findings")).to_contain_text("Microcytes many (3+)")
    page.locator("#impression").fill("Fragmented red cells.")
    page.locator("#password").fill(PASSWORD)
    _press(page, "Enter")
    page.wait_for_url("**/reports/*")
    expect(page.locator(".found")).to_contain_text("14 of 1,000 red cells = 1.40 %")
    expect(page.locator(".found")).to_contain_text("Anisocytosis")


def test_entry_is_taken_back_by_key_and_pressing_it_again_clears_it(room: Room) -> None:
    page = room.page
    _press(page, "s", "2", "3")
    room.saved()
    _press(page, "u")
    first = page.get_by_role("radiogroup", name="anisocytosis")
    expect(first.get_by_role("radio", name="2, moderate (2+)")).to_have_attribute("aria-checked", "true")
    assert _kept(room).items == {"grade.anisocytosis": 2}
    first.get_by_role("radio", name="2, moderate (2+)").click()
    room.saved()
    assert _kept(room).items == {}
    assert _steps(room) == 4


def test_entries_made_without_a_connection_are_sent_later_and_once(room: Room) -> None:
    page = room.page
    page.context.set_offline(True)
    _press(page, "s", "2", "ArrowDown", "3")
    expect(page.locator("#saved")).to_contain_text("2 changes wait")
    page.context.set_offline(False)
    room.saved()
    assert _kept(room).items == {"grade.anisocytosis": 2, "grade.macrocytes": 3}
    assert _steps(room) == 2
    room.tell_nothing_of("ERR_INTERNET_DISCONNECTED", "failed to load")


def test_comment_is_saved_as_it_is_written_and_takes_phrases(room: Room) -> None:
    page = room.page
    page.get_by_role("tab", name="Platelets").click()
    text = page.locator("#text-platelets")
    assert not text.evaluate("field => field.spellcheck")
    text.fill("Large forms.")
    panel = page.locator("#panel-platelets")
    panel.get_by_text("Phrases", exact=True).click()
    panel.get_by_role("button", name="Keep what is written as a phrase").click()
    expect(panel.get_by_role("button", name="Large forms.", exact=True)).to_be_visible()
    panel.get_by_role("button", name="Platelet clumps: repeat the count in citrate.", exact=True).click()
    page.get_by_role("tab", name="Flags").click()
    room.saved()
    assert _kept(room).items == {"text.platelets": "Large forms. Platelet clumps: repeat the count in citrate."}
    page.reload()
    page.get_by_role("tab", name="Platelets").click()
    expect(text).to_have_value("Large forms. Platelet clumps: repeat the count in citrate.")


def test_malaria_asks_for_the_species_and_reckons_by_the_patients_own_count(room: Room) -> None:
    page = room.page
    page.get_by_role("tab", name="Malaria").click()
    panel = page.locator("#panel-malaria")
    panel.get_by_label("Seen", exact=True).check()
    expect(panel.get_by_text("Say which species was seen")).to_be_visible()
    panel.get_by_label("P. vivax").check()
    panel.get_by_label("Parasites beside white cells").check()
    panel.get_by_label("Parasites", exact=True).fill("100")
    panel.get_by_label("Cells counted").fill("200")
    expect(panel.locator(".says")).to_have_text("100 beside 200 white cells = 10,700 /µl at 21.4 ×10⁹/l white cells")
    page.get_by_role("tab", name="Platelets").click()
    page.get_by_role("radiogroup", name="platelet clumps").get_by_role("radio").nth(2).click()
    expect(page.locator('[data-says="platelet-clumps"]')).to_contain_text("ask for a citrate sample")


def test_two_tabs_show_the_same_findings(room: Room) -> None:
    second = room.page.context.new_page()
    second.goto(f"/cases/{room.case_id}")
    second.wait_for_selector(READY)
    _press(room.page, "s", "3")
    room.saved()
    row = second.locator('[data-item="grade.anisocytosis"] [data-grade="3"]')
    expect(row).to_have_attribute("aria-checked", "true")


def test_glass_is_asked_for_by_keyboard(room: Room) -> None:
    page = room.page
    _press(page, "Shift+G")
    expect(page.locator("#glass")).to_be_visible()
    page.get_by_label("Another reason").check()
    page.locator("#glass-password").fill(PASSWORD)
    _press(page, "Enter")
    expect(page.locator("#glass .error")).to_contain_text("Say why the smear cannot be read")
    page.get_by_label("The images are out of focus").check()
    page.locator("#glass-password").fill(PASSWORD)
    _press(page, "Enter")
    page.wait_for_url("**/reports/*")
    expect(page.get_by_role("heading", name="Not gradable, glass slide asked for")).to_be_visible()
    assert room.case().state is CaseState.REJECTED
    page.goto("/worklist?state=done")
    expect(page.locator(f"#row-{room.case_id}")).to_contain_text("glass asked for")
    room.tell_nothing_of("422", "400")


def test_head_of_the_case_tells_what_is_out_and_all_of_it_by_key(room: Room) -> None:
    page = room.page
    expect(page.locator(".head-lines .out")).to_have_count(2)
    expect(page.locator(".head-lines")).to_contain_text("Hb 88 ↓32")
    expect(page.locator(".head-lines")).to_contain_text("not trained for blasts")
    _press(page, "q")
    facts = page.locator("#facts")
    expect(facts).to_contain_text("Leukocytosis of unknown cause?")
    expect(facts).to_contain_text("120–150")
    expect(facts).to_contain_text("has named nobody")
    _press(page, "Escape")
    expect(facts).to_be_hidden()
