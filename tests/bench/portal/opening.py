"""Opening a case of 200 cells and 10 fields in Debian's chromium, with nothing in its cache."""

from typing import Any, Final

from playwright.sync_api import Browser, Page

from tests.bench.model.say import say
from tests.bench.portal.centre import centre
from tests.bench.portal.section import Measured, Options, Section, middle
from tests.bench.portal.smears import smear
from tests.browser.world import chromium, sign_in
from tests.portal.drawn import send_case

CELLS: Final = 200
FIELDS: Final = 10
_WATCH: Final = """
window.shown = {};
const look = () => {
  const tiles = [...document.querySelectorAll('.tile img')];
  if (tiles.length) {
    const there = (img) => img.complete && img.naturalWidth > 0;
    const top = tiles[0].getBoundingClientRect().top;
    const row = tiles.filter((img) => Math.abs(img.getBoundingClientRect().top - top) < 2);
    if (!shown.row && row.every(there)) shown.row = performance.now();
    if (!shown.all && tiles.every(there)) {
      shown.all = performance.now();
      document.documentElement.dataset.shown = "all";
    }
  }
  if (!shown.all) requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""
"""Looks at every frame whether the first row's images are there, and whether all are; milliseconds since the address
was asked for."""


def measure(options: Options) -> Measured:
    """Open the case again and again, each time in a browser profile of its own."""
    with centre(options.work) as served:
        send_case(served.network, "a", smear(CELLS, FIELDS))
        case = served.network.cases[-1]
        with chromium() as browser:
            state = signed_in(browser, served.address)
            times = []
            for run in range(options.runs + 1):
                times.append(opened(browser, served.address, state, case))
                say(f"opening {run}: first row {times[-1]['row']:.0f} ms, all {times[-1]['all']:.0f} ms")
    # The first opening also makes the server's own caches: a reader's first case of the day, told apart.
    first, times = times[0], times[1:]
    return Measured(
        [
            middle("first gallery row visible, ms (median)", [one["row"] for one in times], goal=500),
            middle("all thumbnails, ms (median)", [one["all"] for one in times], goal=1500),
        ],
        [f"The first opening after the start took {first['row']:.0f} and {first['all']:.0f} ms; it is not counted."],
    )


def signed_in(browser: Browser, address: str) -> Any:  # Any: playwright's storage state
    """Return the cookies of a reader who has signed in."""
    context = browser.new_context()
    page = context.new_page()
    sign_in(page, address, "reader-0")
    state = context.storage_state()
    context.close()
    return state


def opened(browser: Browser, address: str, state: Any, case: str) -> dict[str, float]:  # Any: as above
    """Open the case with an empty cache; return milliseconds until the first row and until all are there."""
    context = browser.new_context(storage_state=state, viewport={"width": 1440, "height": 900})
    page: Page = context.new_page()
    page.add_init_script(_WATCH)
    page.goto(f"{address}/cases/{case}")
    # By an attribute: the policy lets no text be evaluated in the page.
    page.wait_for_selector("html[data-shown=all]", timeout=120_000, state="attached")
    found: dict[str, float] = page.evaluate("window.shown")
    context.close()
    return found


SECTION = Section(
    "opening",
    "Opening a case",
    f"{CELLS} cells on {FIELDS} fields, the portal as one process on this machine, images in SeaweedFS, SQLite. Every "
    "opening has an empty browser cache; time runs from asking for the address until the images of the first row, and "
    "of all rows, are decoded and in the page, looked at in every frame.",
    measure,
    (40, 60),
)
