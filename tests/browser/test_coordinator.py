"""The coordinator's pages in a real browser: a run that changes while it is watched, a kit, a decision refused."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import ConsoleMessage, Page, expect

from shared.crypto.pki import DemoCA
from tests.browser.world import CHROMIUM, chromium, serving, sign_in
from tests.portal.factories import Network, play_round, register_model, start_run
from tests.portal.seeds_rounds import seed_network

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed: make browser"),
]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    made = seed_network(tmp_path_factory.mktemp("centre"))
    DemoCA.create(made.centre.runtime.settings.keys / "ca")
    yield made
    made.centre.runtime.database.dispose()


@pytest.fixture(scope="module")
def page(network: Network) -> Iterator[Page]:
    """A coordinator's page; a breach of the content security policy or a script's error fails the module."""
    complaints: list[str] = []

    def complain(message: ConsoleMessage) -> None:
        # A refused form (409) is told by the browser too; everything else is a fault.
        if message.type in {"error", "warning"} and "status of 409" not in message.text:
            complaints.append(message.text)

    with serving(network) as address, chromium() as browser:
        opened = browser.new_context(base_url=address, viewport={"width": 1440, "height": 900}).new_page()
        opened.on("console", complain)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        sign_in(opened, address, "coordinator")
        yield opened
    assert complaints == []


def test_run_is_watched_without_a_reload_and_survives_one(page: Page, network: Network) -> None:
    book = start_run(network, rounds=3)
    page.goto(f"/rounds/{book.run_id}")
    expect(page.get_by_text("The first round has not begun")).to_be_visible()
    page.evaluate("window.here = true")
    play_round(network, book, 1)
    expect(page.locator(".told")).to_contain_text("Round 1 of 3 · 3 of 3 hospitals replied")
    expect(page.locator("#plot-accuracy canvas")).to_be_visible()
    page.get_by_text("Accuracy in figures").click()
    play_round(network, book, 2, open_end=True)
    expect(page.locator(".told")).to_contain_text("Round 2 of 3 · 2 of 3 hospitals replied")
    expect(page.locator("#figures-accuracy thead th")).to_have_count(3)
    expect(page.locator("#figures-accuracy table")).to_be_visible()
    expect(page.locator("#log li").first).to_contain_text("b trained on")
    assert page.evaluate("window.here") is True

    lines = page.locator("#log li").count()
    page.reload()
    expect(page.locator("#log li")).to_have_count(lines)
    book.end_round(2)
    play_round(network, book, 3)
    register_model(network, book, "hv-live")
    expect(page.get_by_role("heading", level=1)).to_have_text("The run is complete")
    expect(page.get_by_role("heading", name="The candidate at every hospital")).to_be_visible()
    expect(page.get_by_role("link", name="Decide on the model")).to_be_visible()
    answers = page.locator(".scroll-x:has(> .answers)")
    assert answers.evaluate("shown => shown.scrollWidth - shown.clientWidth") <= 0, "a column is cut off"


def test_plan_shows_the_settings_of_what_is_chosen_alone(page: Page) -> None:
    page.goto("/rounds")
    page.get_by_text("Strategy: how").click()
    page.get_by_text("Privacy: what").click()
    noise = page.get_by_label("ε", exact=True).first
    expect(noise).to_be_hidden()
    page.get_by_role("radio", name="Noise at the hospitals").check()
    expect(noise).to_be_visible()
    share = page.get_by_label("Largest update").first
    expect(share).to_be_visible()
    page.get_by_role("radio", name="Trimmed mean").check()
    expect(share).to_be_hidden()


def test_kit_is_downloaded_once_and_the_next_step_told(page: Page) -> None:
    page.goto("/nodes")
    page.get_by_role("button", name="Invite a hospital…").click()
    page.get_by_label("Name of the hospital").fill("Harbour Hospital")
    page.get_by_label("Short name, for files and commands").fill("harbour")
    with page.expect_download() as download:
        page.get_by_role("button", name="Make the kit and download it").click()
    assert download.value.suggested_filename == "kit-harbour.json"
    assert json.loads(Path(download.value.path()).read_text())["hospital_id"] == "harbour"
    expect(page.get_by_text("hematovision-node init --home DIR --kit kit-harbour.json")).to_be_visible()
    page.get_by_role("button", name="Close").last.click()
    expect(page.get_by_text("Harbour Hospital")).to_be_visible(timeout=15_000)


def test_refusal_is_told_beside_the_form(page: Page) -> None:
    page.goto("/nodes")
    page.get_by_role("button", name="Invite a hospital…").click()
    page.get_by_label("Name of the hospital").fill("Another name")
    page.get_by_label("Short name, for files and commands").fill("a")
    page.get_by_role("button", name="Make the kit and download it").click()
    expect(page.get_by_role("alert")).to_contain_text("is known as “St. Elisabeth Hospital”")
    expect(page.get_by_label("Name of the hospital")).to_have_value("Another name")
    page.keyboard.press("Escape")


def test_node_is_let_in_after_the_comparison_is_confirmed(page: Page) -> None:
    page.goto("/nodes")
    page.get_by_role("link", name="Compare and decide").click()
    approve = page.get_by_role("button", name="Approve the node")
    approve.click()
    expect(page).to_have_url(re.compile("/nodes/node-d$"))
    page.get_by_label("The hospital read out the same eight groups to me").check()
    approve.click()
    expect(page.get_by_role("link", name="Compare and decide")).to_have_count(0)
    expect(page.get_by_role("article", name="Island Medical Centre")).to_contain_text("never seen")
