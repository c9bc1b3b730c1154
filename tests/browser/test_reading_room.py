"""The reading room's harder half in a real browser: choosing many, marking, undoing, comparing, and nothing lost."""

import re

import pytest
from playwright.sync_api import Locator, Page, Route, expect
from sqlmodel import select

from server.cases import service as cases
from server.models import UserSession
from server.models.base import utc_now
from shared.contracts.case import CaseState
from shared.contracts.ontology import CellClass
from tests.browser.conftest import OpenRoom
from tests.browser.room import READY, Room
from tests.browser.world import CHROMIUM
from tests.factories import PASSWORD
from tests.portal.drawn import DrawnSmear

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: make browser"),
]


UNSEEN = re.compile(r"\bunseen\b")


@pytest.fixture(scope="module")
def clean(drawn: list[DrawnSmear]) -> DrawnSmear:
    """Return a smear of which the model doubts nothing."""
    one = next(one for one in drawn if one.smear.fields and one.smear.flags)
    sure = [cell.model_copy(update={"prediction_set": (cell.cls,), "ood_score": 0.2}) for cell in one.smear.cells]
    return DrawnSmear(one.smear.model_copy(update={"cells": tuple(sure)}), one.images)


def _tile(room: Room, cell_id: str) -> Locator:
    return room.page.locator(f'.tile[data-cell="{cell_id}"]')


def _order(room: Room) -> list[str]:
    tiles = room.page.locator(".tile")
    return [str(tiles.nth(at).get_attribute("data-cell")) for at in range(tiles.count())]


def _shown(group: Locator) -> bool:
    """Whether a group's first tile is inside the gallery's frame, most of it at least."""
    tile, frame = group.locator(".tile").first.bounding_box(), group.page.locator("#gallery").bounding_box()
    assert tile is not None
    assert frame is not None
    inside = min(tile["y"] + tile["height"], frame["y"] + frame["height"]) - max(tile["y"], frame["y"])
    return inside > 0.55 * tile["height"]


def _look(page: Page) -> list[Locator]:
    """Wait until the room has noted every group on screen; return those that it has not."""
    groups = page.locator("[data-group]:not([data-group=unsure])").all()
    for group in groups:
        if _shown(group):
            expect(group).not_to_have_class(UNSEEN)
    return page.locator(".unseen").all()


def test_clean_case_is_claimed_read_and_signed_in_six_keys(open_room: OpenRoom, clean: DrawnSmear) -> None:
    room = open_room(clean, claim=False)
    page, keys = room.page, 0
    page.keyboard.press("c")
    keys += 1
    page.wait_for_selector("#open-sign")
    expect(page.locator(".tile").first).to_be_visible()
    while _look(page):
        page.keyboard.press("Space")
        keys += 1
    page.keyboard.press("Control+Enter")
    keys += 2
    expect(page.locator("#password")).to_be_focused()
    assert page.locator("#impression").input_value().startswith("Differential of ")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    keys += 1
    page.wait_for_url("**/reports/*")
    assert keys <= 6
    assert room.case().state is CaseState.SIGNED


def test_doubtful_cell_left_unreviewed_blocks_and_is_shown(room: Room) -> None:
    page = room.page
    page.keyboard.press("Control+Enter")
    expect(page.locator("#sign-blocked")).to_be_visible()
    expect(page.locator("#sign-submit")).to_be_disabled()
    page.keyboard.press("Enter")
    expect(page.locator("#sign")).to_be_hidden()
    assert room.cell(room.chosen()).doubtful
    page.keyboard.press("Shift+D")
    page.keyboard.press("a")
    room.saved()
    assert not any(cell.doubtful for cell in room.case().cells)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#sign-submit")).to_be_enabled()


def test_one_key_a_doubtful_cell_then_the_next_is_chosen(room: Room) -> None:
    doubtful = [cell.cell_id for cell in room.case().cells if cell.doubtful]
    assert len(doubtful) >= 2
    room.page.keyboard.press(".")
    first = room.chosen()
    room.page.keyboard.press("a")
    assert room.chosen() in set(doubtful) - {first}


def test_class_group_is_seen_once_on_screen_and_kept_over_a_reload(open_room: OpenRoom, clean: DrawnSmear) -> None:
    room = open_room(clean, width=1280, height=420)
    page = room.page
    before = [str(group.get_attribute("data-group")) for group in _look(page)]
    assert before
    seen = page.locator(f'[data-group="{before[0]}"]')
    assert not _shown(seen)
    with page.expect_response(lambda answer: f"group={before[0]}&" in (answer.request.post_data or "")) as noted:
        page.keyboard.press("Space")
    assert noted.value.ok
    expect(seen).not_to_have_class(UNSEEN)
    page.reload()
    page.wait_for_selector(READY)
    assert not _shown(seen)
    expect(seen).not_to_have_class(UNSEEN)


def test_many_are_chosen_by_range_toggle_and_rubber_band(room: Room) -> None:
    page, order = room.page, _order(room)
    _tile(room, order[1]).click()
    _tile(room, order[4]).click(modifiers=["Shift"])
    assert room.chosen_all() == order[1:5]
    _tile(room, order[2]).click(modifiers=["Control"])
    assert room.chosen_all() == [order[1], order[3], order[4]]
    last = page.locator(".tiles").last
    box, frame = last.bounding_box(), page.locator("#gallery").bounding_box()
    assert box is not None
    assert frame is not None
    page.mouse.move(frame["x"] + 3, box["y"] + 3)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] - 30, box["y"] + box["height"] - 4, steps=4)
    page.mouse.up()
    inside = last.locator(".tile")
    assert room.chosen_all() == [str(inside.nth(at).get_attribute("data-cell")) for at in range(inside.count())]


def test_all_doubtful_of_this_class_are_set_by_one_key(room: Room) -> None:
    page = room.page
    page.keyboard.press(".")
    cls = room.cell(room.chosen()).current_class
    wanted = {cell.cell_id for cell in room.case().cells if cell.doubtful and cell.current_class is cls}
    assert 0 < len(wanted) < sum(cell.doubtful for cell in room.case().cells)
    page.keyboard.press("d")
    assert set(room.chosen_all()) == wanted
    page.keyboard.press("8")
    room.saved()
    assert {cell for cell, label in room.classes().items() if label is CellClass.BLAST} == wanted


def test_cell_is_dragged_onto_a_group_and_onto_a_class_below(room: Room) -> None:
    page = room.page
    cell = next(one for one in room.case().cells if not one.doubtful)
    group = page.locator("[data-group]:not([data-group=unsure])").filter(
        has_not=page.locator(f'[data-cell="{cell.cell_id}"]')
    )
    label = str(group.first.get_attribute("data-group"))
    _tile(room, cell.cell_id).drag_to(group.first.locator(".group-head"))
    room.saved()
    assert room.cell(cell.cell_id).current_class == label
    _tile(room, cell.cell_id).drag_to(page.locator('.key[data-class="basophil"]'))
    room.saved()
    assert room.cell(cell.cell_id).current_class is CellClass.BASOPHIL


def test_menu_opens_at_a_cell_and_sets_its_class(room: Room) -> None:
    page, cell = room.page, _order(room)[-1]
    _tile(room, cell).click(button="right")
    expect(page.locator("#cell-menu")).to_be_visible()
    page.get_by_role("menuitem", name="eosinophil").click()
    expect(page.locator("#cell-menu")).to_be_hidden()
    room.saved()
    assert room.cell(cell).current_class is CellClass.EOSINOPHIL
    page.keyboard.press("w")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    room.saved()
    assert room.cell(cell).current_class is CellClass.LYMPHOCYTE


def test_undo_and_redo_by_key_and_history_tells_of_both(room: Room) -> None:
    page = room.page
    cell, before = room.chosen(), room.cell(room.chosen()).current_class
    page.keyboard.press("x")
    page.keyboard.press("u")
    room.saved()
    assert room.cell(cell).current_class is before
    page.keyboard.press("r")
    room.saved()
    assert room.cell(cell).current_class is CellClass.ARTEFACT
    _tile(room, cell).click()
    page.keyboard.press("h")
    lines = page.locator(".history-list li")
    expect(lines).to_have_count(4)
    expect(lines.first).to_contain_text("made again: artefact")
    expect(lines.first).to_contain_text("Dr. A. Reader")
    expect(lines.nth(2)).to_contain_text(f"{before.info.name} → artefact")


def _free_corner(room: Room) -> tuple[float, float]:
    """Where the field on show has no cell, in pixels of the page."""
    frame = room.page.locator("#viewport").bounding_box()
    assert frame is not None
    boxes = [
        room.page.locator(".boxes g").nth(at).bounding_box() for at in range(room.page.locator(".boxes g").count())
    ]
    for right in range(60, int(frame["width"]) - 120, 20):
        for down in range(120, int(frame["height"]) - 160, 20):
            x, y = frame["x"] + right, frame["y"] + down
            if all(
                box is None or x + 50 < box["x"] or x > box["x"] + box["width"] or y + 50 < box["y"]
                or y > box["y"] + box["height"]
                for box in boxes
            ):  # fmt: skip
                return x, y
    raise AssertionError("the field is full of cells")


def test_missed_cell_is_marked_by_mouse_named_by_key_and_taken_back(room: Room) -> None:
    page, before = room.page, room.classes()
    x, y = _free_corner(room)
    page.keyboard.press("n")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y + 40, steps=4)
    page.mouse.up()
    expect(page.locator(".boxes .draft")).to_have_count(1)
    page.keyboard.press("8")
    room.saved()
    (new,) = [cell for cell in room.case().cells if cell.cell_id not in before]
    assert (new.current_class, new.added_by) == (CellClass.BLAST, "Dr. A. Reader")
    expect(_tile(room, new.cell_id).locator("img")).to_be_visible()
    page.keyboard.press("u")
    room.saved()
    assert room.classes() == before
    expect(_tile(room, new.cell_id)).to_have_count(0)


def test_missed_cell_is_marked_split_and_merged_without_a_mouse(room: Room) -> None:
    page, before = room.page, room.classes()
    page.keyboard.press("n")
    for _ in range(3):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Escape")
    expect(page.locator(".boxes .draft")).to_have_count(0)
    cell = room.chosen()
    page.keyboard.press("t")
    expect(page.locator(".boxes .draft")).to_have_count(2)
    page.keyboard.press("t")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    room.saved()
    after = room.classes()
    assert cell not in after
    assert set(room.chosen_all()) == set(after) - set(before)
    assert {after[half] for half in room.chosen_all()} == {before[cell]}
    page.keyboard.press("m")
    room.saved()
    merged = set(room.classes()) - set(before)
    assert len(merged) == 1
    for _ in range(2):
        page.keyboard.press("u")
        room.saved()
    assert room.classes() == before


def test_light_zoom_and_cell_size_have_keys(room: Room) -> None:
    page = room.page
    for key in ("i", "i", "Shift+O"):
        page.keyboard.press(key)
    assert page.evaluate("getComputedStyle(document.querySelector('.viewport canvas')).filter") == (
        "brightness(1.2) contrast(0.9)"
    )
    page.keyboard.press("p")
    assert page.evaluate("getComputedStyle(document.querySelector('.viewport canvas')).filter") == "none"
    scale = page.locator(".scalebar")
    wide = str(scale.get_attribute("style"))
    page.keyboard.press("+")
    page.keyboard.press("+")
    expect(scale).not_to_have_attribute("style", wide)
    size = _tile(room, room.chosen()).bounding_box()
    page.keyboard.press("z")
    larger = _tile(room, room.chosen()).bounding_box()
    assert size is not None
    assert larger is not None
    assert larger["width"] > size["width"]


def test_field_is_shown_as_tiles(room: Room) -> None:
    with room.page.expect_response("**/tiles/*.jpg") as answer:
        room.page.keyboard.press("]")
    assert answer.value.status == 200
    assert answer.value.headers["cache-control"].startswith("private")


def test_compare_lays_chosen_cells_side_by_side(room: Room) -> None:
    page, order = room.page, _order(room)
    _tile(room, order[0]).click()
    _tile(room, order[1]).click(modifiers=["Control"])
    page.keyboard.press("v")
    expect(page.locator("#compare figure")).to_have_count(2)
    expect(page.get_by_text("No earlier signed case of this patient")).to_be_visible()
    page.keyboard.press("Escape")
    assert room.chosen_all() == order[:2]


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


def test_session_that_ends_keeps_changes_and_draft_for_after_the_sign_in(room: Room) -> None:
    page, cell = room.page, room.chosen()
    page.keyboard.press("Shift+D")
    page.keyboard.press("a")
    room.saved()
    page.keyboard.press("Control+Enter")
    page.locator("#impression").fill("Left shift, before the session ended.")
    expect(page.locator("#draft")).to_have_text("Draft kept.")
    page.keyboard.press("Escape")
    with room.network.centre.runtime.database.session() as session:
        for row in session.exec(
            select(UserSession).where(UserSession.user_id == room.network.people["reader"].user_id)
        ):
            row.revoked_at = utc_now()
    _tile(room, cell).click()
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
    room.tell_nothing_of("401")


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
    expect(_tile(room, cell).locator(".tag")).to_have_text("BL")
    assert room.cell(cell).current_class is CellClass.BLAST


def test_change_to_a_case_that_was_taken_over_is_shown_as_refused(room: Room) -> None:
    page, cell = room.page, room.chosen()
    before = room.cell(cell).current_class
    with room.network.centre.runtime.database.session() as session:
        cases.claim(session, room.network.people["second"], room.case_id, take_over=True)
    page.keyboard.press("x")
    expect(page.locator("#conflict")).to_contain_text("Dr. M. Osei holds the case now")
    expect(page.locator("#conflict-list")).to_contain_text("artefact")
    expect(_tile(room, cell).locator(".tag")).to_have_text(before.info.mark)
    page.get_by_role("link", name="Reload the case").click()
    expect(page.get_by_role("button", name="Take over")).to_be_visible()
    room.tell_nothing_of("409")


def test_change_of_a_cell_that_is_gone_is_refused_and_the_rest_goes_on(room: Room) -> None:
    page, order = room.page, _order(room)
    taken = {"times": 0}

    def refuse_once(route: Route) -> None:
        taken["times"] += 1
        if taken["times"] == 1:
            body = '{"code": "not_found", "message": "1 of the marked cells are not of this case (any more)."}'
            route.fulfill(status=404, content_type="application/json", body=body)
        else:
            route.continue_()

    page.route("**/cells", lambda route: route.abort())
    _tile(room, order[-1]).click()
    page.keyboard.press("x")
    _tile(room, order[-2]).click()
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


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1024, 768)])
def test_room_fits_laptop_and_tablet(open_room: OpenRoom, clean: DrawnSmear, width: int, height: int) -> None:
    page = open_room(clean, width=width, height=height).page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    for selector in ("#open-sign", '.key[data-class="artefact"]', '.key[data-does="nextDoubtful"]', "#fit"):
        expect(page.locator(selector)).to_be_in_viewport(ratio=1)
