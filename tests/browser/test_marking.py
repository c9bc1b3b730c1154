"""Marking, splitting and merging cells in the field in a real browser, by mouse and by keys."""

import pytest
from playwright.sync_api import expect

from shared.contracts.ontology import CellClass
from tests.browser.room import Room
from tests.browser.world import CHROMIUM

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: make browser"),
]


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
    expect(room.tile(new.cell_id).locator("img")).to_be_visible()
    page.keyboard.press("u")
    room.saved()
    assert room.classes() == before
    expect(room.tile(new.cell_id)).to_have_count(0)


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


def test_two_cells_apart_are_chosen_and_merged_by_keys_alone(room: Room) -> None:
    page, order, before = room.page, room.order(), room.classes()
    fields = {cell.cell_id: cell.field for cell in room.case().cells}
    first, last = next(
        (a, b) for a in range(len(order)) for b in range(a + 3, len(order)) if fields[order[a]] == fields[order[b]]
    )
    for _ in range(first):
        page.keyboard.press("j")
    assert room.chosen_all() == [order[first]]
    page.locator("#gallery").locator('[tabindex="0"]').focus()
    for _ in range(last - first + 1):
        page.keyboard.press("Control+j")
    page.keyboard.press("Control+k")
    expect(room.tile(order[last])).to_be_focused()
    assert room.chosen_all() == [order[first]]
    look = "tile => getComputedStyle(tile).outlineStyle"
    assert room.tile(order[last]).evaluate(look) != room.tile(order[first]).evaluate(look)
    expect(page.locator("#selected")).to_contain_text("not chosen")
    for chosen in ([first, last], [first], [first, last]):
        page.keyboard.press("Control+Space")
        assert room.chosen_all() == [order[at] for at in chosen]
    page.keyboard.press("m")
    room.saved()
    gone, new = set(before) - set(room.classes()), set(room.classes()) - set(before)
    assert gone == {order[first], order[last]}
    assert room.chosen_all() == list(new)


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
    size = room.tile(room.chosen()).bounding_box()
    page.keyboard.press("z")
    larger = room.tile(room.chosen()).bounding_box()
    assert size is not None
    assert larger is not None
    assert larger["width"] > size["width"]


def test_field_is_shown_as_tiles(room: Room) -> None:
    with room.page.expect_response("**/tiles/*.jpg") as answer:
        room.page.keyboard.press("]")
    assert answer.value.status == 200
    assert answer.value.headers["cache-control"].startswith("private")
