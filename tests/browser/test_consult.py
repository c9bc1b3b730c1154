"""Asking a colleague from the reading room, answering in another browser, and counting on."""

import pytest
from playwright.sync_api import Browser, Page, expect

from server.cases import supplements
from server.models import CaseSupplement
from shared.contracts.analysis import Flag, FlagEvidence, Severity
from shared.contracts.ontology import CellClass
from shared.contracts.supplement import MoreAnswer, MoreState
from tests.browser.conftest import OpenRoom
from tests.browser.room import READY, Room
from tests.browser.world import CHROMIUM, sign_in
from tests.factories import centre_key, pack
from tests.portal.drawn import DrawnSmear

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: make browser"),
]


def colleague(browser: Browser, address: str) -> Page:
    """The second reader in a browser of their own."""
    page = browser.new_context(viewport={"width": 1280, "height": 720}, base_url=address).new_page()
    sign_in(page, address, "second")
    return page


def test_question_on_a_cell_is_answered_live_and_marked_until_it_is_seen(
    room: Room, browser: Browser, address: str
) -> None:
    page, second = room.page, colleague(browser, address)
    cell = room.chosen()
    page.keyboard.press("Shift+C")
    expect(page.locator("#ask-who")).to_be_focused()
    page.locator("#ask-who").select_option(label="Dr. M. Osei")
    page.locator("#ask-text").fill("Is this a blast?")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".thread .said p")).to_have_text(["Is this a blast?"])
    second.goto("/worklist?state=open")
    line = second.locator(f"#row-{room.case_id}")
    expect(line.locator(".asks")).to_be_visible()
    line.locator("a.row").click()
    second.wait_for_selector(READY)
    expect(second.locator("#open-consult")).to_have_class("btn quiet unread")
    second.keyboard.press("Shift+C")
    expect(second.locator(".thread .new")).to_be_visible()
    second.locator(".thread .where").click()
    assert second.locator('.tile[aria-selected="true"]').get_attribute("data-cell") == cell
    second.locator(".answer textarea").fill("No. @")
    second.locator(".answer textarea").press("End")
    second.keyboard.type("read")
    second.keyboard.press("Enter")
    second.keyboard.press("Control+Enter")
    # It comes by itself, and what is being written here stays.
    page.locator(".answer textarea").fill("Half a thought")
    expect(page.locator(".said p").nth(1)).to_contain_text("No. @Dr. A. Reader", timeout=15_000)
    expect(page.locator(".answer textarea")).to_have_value("Half a thought")
    page.get_by_role("button", name="Resolve").click()
    expect(page.locator(".thread.resolved")).to_have_count(1)
    expect(second.locator(".done-line")).to_contain_text("Dr. A. Reader resolved this", timeout=15_000)
    second.goto("/worklist?state=all&asked=1")
    expect(second.get_by_text("No case fits these filters")).to_be_visible()
    second.context.close()


def test_region_of_the_field_is_asked_about_and_shown(room: Room) -> None:
    page = room.page
    page.keyboard.press("Shift+C")
    page.get_by_label("what the field shows now").check()
    page.locator("#ask-who").select_option(label="Dr. M. Osei")
    page.locator("#ask-text").fill("Are these clumps?")
    page.get_by_role("button", name="Ask ctrl ↵").click()
    where = page.locator(".where", has_text="region of field")
    expect(where).to_be_visible()
    where.click()
    expect(page.locator(".boxes .draft")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("#consult")).to_be_hidden()
    expect(page.locator(".boxes .draft")).to_have_count(0)


def test_counting_on_says_what_was_asked_and_why_nothing_comes(room: Room) -> None:
    page = room.page
    page.keyboard.press("Shift+M")
    expect(page.locator("#more-cells li")).to_contain_text("asked ")
    expect(page.get_by_role("button", name="Count 100 more")).to_be_disabled()
    with room.network.centre.runtime.database.session() as session:
        asked = supplements.of_case(session, room.network.people["reader"], room.case_id)[0]
        node_id = session.get_one(CaseSupplement, asked.request_id).node_id
        said = MoreAnswer(taken=False, reason="The hospital's policy does not allow it.")
        supplements.answer(session, node_id=node_id, request_id=asked.request_id, said=said)
    expect(page.locator("#more-cells li.refused")).to_contain_text("does not allow it", timeout=15_000)
    expect(page.get_by_role("button", name="Count 100 more")).to_be_enabled()
    assert asked.state is MoreState.ASKED


def test_who_lost_the_case_is_told_at_once(room: Room, browser: Browser, address: str) -> None:
    second = colleague(browser, address)
    second.goto(f"/cases/{room.case_id}")
    second.get_by_role("button", name="Take over").click()
    second.get_by_role("button", name="Take it over").click()
    second.wait_for_selector("#open-sign")
    expect(room.page.get_by_text("Dr. M. Osei has taken this case over")).to_be_visible(timeout=15_000)
    second.context.close()


def _count_on(room: Room, smear: DrawnSmear, flags: tuple[Flag, ...]) -> None:
    """Have the hospital's node send as much again, with which the whole smear has these flags."""
    runtime = room.network.centre.runtime
    with runtime.database.session() as session:
        asked = supplements.of_case(session, room.network.people["reader"], room.case_id)[0]
        row = session.get_one(CaseSupplement, asked.request_id)
        row.state = MoreState.SENT
    first, before = len(smear.smear.fields), smear.smear
    quality = before.quality.model_copy(update={"white_cells": before.quality.white_cells + len(before.cells)})
    part = before.model_copy(
        update={
            "fields": tuple(
                field.model_copy(update={"path": f"field-{number}.jpg"})
                for number, field in enumerate(before.fields, start=first)
            ),
            "cells": tuple(cell.model_copy(update={"id": f"m{cell.id}"}) for cell in before.cells),
            "flags": flags,
            "quality": quality,
            "limits": {CellClass.EOSINOPHIL: (7.0,), CellClass.LYMPHOCYTE: (0.5, 99.5)},
        }
    )
    pack(
        room.network.nodes["a"], centre_key(room.network.centre), smear=part, case_id=room.case_id,
        request_id=asked.request_id, first_field=first,
        images={f"field-{first + number}.jpg": smear.images[field.path] for number, field in enumerate(before.fields)},
    ).upload(room.network.centre.store)  # fmt: skip
    assert supplements.take_in(runtime, asked.request_id) is MoreState.CAME


def test_flags_that_come_with_more_cells_are_seen_before_anything_is_signed(
    open_room: OpenRoom, drawn: list[DrawnSmear]
) -> None:
    smear = max((one for one in drawn if one.smear.fields and one.smear.flags), key=lambda one: len(one.smear.flags))
    room = open_room(smear)
    page = room.page
    dialog, kept = page.locator("#sign"), smear.smear.flags[0]
    fired = Flag(id="blasts", severity=Severity.CRITICAL, evidence=FlagEvidence(text="Blasts: 3 cells", count=3))
    page.keyboard.press("Shift+M")
    expect(page.locator("#more-cells li")).to_contain_text("asked ")
    room.tile(room.order()[3]).click()
    chosen = room.chosen()
    page.keyboard.press("Control+Enter")
    page.locator("#impression").fill("Left shift.")
    dialog.locator(f'[name=dismissed][value="{kept.id}"]').check()
    decide = dialog.locator(".decide", has=page.locator(f'[name=flag][value="{kept.id}"]'))
    decide.locator("[name=reason]").fill("Known.")
    _count_on(room, smear, (fired, kept))
    # Under the reader's hands nothing changes; once the dialog is closed, everything is anew.
    expect(page.locator("#more-cells li.came")).to_be_attached(timeout=15_000)
    expect(page.locator("#toasts")).to_contain_text("cells more came")
    assert dialog.locator('[name=flag][value="blasts"]').count() == 0
    page.keyboard.press("Escape")
    expect(page.locator("#toasts")).to_contain_text("changed the flags: look at them before you sign")
    flags = page.locator("#panel-flags .flag")
    expect(flags).to_have_count(2)
    expect(flags.first).to_contain_text("Blasts: 3 cells")
    assert room.chosen() == chosen
    # Limits of rules that did not fire are drawn too, and say what the live count makes of them.
    lymphocytes = page.locator("#differential tr", has=page.locator(".c-lymphocyte")).first
    assert lymphocytes.locator(".limit").count() == 2
    eosinophils = page.locator("#differential tr", has=page.locator(".c-eosinophil")).first
    expect(eosinophils.locator(".limit-words")).to_contain_text("limit 7")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#impression")).to_have_value("Left shift.")
    assert [one.get_attribute("value") for one in dialog.locator("[name=flag]").all()] == ["blasts", kept.id]
    expect(dialog.locator(f'[name=dismissed][value="{kept.id}"]')).to_be_checked()
    expect(decide.locator("[name=reason]")).to_have_value("Known.")


def test_flag_that_says_something_else_is_decided_anew_and_nothing_is_signed_before_it_is_loaded(
    open_room: OpenRoom, drawn: list[DrawnSmear]
) -> None:
    smear = next(one for one in drawn if one.smear.fields and one.smear.flags)
    room = open_room(smear)
    page, dialog, flag = room.page, room.page.locator("#sign"), smear.smear.flags[0]
    decide = dialog.locator(".decide", has=page.locator(f'[name=flag][value="{flag.id}"]'))
    page.keyboard.press("Shift+M")
    expect(page.locator("#more-cells li")).to_contain_text("asked ")
    page.keyboard.press("Control+Enter")
    decide.locator("[name=dismissed]").check()
    decide.locator("[name=reason]").fill("Known.")
    page.keyboard.press("Escape")
    page.route(f"**/cases/{room.case_id}", lambda route: route.abort())
    evidence = flag.evidence.model_copy(update={"text": "Now in 9 cells"})
    _count_on(room, smear, (flag.model_copy(update={"evidence": evidence}), *smear.smear.flags[1:]))
    expect(page.locator("#toasts")).to_contain_text("cells more came", timeout=15_000)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#toasts")).to_contain_text("The flags have changed and could not be loaded")
    expect(dialog).to_be_hidden()
    page.unroute(f"**/cases/{room.case_id}")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#toasts")).to_contain_text("changed the flags: look at them before you sign")
    expect(page.locator("#panel-flags")).to_contain_text("Now in 9 cells")
    expect(decide.locator("[name=dismissed]")).not_to_be_checked()
    expect(decide.locator("[name=reason]")).to_have_value("")
    # Nor does a draft put the old word back.
    page.reload()
    page.wait_for_selector(READY)
    page.keyboard.press("Control+Enter")
    expect(dialog).to_be_visible()
    expect(decide.locator("[name=dismissed]")).not_to_be_checked()
    expect(decide.locator("[name=reason]")).to_have_value("")
    room.tell_nothing_of("ERR_FAILED")
