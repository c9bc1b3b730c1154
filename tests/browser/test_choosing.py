"""Choosing cells and giving them classes in a real browser: ranges, rubber band, one key, drag, menu."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import expect

from server.cases import comparing
from server.models import Case
from shared.contracts.ontology import CellClass
from tests.browser.conftest import OpenRoom
from tests.browser.room import Room
from tests.browser.world import CHROMIUM, sign_one
from tests.portal.drawn import DrawnSmear, send_case
from tests.portal.factories import Network, add_hospital

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: make browser"),
]


def test_many_are_chosen_by_range_toggle_and_rubber_band(room: Room) -> None:
    page, order = room.page, room.order()
    room.tile(order[1]).click()
    room.tile(order[4]).click(modifiers=["Shift"])
    assert room.chosen_all() == order[1:5]
    room.tile(order[2]).click(modifiers=["Control"])
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


def test_cells_are_chosen_and_named_by_taps_alone(open_room: OpenRoom, drawn: list[DrawnSmear]) -> None:
    room = open_room(next(one for one in drawn if one.smear.fields), width=1024, height=768, touch=True)
    page, order, before = room.page, room.order(), room.classes()
    several, more = page.get_by_role("button", name="Choose several"), page.get_by_role("button", name="More…")
    for control in (several, more, page.locator("#tile")):
        expect(control).to_be_in_viewport(ratio=1)
    several.tap()
    expect(several).to_have_attribute("aria-pressed", "true")
    assert room.chosen_all() == []  # the cell that was chosen by itself is not meant
    for at in (1, 2, 5, 2):
        room.tile(order[at]).tap()
    assert room.chosen_all() == [order[1], order[5]]
    page.locator('.key[data-class="basophil"]').tap()
    room.saved()
    assert room.classes() == {**before, order[1]: CellClass.BASOPHIL, order[5]: CellClass.BASOPHIL}
    assert room.chosen_all() == []
    page.locator('.key[data-class="artefact"]').tap()  # to nothing
    room.tile(order[3]).tap()
    more.tap()
    page.get_by_role("menuitem", name="eosinophil").tap()
    room.saved()
    assert room.cell(order[3]).current_class is CellClass.EOSINOPHIL
    assert CellClass.ARTEFACT not in set(room.classes().values()) - set(before.values())
    several.tap()
    room.tile(order[4]).tap()
    assert room.chosen_all() == [order[4]]


def test_nothing_but_a_tap_takes_a_cell_in_where_several_are_chosen(
    open_room: OpenRoom, drawn: list[DrawnSmear]
) -> None:
    flagged = [one for one in drawn if one.smear.fields and any(flag.evidence.cells for flag in one.smear.flags)]
    room = open_room(flagged[0], width=1024, height=768, touch=True)
    page, order, before = room.page, room.order(), room.classes()
    basophil = page.locator('.key[data-class="basophil"]')
    page.get_by_role("button", name="Choose several").tap()
    room.tile(order[1]).tap()
    basophil.tap()
    room.saved()
    for does in ("undo", "redo", "nextDoubtful"):
        page.locator(f'.key[data-does="{does}"]').tap()
        assert room.chosen_all() == []
    page.locator("[data-flag]:not([aria-disabled])").first.tap()
    page.keyboard.press(".")
    page.keyboard.press("j")
    room.tile(order[2]).click(button="right")
    page.keyboard.press("Escape")
    assert room.chosen_all() == []
    room.tile(order[3]).tap()
    assert room.chosen_all() == [order[3]]
    # Another cell than the chosen: the menu is for these, and nothing is dragged.
    room.tile(order[2]).drag_to(basophil)
    room.tile(order[2]).click(button="right")
    page.get_by_role("menuitem", name="monocyte").click()
    room.saved()
    # None is chosen: the cell itself.
    room.tile(order[2]).drag_to(basophil)
    room.saved()  # the gallery scrolls to what it is told of
    room.tile(order[4]).click(button="right")
    page.get_by_role("menuitem", name="eosinophil").click()
    room.saved()
    assert room.chosen_all() == []
    given = (CellClass.BASOPHIL, CellClass.BASOPHIL, CellClass.MONOCYTE, CellClass.EOSINOPHIL)
    assert room.classes() == {**before, **dict(zip(order[1:5], given, strict=True))}


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


def test_one_key_a_doubtful_cell_then_the_next_is_chosen(room: Room) -> None:
    doubtful = [cell.cell_id for cell in room.case().cells if cell.doubtful]
    assert len(doubtful) >= 2
    room.page.keyboard.press(".")
    first = room.chosen()
    room.page.keyboard.press("a")
    assert room.chosen() in set(doubtful) - {first}


def test_cell_is_dragged_onto_a_group_and_onto_a_class_below(room: Room) -> None:
    page = room.page
    cell = next(one for one in room.case().cells if not one.doubtful)
    group = page.locator("[data-group]:not([data-group=unsure])").filter(
        has_not=page.locator(f'[data-cell="{cell.cell_id}"]')
    )
    label = str(group.first.get_attribute("data-group"))
    room.tile(cell.cell_id).drag_to(group.first.locator(".group-head"))
    room.saved()
    assert room.cell(cell.cell_id).current_class == label
    room.tile(cell.cell_id).drag_to(page.locator('.key[data-class="basophil"]'))
    room.saved()
    assert room.cell(cell.cell_id).current_class is CellClass.BASOPHIL


def test_menu_opens_at_a_cell_and_sets_its_class(room: Room) -> None:
    page, cell = room.page, room.order()[-1]
    room.tile(cell).click(button="right")
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
    room.tile(cell).click()
    page.keyboard.press("h")
    lines = page.locator(".history-list li")
    expect(lines).to_have_count(4)
    expect(lines.first).to_contain_text("made again: artefact")
    expect(lines.first).to_contain_text("Dr. A. Reader")
    expect(lines.nth(2)).to_contain_text(f"{before.info.name} → artefact")


def test_compare_lays_chosen_cells_side_by_side(room: Room) -> None:
    page, order = room.page, room.order()
    room.tile(order[0]).click()
    room.tile(order[1]).click(modifiers=["Control"])
    page.keyboard.press("v")
    expect(page.locator("#compare figure")).to_have_count(2)
    expect(page.get_by_text("No earlier signed case of this patient")).to_be_visible()
    page.keyboard.press("Escape")
    assert room.chosen_all() == order[:2]


def test_compare_lays_earlier_signed_and_shared_cells_beside_the_chosen(
    network: Network, open_room: OpenRoom, drawn: list[DrawnSmear]
) -> None:
    smear = next(one for one in drawn if one.smear.fields and one.smear.flags)
    if "b" not in network.nodes:
        add_hospital(network, "b")
    signed = {hospital: send_case(network, hospital, smear) for hospital in "ab"}
    with ThreadPoolExecutor(1) as apart:  # rendering a report runs a loop of its own, and playwright's runs here
        for case_id in signed.values():
            apart.submit(sign_one, network, case_id).result()  # with monocytes that the reader has set
    room = open_room(smear)
    page, order = room.page, room.order()
    with network.centre.runtime.database.session() as session:
        session.get_one(Case, signed["a"]).patient_pseudonym = session.get_one(Case, room.case_id).patient_pseudonym
        comparing.share_references(session, network.people["admin"], "b", shares=True)
    room.tile(order[-1]).click()
    page.keyboard.press("3")
    room.tile(order[0]).click()
    room.tile(order[-1]).click(modifiers=["Control"])
    page.keyboard.press("v")
    rows = page.locator("#compare .row-of-cells")
    expect(rows.nth(0).locator("figure")).to_have_count(2)
    for row, case_id in ((1, signed["a"]), (2, signed["b"])):
        first = rows.nth(row).locator("figure").first
        expect(first).to_contain_text(f"{case_id} cell")
        expect(first).to_contain_text("set by Dr. A. Reader")
        expect(first.locator("img")).not_to_have_js_property("naturalWidth", 0)
    assert rows.nth(1).get_by_text(signed["b"]).count() == 0
    assert rows.nth(2).get_by_text(signed["a"]).count() == 0
