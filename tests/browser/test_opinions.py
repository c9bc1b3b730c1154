"""A blind first read and a second opinion in a real browser, by keys, and the pages that come of them."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from server.cases import service as cases
from server.reviews import second_opinions
from shared.contracts.ontology import CellClass
from tests.browser.opinions import asked_case, blind_case, weeks_of_figures, with_overlays
from tests.browser.room import READY
from tests.browser.world import CHROMIUM, sign_in
from tests.portal.drawn import DrawnSmear, send_case
from tests.portal.factories import Network, add_hospital

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: make browser"),
]
Visit = Callable[[str, str], Page]


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """Return a function that signs somebody in and opens an address; a complaint of the browser fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def visited(username: str, path: str) -> Page:
        context = browser.new_context(viewport={"width": 1440, "height": 900}, base_url=address)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        sign_in(page, address, username)
        page.goto(path)
        return page

    yield visited
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def smear(drawn: list[DrawnSmear]) -> DrawnSmear:
    """Return a flagged smear with fields, of which the model doubts most."""
    flagged = [one for one in drawn if one.smear.fields and one.smear.flags]
    return with_overlays(max(flagged, key=lambda one: sum(cell.doubtful for cell in one.smear.cells)))


@pytest.fixture(scope="module")
def network(network: Network) -> Network:
    for hospital in "bc":
        if hospital not in network.nodes:
            add_hospital(network, hospital)
    return network


def _saved(page: Page) -> None:
    expect(page.locator("#saved")).to_have_text("saved", timeout=30_000)


def test_blind_first_read_is_taken_over_once_that_was_asked(network: Network, visit: Visit, smear: DrawnSmear) -> None:
    case_id = blind_case(network, smear)
    with network.centre.runtime.database.session() as session:
        cases.claim(session, network.people["second"], case_id)
    page = visit("reader", f"/cases/{case_id}")
    page.wait_for_selector(READY)
    asked = page.get_by_role("dialog", name="Take this case over?")
    page.get_by_role("button", name="Take over…").click()
    expect(asked).to_contain_text("Dr. M. Osei is reading it until")
    page.keyboard.press("Escape")
    expect(asked).to_be_hidden()
    page.keyboard.press("c")
    expect(asked).to_be_visible()
    page.keyboard.press("t")
    page.wait_for_selector("#open-blind")


def test_blind_first_read_by_keys_hides_the_ai_until_it_is_saved(
    network: Network, visit: Visit, smear: DrawnSmear
) -> None:
    case_id = blind_case(network, smear)
    page = visit("reader", f"/cases/{case_id}")
    page.keyboard.press("c")
    page.wait_for_selector("#open-blind")
    expect(page.locator(".group-head")).to_have_count(1)
    expect(page.get_by_role("tab", name="Flags")).to_have_count(0)
    expect(page.locator("[data-does=overlay]")).to_have_count(0)
    told = page.content()
    assert not any(flag.evidence.text in told for flag in smear.smear.flags)
    first, count = page.locator('.tile[tabindex="0"]'), len(smear.smear.cells)
    before = first.get_attribute("data-cell")
    page.keyboard.press("1")  # names the cell and goes on to the next
    page.keyboard.press("8")
    _saved(page)
    assert first.get_attribute("data-cell") != before
    expect(page.locator("#changes")).to_have_text(f"2 of {count} classified")
    page.keyboard.press("u")
    expect(page.locator("#changes")).to_have_text(f"1 of {count} classified")
    page.keyboard.press("r")
    _saved(page)
    page.reload()
    expect(page.locator("#changes")).to_have_text(f"2 of {count} classified")
    page.keyboard.press("n")
    expect(page.locator("#toasts")).to_contain_text("in the open reading")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#blind-text")).to_be_focused()
    page.keyboard.type("One cell looks like a blast.")
    page.locator("#estimate-neutrophil").fill("61,5")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#open-sign")
    expect(page.get_by_role("tab", name="Flags")).to_be_visible()
    expect(page.get_by_text("One cell looks like a blast.").first).to_be_visible()
    with network.centre.runtime.database.session(read_only=True) as session:
        reader = network.people["reader"]
        (kept,) = second_opinions.opinions(session, reader, case_id)
        view = {cell.cell_id: cell for cell in cases.case_view(session, reader, case_id).cells}
    assert kept.estimate == {CellClass.NEUTROPHIL: 61.5}
    assert sorted(kept.labels.values()) == [CellClass.BLAST, CellClass.NEUTROPHIL]
    differing = {cell_id for cell_id, label in kept.labels.items() if view[cell_id].ai_class is not label}
    assert differing
    assert all(view[cell_id].doubtful for cell_id in differing)
    page.get_by_role("button", name="Name them as I did").click()
    _saved(page)
    expect(page.locator("#impression-differs")).to_contain_text("Every cell that you named")


def test_second_opinion_is_asked_given_blind_and_decided_on(network: Network, visit: Visit, smear: DrawnSmear) -> None:
    case_id = send_case(network, "a", smear)
    first = visit("reader", f"/cases/{case_id}")
    first.keyboard.press("c")
    first.wait_for_selector("#open-sign")
    first.wait_for_selector(READY)
    first.keyboard.press("8")  # a blast, which the second must not see
    _saved(first)
    first.get_by_role("button", name="Ask for a second opinion…").click()
    first.locator("dialog[open]").get_by_label("Ask", exact=True).select_option(label="Dr. M. Osei")
    first.get_by_role("button", name="Ask", exact=True).click()
    expect(first.get_by_text("Asked of Dr. M. Osei")).to_be_visible()

    second = visit("second", "/worklist")
    expect(second.get_by_text("second opinion asked of you by Dr. A. Reader").first).to_be_visible()
    second.goto(f"/cases/{case_id}")
    second.wait_for_selector(READY)
    assert second.locator(".tile.human").count() == 0
    assert second.locator('[data-group="blast"]').count() == 0
    second.keyboard.press("Shift+D")
    second.keyboard.press("a")
    _saved(second)
    second.keyboard.press("Control+Enter")
    second.keyboard.type("No blast to my eye.")
    second.keyboard.press("Control+Enter")
    second.wait_for_url("**/opinions/*")
    expect(second.get_by_text("Cohen’s kappa")).to_be_visible()
    expect(second.locator("[data-take]")).to_have_count(0)

    first.goto(f"/cases/{case_id}")
    first.get_by_role("link", name="Dr. M. Osei").click()
    expect(first.get_by_text("No blast to my eye.")).to_be_visible()
    item = first.locator(".differing [data-cell]")
    expect(item).to_have_count(1)
    taken = item.locator("[data-take]").nth(1)
    with first.expect_response("**/cells") as answer:
        taken.click()
    assert answer.value.ok
    expect(taken).to_have_attribute("aria-pressed", "true")
    cell_id, label = item.get_attribute("data-cell"), taken.get_attribute("data-take")
    with network.centre.runtime.database.session(read_only=True) as session:
        view = cases.case_view(session, network.people["reader"], case_id)
    assert next(cell.current_class for cell in view.cells if cell.cell_id == cell_id) == label


def test_opinion_asked_of_anyone_is_taken_on_by_a_key(network: Network, visit: Visit, smear: DrawnSmear) -> None:
    case_id = asked_case(network, smear, given=False, of=None)
    page = visit("second", f"/cases/{case_id}")
    page.wait_for_selector(READY)
    page.keyboard.press("c")
    page.wait_for_selector("#open-blind")
    page.keyboard.press("1")
    _saved(page)


def test_what_the_model_saw_is_off_until_asked(network: Network, visit: Visit, smear: DrawnSmear) -> None:
    case_id = send_case(network, "a", smear)
    page = visit("reader", f"/cases/{case_id}")
    page.wait_for_selector(READY)
    overlay = page.locator("#overlay")
    expect(overlay).to_be_hidden()
    page.keyboard.press(".")
    expect(page.locator("#selected")).to_contain_text(" %, ")
    page.keyboard.press("y")
    expect(overlay.locator("img")).to_be_visible()
    expect(overlay.locator("img")).to_have_js_property("naturalWidth", 192)
    sure = next(cell.id for cell in smear.smear.cells if not cell.doubtful)
    page.locator(f'.tile[data-cell="{sure}"]').click()
    expect(overlay).to_contain_text("no such picture came")
    page.keyboard.press("y")
    expect(overlay).to_be_hidden()


def test_insights_page_draws_agreement_drift_and_time(network: Network, visit: Visit, smear: DrawnSmear) -> None:
    case_id = send_case(network, "a", smear)
    page = visit("coordinator", "/insights")
    expect(page.get_by_text("No case was signed in this time.").first).to_be_visible()
    weeks_of_figures(network, case_id)
    page.reload()
    expect(page.get_by_role("heading", name="Drift of the AI")).to_be_visible()
    assert page.locator("svg.trend .line").count() > 6
    assert page.locator("svg.kappa").count() > 8
    for summary in page.locator("details summary").all():
        summary.click()
    expect(page.get_by_role("columnheader", name="Week of").first).to_be_visible()
    page.get_by_role("link", name="30 days").click()
    page.wait_for_url("**/insights?days=30")
