"""A picture of every page, light and dark, in two sizes: ``python -m tests.browser.screenshots [WORD …]``."""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page
from rich.console import Console

from server.accounts import invitations
from server.accounts.roles import Role
from server.reports import service as reports
from tests.browser.world import chromium, seeded, serving, sign_in
from tests.factories import PASSWORD
from tests.portal.factories import Network, staffed

OUT = Path("build/screenshots")
SIZES = ((1440, 900), (1280, 720), (1024, 768))


@dataclass(frozen=True)
class Shot:
    """One page as one person sees it."""

    name: str
    path: str
    username: str = ""
    act: Callable[[Page], None] | None = None
    whole: bool = False


def shots(network: Network) -> list[Shot]:
    """Return every picture to take."""
    case, taken, gallery = network.cases[0], network.cases[3], network.cases[4]
    _, second, live = network.runs
    with network.centre.runtime.database.session(read_only=True) as session:
        report = reports.list_reports(session, network.people["reader"])[0].id
    with network.centre.runtime.database.session() as session:
        link, _ = invitations.invite(
            session, actor=network.people["admin"], display_name="Dr. K. Haddad", role=Role.HEMATOLOGIST
        )
    return [
        Shot("login", "/login"),
        Shot("worklist", "/worklist", "reader"),
        Shot("worklist-none", "/worklist?search=nothing", "reader"),
        Shot("reading-unclaimed", f"/cases/{taken}", "reader"),
        Shot("reading-gallery-only", f"/cases/{gallery}", "reader"),
        Shot("reading", f"/cases/{case}", "reader", _read),
        Shot("reading-keys", f"/cases/{case}", "reader", lambda page: page.keyboard.press("?")),
        Shot("reading-blocked", f"/cases/{case}", "reader", _open_sign),
        Shot("reading-many", f"/cases/{case}", "reader", _choose_many),
        Shot("reading-mark", f"/cases/{case}", "reader", _mark),
        Shot("reading-menu", f"/cases/{case}", "reader", _menu),
        Shot("reading-compare", f"/cases/{case}", "reader", _compare),
        Shot("reading-history", f"/cases/{case}", "reader", _history),
        Shot("reading-facts", f"/cases/{case}", "reader", lambda page: page.keyboard.press("q")),
        Shot("reading-red-cells", f"/cases/{case}", "reader", _red_cells),
        Shot("reading-malaria", f"/cases/{case}", "reader", _malaria),
        Shot("reading-glass", f"/cases/{case}", "reader", _glass),
        Shot("reading-sign", f"/cases/{case}", "reader", _ready_to_sign),
        Shot("reports", "/reports", "reader"),
        Shot("report", f"/reports/{report}", "reader", whole=True),
        Shot(
            "report-amend",
            f"/reports/{report}",
            "reader",
            lambda page: page.get_by_role("button", name="Amend…").click(),
        ),
        Shot("rounds", "/rounds", "coordinator", whole=True),
        Shot("rounds-plan", "/rounds", "coordinator", _open_plan, whole=True),
        Shot("run-live", f"/rounds/{live}", "coordinator"),
        Shot("run-done", f"/rounds/{second}", "coordinator", whole=True),
        Shot("models", "/models", "coordinator"),
        Shot("model", "/models/hv-2026-11-22-1", "coordinator", whole=True),
        Shot("model-blocked", "/models/hv-2026-11-20-1", "coordinator"),
        Shot("nodes", "/nodes", "coordinator", whole=True),
        Shot("people", "/people", "admin"),
        Shot("people-invite", "/people", "admin", _invite),
        Shot("person", f"/people/{network.people['reader'].user_id}", "admin"),
        Shot("account", "/account", "reader", whole=True),
        Shot("second-factor", "/account", "second", _second_factor),
        Shot("invitation", f"/login/invitation/{link}"),
        Shot("audit", "/audit", "auditor"),
        Shot("not-found", "/nowhere", "reader"),
    ]


def _read(page: Page) -> None:
    if page.get_by_role("button", name="Claim to read").count():
        page.get_by_role("button", name="Claim to read").click()
    page.wait_for_selector(".tile")
    page.keyboard.press(".")
    page.keyboard.press("7")
    page.locator("#saved", has_text="saved").wait_for()
    page.keyboard.press(".")
    page.wait_for_timeout(600)


def _invite(page: Page) -> None:
    page.get_by_role("button", name="Invite somebody…").click()
    page.get_by_label("Name, as it stands on reports").first.fill("Dr. N. Ew")
    page.get_by_role("button", name="Make the link").click()
    page.get_by_role("button", name="Copy the link").wait_for()


def _second_factor(page: Page) -> None:
    page.get_by_role("button", name="Set it up…").click()
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Show the code to scan").click()
    page.get_by_label("Six digits").wait_for()


def _ready_to_sign(page: Page) -> None:
    page.wait_for_selector(".tile")
    page.keyboard.press("Shift+D")
    page.keyboard.press("a")
    while page.locator(".unseen").count():
        page.keyboard.press("Space")
        page.wait_for_timeout(600)
    _open_sign(page)


def _choose_many(page: Page) -> None:
    page.wait_for_selector(".tile")
    tiles = page.locator("[data-group]:not([data-group=unsure]) .tile")
    tiles.first.click()
    tiles.nth(5).click(modifiers=["Shift"])


def _mark(page: Page) -> None:
    page.wait_for_selector(".boxes g")
    page.keyboard.press("n")
    for _ in range(4):
        page.keyboard.press("ArrowLeft")


def _menu(page: Page) -> None:
    page.wait_for_selector(".tile")
    page.locator(".tile").nth(3).click(button="right")


def _compare(page: Page) -> None:
    _choose_many(page)
    page.keyboard.press("v")
    page.wait_for_timeout(800)


def _amend(page: Page) -> None:
    page.get_by_role("button", name="Amend…").click()


def _red_cells(page: Page) -> None:
    page.wait_for_selector(".tile")
    for key in ("s", "2", "ArrowDown", "3"):
        page.keyboard.press(key)
    page.locator("#saved", has_text="saved").wait_for()


def _malaria(page: Page) -> None:
    page.wait_for_selector(".tile")
    page.get_by_role("tab", name="Malaria").click()
    page.locator("#panel-malaria").get_by_label("Seen", exact=True).check()
    page.wait_for_timeout(700)


def _glass(page: Page) -> None:
    page.wait_for_selector(".tile")
    page.keyboard.press("Shift+G")
    page.wait_for_selector("#glass[open]")


def _history(page: Page) -> None:
    page.wait_for_selector(".tile.human")
    page.locator(".tile.human").first.click()
    page.keyboard.press("h")
    page.wait_for_timeout(500)


def _open_plan(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    page.wait_for_timeout(250)


def _open_sign(page: Page) -> None:
    page.wait_for_selector(".tile")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("dialog[open]")


def take(browser: Browser, address: str, wanted: list[Shot]) -> list[Path]:
    """Take the pictures; people sign in once a theme and size."""
    taken = []
    for width, height in SIZES:
        for theme in ("light", "dark"):
            contexts = {}
            for shot in wanted:
                if shot.username not in contexts:
                    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
                    contexts[shot.username] = page = context.new_page()
                    if shot.username:
                        sign_in(page, address, shot.username)
                page = contexts[shot.username]
                page.goto(f"{address}{shot.path}")
                page.wait_for_timeout(500)
                if shot.act:
                    shot.act(page)
                page.wait_for_timeout(250)
                target = OUT / f"{shot.name}-{theme}-{width}.png"
                page.screenshot(path=target, full_page=shot.whole)
                taken.append(target)
            for page in contexts.values():
                page.context.close()
    return taken


def main(words: list[str]) -> None:
    """Take every picture, or those whose name holds one of ``words``."""
    console = Console(stderr=True)
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hematovision-shots-") as folder:
        full, none = Path(folder) / "full", Path(folder) / "empty"
        full.mkdir()
        none.mkdir()
        # Seeded before the browser starts: its event loop would forbid the PDF signer's.
        network, empty = seeded(full), staffed(none)
        wanted = [shot for shot in shots(network) if not words or any(word in shot.name for word in words)]
        bare = [Shot(f"empty-{name}", f"/{name}", "admin") for name in ("worklist", "rounds", "models", "nodes")]
        taken: list[Path] = []
        with chromium() as browser:
            with serving(network) as address:
                taken += take(browser, address, wanted)
            if not words:
                with serving(empty) as address:
                    taken += take(browser, address, bare)
        for made in (network, empty):
            made.centre.runtime.database.dispose()
    console.print(f"{len(taken)} pictures in {OUT}")


if __name__ == "__main__":
    main(sys.argv[1:])
