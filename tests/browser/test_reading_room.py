"""The reading room in a real browser: a clean case in a few keys, what blocks its signature, and what was on screen."""

import re
from dataclasses import replace

import pytest
from playwright.sync_api import Locator, Page, expect

from server.reviews import service as reviews
from shared.contracts.case import CaseState
from shared.contracts.ontology import CellClass
from shared.statistics import clopper_pearson, differential
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


def _larger(smear: DrawnSmear, *, cells: int, fields: int) -> DrawnSmear:
    """Return a smear of the same pictures again and again, as large as a hospital sends."""
    of, images = smear.smear, dict(smear.images)
    frames = [of.fields[at % len(of.fields)].model_copy(update={"path": f"field-{at}.jpg"}) for at in range(fields)]
    for at, field in enumerate(frames):
        images[field.path] = smear.images[of.fields[at % len(of.fields)].path]
    many = []
    for at in range(cells):
        one, name = of.cells[at % len(of.cells)], f"c{at + 1:03d}"
        where = ((one.field or 0) + len(of.fields) * (at // len(of.cells))) % fields
        images[f"cell-{name}.png"] = smear.images[f"cell-{one.id}.png"]
        many.append(one.model_copy(update={"id": name, "field": where, "source": f"cell-{name}.png"}))
    update = {"cells": tuple(many), "fields": tuple(frames), "differential": differential(one.cls for one in many)}
    return DrawnSmear(of.model_copy(update=update), images)


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


@pytest.mark.parametrize(
    ("size", "width", "height", "most"), [(None, 1440, 900, 6), ((200, 10), 1280, 720, 7)], ids=["small", "large"]
)
def test_clean_case_is_claimed_read_and_signed_in_a_few_keys(
    open_room: OpenRoom, clean: DrawnSmear, size: tuple[int, int] | None, width: int, height: int, most: int
) -> None:
    """Six keys; where each of the four classes fills a screen of its own, one space more."""
    smear = _larger(clean, cells=size[0], fields=size[1]) if size else clean
    room = open_room(smear, claim=False, width=width, height=height)
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
    assert keys <= most
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


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1024, 768)])
def test_room_fits_laptop_and_tablet(open_room: OpenRoom, clean: DrawnSmear, width: int, height: int) -> None:
    page = open_room(clean, width=width, height=height).page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    for selector in ("#open-sign", '.key[data-class="artefact"]', '.key[data-does="nextDoubtful"]', "#fit"):
        expect(page.locator(selector)).to_be_in_viewport(ratio=1)


def test_limit_is_held_against_a_class_with_all_that_is_reported_under_it(
    open_room: OpenRoom, drawn: list[DrawnSmear]
) -> None:
    """As the rules do it: a myelocyte is an immature granulocyte, and two finer classes are judged together."""
    immature = CellClass.IMMATURE_GRANULOCYTE
    one = next(one for one in drawn if one.smear.fields and one.smear.flags)
    smear = one.smear.model_copy(update={"limits": {immature: (2.0,), CellClass.BASOPHIL: (2.0, 60.0)}})
    room = open_room(replace(one, smear=smear))
    cells = [cell.cell_id for cell in room.case().cells]
    with room.network.centre.runtime.database.session() as session:
        for label, some in (
            (CellClass.MYELOCYTE, cells[:3]),
            (immature, cells[3:4]),
            (CellClass.LYMPHOCYTE, cells[4:]),
        ):
            reviews.reclassify(
                session, room.network.people["reader"], room.case_id, cell_ids=some, label=label,
                idempotency_key=f"{room.case_id}-{label}",
            )  # fmt: skip
    room.page.reload()
    room.page.wait_for_selector(READY)

    def words(cls: CellClass, count: int) -> str:
        low, high = (f"{bound:.0f}" if bound >= 10 else f"{bound:.1f}" for bound in clopper_pearson(count, len(cells)))
        found = room.page.locator("#differential tr", has=room.page.locator(f".chip.c-{cls.value}"))
        said = found.locator(".limit-words")
        assert f"{low.removesuffix('.0')}–{high} against" in str(said.get_attribute("title"))
        return said.inner_text()

    assert "above" in words(immature, 4) or "not settled" in words(immature, 4)
    assert "limit 2 ◆ not settled" in words(CellClass.BASOPHIL, 0)
