"""The worklist in a real browser: a thousand cases, keys alone, what others do meanwhile, views of one's own."""

import time
from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect

from server.cases import service as cases
from server.cases import worklist
from server.cases.schemas import WorklistFilter
from server.models import Case
from server.models.base import utc_now
from shared.contracts.case import CaseState, Priority
from tests.browser.conftest import OpenRoom
from tests.browser.room import Room
from tests.browser.world import CHROMIUM
from tests.portal.drawn import DrawnSmear
from tests.portal.factories import Network

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: make browser"),
]

THOUSAND = 1000


@pytest.fixture
def listed(open_room: OpenRoom, drawn: list[DrawnSmear]) -> Room:
    """A reader on the worklist, with a case that nobody holds."""
    room = open_room(drawn[0], claim=False)
    room.page.goto("/worklist?state=open")
    room.page.wait_for_selector(".rows tbody tr")
    return room


def add(network: Network, case_id: str, count: int) -> list[str]:
    """Add copies of a case that nobody holds; their names begin alike."""
    made = []
    now = int(time.time()) % 10000
    with network.centre.runtime.database.session() as session:
        pattern = session.get_one(Case, case_id)
        for number in range(count):
            case = Case(**pattern.model_dump())
            case.id = f"HV-{now:04d}{number:04d}"
            case.claimed_by = case.lease_until = case.assigned_to = None
            case.state = CaseState.AVAILABLE
            case.priority = (Priority.URGENT, Priority.ROUTINE)[number % 2]
            case.received_at = utc_now() - timedelta(minutes=number % 200)
            case.due_at = case.received_at + timedelta(hours=(4, 24)[number % 2])
            session.add(case)
            made.append(case.id)
    return made


def close(network: Network, case_ids: list[str]) -> None:
    """Take cases out of every other test's list."""
    with network.centre.runtime.database.session() as session:
        for case_id in case_ids:
            session.get_one(Case, case_id).state = CaseState.RECALLED


def focused(page: Page) -> str:
    """The case whose line has the focus."""
    return str(page.evaluate("document.activeElement.closest('tr')?.dataset.case ?? ''"))


def test_a_thousand_cases_come_as_far_as_one_reads(listed: Room) -> None:
    page = listed.page
    made = add(listed.network, listed.case_id, THOUSAND)
    page.goto("/worklist?state=open")
    page.wait_for_selector(".rows tbody tr")
    rows = page.locator(".rows tbody tr")
    assert rows.count() <= 2 * worklist.PAGE, "no more than a page or two is drawn at first"
    assert page.title().startswith(f"({listed_count(listed)}")
    while page.locator("#more .btn").is_visible():
        before = rows.count()
        page.locator("#more").scroll_into_view_if_needed()
        page.wait_for_function(
            "n => document.querySelectorAll('tbody tr').length > n || document.querySelector('#more .btn').hidden",
            arg=before,
        )
    ids = page.evaluate("[...document.querySelectorAll('.rows tbody tr')].map((row) => row.dataset.case)")
    assert len(ids) == len(set(ids)) == listed_count(listed)
    page.locator("[data-sort=waiting]").click()
    expect(page.locator("[data-sort=waiting]")).to_have_attribute("aria-sort", "ascending")
    close(listed.network, made)


def listed_count(room: Room) -> int:
    with room.network.centre.runtime.database.session(read_only=True) as session:
        return worklist.worklist(session, room.network.people["reader"], WorklistFilter()).to_read


def test_cases_are_chosen_and_assigned_by_keys_alone(listed: Room) -> None:
    page, made = listed.page, add(listed.network, listed.case_id, 4)
    page.goto("/worklist?state=open&search=" + made[0][:7])
    expect(page.locator(".rows tbody tr")).to_have_count(4)
    for key in ("j", "x", "j", "j", "Shift+X"):
        page.keyboard.press(key)
    expect(page.locator("#chosen-count")).to_have_text("3 cases chosen")
    last = focused(page)
    page.keyboard.press("a")
    expect(page.locator("#find-person")).to_be_focused()
    page.keyboard.type("osei")
    page.keyboard.press("Enter")
    expect(page.get_by_text("3 cases assigned to Dr. M. Osei")).to_be_visible()
    expect(page.locator(".reader", has_text="Dr. M. Osei")).to_have_count(3)
    expect(page.locator("#chosen")).to_be_hidden()
    assert last in made
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.keyboard.press("Escape")
    expect(page.locator("#chosen")).to_be_hidden()
    close(listed.network, made)


def test_what_could_not_be_assigned_is_told_and_stays_chosen(listed: Room) -> None:
    page, made = listed.page, add(listed.network, listed.case_id, 2)
    page.goto("/worklist?state=open&search=" + made[0][:7])
    expect(page.locator(".rows tbody tr")).to_have_count(2)
    page.locator("#pick-all").check()
    with listed.network.centre.runtime.database.session() as session:
        cases.claim(session, listed.network.people["second"], made[1])
    page.keyboard.press("a")
    page.locator("#find-person").fill("reader")
    page.keyboard.press("Enter")
    expect(page.locator("#assigned")).to_contain_text("Dr. M. Osei is reading it")
    page.keyboard.press("Escape")
    expect(page.locator("#chosen-count")).to_have_text("1 case chosen")
    close(listed.network, made)


def test_what_others_do_shows_without_losing_place_focus_or_choice(listed: Room) -> None:
    page, made = listed.page, add(listed.network, listed.case_id, 60)
    page.goto("/worklist?state=open&search=" + made[0][:7])
    expect(page.locator(".rows tbody tr")).to_have_count(60)
    page.wait_for_timeout(2500)  # the stream is open, and what it missed was asked for
    for _ in range(30):
        page.keyboard.press("j")
    page.keyboard.press("x")
    page.wait_for_timeout(1500)  # a browser that is short of time scrolls after the keys
    here, scrolled = focused(page), page.evaluate("scrollY")
    line = page.locator(f"#row-{here}")
    with listed.network.centre.runtime.database.session() as session:
        second = listed.network.people["second"]
        cases.claim(session, second, here)
        gone = next(one for one in made if one != here)
        session.get_one(Case, gone).state = CaseState.RECALLED
    expect(line.locator(".reader")).to_contain_text("Dr. M. Osei reading", timeout=15_000)
    expect(page.locator(f"#row-{gone}")).to_have_count(0, timeout=15_000)
    assert (focused(page), page.evaluate("scrollY")) == (here, scrolled)
    expect(line.locator(".pick input")).to_be_checked()
    close(listed.network, made)


def test_list_that_could_not_be_asked_for_is_asked_for_again(listed: Room) -> None:
    page, made = listed.page, add(listed.network, listed.case_id, 2)
    page.goto("/worklist?state=open&search=" + made[0][:7])
    expect(page.locator(".rows tbody tr")).to_have_count(2)
    page.wait_for_timeout(2500)  # the stream is open, and what it missed was asked for
    page.route("**/worklist/lines*", lambda route: route.abort())
    page.route("**/worklist/rows*", lambda route: route.abort())
    with listed.network.centre.runtime.database.session() as session:
        cases.claim(session, listed.network.people["second"], made[0])
    expect(page.get_by_text("The list is not up to date")).to_be_visible(timeout=15_000)
    page.unroute("**/worklist/lines*")
    page.unroute("**/worklist/rows*")
    expect(page.locator(f"#row-{made[0]} .reader")).to_contain_text("Dr. M. Osei reading", timeout=20_000)
    listed.tell_nothing_of("ERR_FAILED")
    close(listed.network, made)


def test_more_lines_at_once_than_are_told_at_once(listed: Room) -> None:
    page, made = listed.page, add(listed.network, listed.case_id, 250)
    page.goto("/worklist?state=open&search=" + made[0][:7])
    expect(page.locator(".rows tbody tr")).to_have_count(worklist.PAGE)
    page.wait_for_timeout(2500)
    told: list[int] = []
    page.on("response", lambda answer: told.append(answer.status))
    with listed.network.centre.runtime.database.session() as session:
        people = listed.network.people
        worklist.assign(session, people["reader"], made, people["second"].user_id)
    expect(page.locator(".reader", has_text="Dr. M. Osei")).to_have_count(worklist.PAGE, timeout=20_000)
    assert 422 not in told
    close(listed.network, made)


def test_view_is_saved_opens_by_itself_is_changed_and_deleted(listed: Room) -> None:
    page = listed.page
    page.locator("#priority").select_option("urgent")
    page.keyboard.press("Escape")
    page.locator("#priority").evaluate("field => field.blur()")
    page.keyboard.press("s")
    page.locator("#view-name").fill("Mine to hurry")
    page.locator("#save-view input[type=checkbox]").check()
    page.keyboard.press("Enter")
    page.wait_for_url("**view=*")
    expect(page.get_by_role("link", name="Mine to hurry")).to_have_attribute("aria-current", "page")
    page.goto("/worklist")
    expect(page.locator("#priority")).to_have_value("urgent")
    page.locator("#priority").select_option("stat")
    with page.expect_navigation():
        page.get_by_role("button", name="Update “Mine to hurry”").click()
    page.goto("/worklist")
    expect(page.locator("#priority")).to_have_value("stat")
    page.get_by_role("button", name="Edit view…").click()
    page.get_by_role("button", name="Delete this view").click()
    page.wait_for_url("**/worklist?state=open")
    expect(page.get_by_role("link", name="Mine to hurry")).to_have_count(0)
