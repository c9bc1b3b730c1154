"""From the key of a class to the screen, and until the centre has it."""

from typing import Final

from playwright.sync_api import Page, expect

from tests.bench.model.say import say
from tests.bench.portal.centre import centre
from tests.bench.portal.opening import CELLS, FIELDS
from tests.bench.portal.section import Measured, Options, Section, middle, most
from tests.bench.portal.smears import smear
from tests.browser.room import READY
from tests.browser.world import chromium, sign_in
from tests.portal.drawn import send_case

_WATCH: Final = """
window.painted = [];
addEventListener('keydown', (event) => {
  if (!/^[1-9]$/.test(event.key)) return;
  const begun = event.timeStamp;
  requestAnimationFrame(() => { const { port1, port2 } = new MessageChannel();
    port2.onmessage = () => painted.push(performance.now() - begun); port1.postMessage(0); });
}, true);
"""
"""A message that is sent in the frame's callback arrives once that frame was laid out and painted."""
_ACKS: Final = """performance.getEntriesByType('resource')
  .filter((one) => one.name.endsWith('/cells') && one.initiatorType === 'fetch').map((one) => one.duration)"""


def measure(options: Options) -> Measured:
    """Claim a case and set one cell after the other, at a fast reader's pace."""
    with centre(options.work) as served:
        send_case(served.network, "a", smear(CELLS, FIELDS))
        with chromium() as browser:
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            page.add_init_script(_WATCH)
            sign_in(page, served.address, "reader-0")
            page.goto(f"{served.address}/cases/{served.network.cases[-1]}")
            page.get_by_role("button", name="Claim to read").click()
            page.wait_for_selector("#open-sign")
            page.wait_for_selector(READY)
            painted, acks = pressed(page, options.keys)
    say(f"keys: {len(painted)} painted, {len(acks)} acknowledged")
    return Measured(
        [
            most("class key to screen, ms (p95)", painted, goal=50),
            middle("class key to screen, ms (median)", painted, goal=None),
            most("the centre's answer, ms (p95)", acks, goal=100),
            middle("the centre's answer, ms (median)", acks, goal=None),
        ]
    )


def pressed(page: Page, count: int) -> tuple[list[float], list[float]]:
    """Set ``count`` cells, one key each; return milliseconds to the screen and of the answers."""
    for number in range(count):
        page.keyboard.press("j")
        page.keyboard.press("36"[number % 2])
        page.wait_for_timeout(150)
    expect(page.locator("#saved")).to_have_text("saved")
    return page.evaluate("window.painted"), page.evaluate(_ACKS)


SECTION = Section(
    "keys",
    "Setting a class by its key",
    "The same case, claimed; a key every 150 ms, alternating between two classes, so that each press moves a cell to "
    "another group. Time runs from the keyboard event until the frame after it was painted; of the answers, from "
    "sending until all of it came.",
    measure,
    (30, 40),
)
