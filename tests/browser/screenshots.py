"""A picture of every page and state, light and dark, in three sizes: ``python -m tests.browser.screenshots [WORD …]``.

Each is at most 300 KB: one that is larger, for the smear in it, is a JPEG, whose colours are true.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyotp
from PIL import Image
from playwright.sync_api import Browser, Page
from rich.console import Console

from server.accounts import invitations
from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.models import User
from server.reports import service as reports
from server.reviews import second_opinions
from tests.browser import states as do
from tests.browser.crowd import crowded
from tests.browser.opinions import asked_case, begun_blind, blind_case, weeks_of_figures, with_overlays
from tests.browser.states import States, in_all_states
from tests.browser.world import chromium, seeded, serving, sign_in
from tests.factories import PASSWORD
from tests.portal.drawn import draw_smears
from tests.portal.factories import Network, staffed

OUT = Path("build/screenshots")
SIZES = ((1440, 900), (1280, 720), (1024, 768))
MOST_BYTES: Final = 300_000


@dataclass(frozen=True)
class Shot:
    """One page as one person sees it."""

    name: str
    path: str
    username: str = ""
    act: Callable[[Page], None] | None = None
    whole: bool = False


def shots(network: Network, states: States) -> list[Shot]:
    """Return every picture to take."""
    case, taken, gallery = network.cases[0], network.cases[3], network.cases[4]
    _, second, live = network.runs
    blind, asked, given = network.cases[7:10]
    with network.centre.runtime.database.session(read_only=True) as session:
        report = reports.versions(session, network.people["reader"], network.cases[2])[0].id
        opinion = second_opinions.opinions(session, network.people["reader"], given)[0].id
    with network.centre.runtime.database.session() as session:
        link, _ = invitations.invite(
            session, actor=network.people["admin"], display_name="Dr. K. Haddad", role=Role.HEMATOLOGIST
        )
    return [
        Shot("login", "/login"),
        Shot("login-refused", "/login", act=_wrong_password),
        Shot("worklist", "/worklist", "reader"),
        Shot("worklist-none", "/worklist?search=nothing", "reader"),
        Shot("worklist-all", "/worklist?state=all", "reader"),
        Shot("worklist-lost", "/worklist", "reader", _no_connection),
        Shot("worklist-assign", "/worklist", "reader", do.assign_cases),
        Shot("worklist-chosen", "/worklist", "reader", do.choose_cases),
        Shot("worklist-view", "/worklist?priority=stat", "reader", do.save_view),
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
        Shot("reading-classes", f"/cases/{case}", "reader", _classes),
        Shot("reading-expired", f"/cases/{case}", "reader", _expired),
        Shot("reading-facts", f"/cases/{case}", "reader", lambda page: page.keyboard.press("q")),
        Shot("reading-red-cells", f"/cases/{case}", "reader", _red_cells),
        Shot("reading-malaria", f"/cases/{case}", "reader", _malaria),
        Shot("reading-glass", f"/cases/{case}", "reader", _glass),
        Shot("reading-sign", f"/cases/{case}", "reader", _ready_to_sign),
        Shot("reading-consult", f"/cases/{states.discussed}", "reader", do.ask_colleague),
        Shot("reading-more", f"/cases/{states.discussed}", "reader", do.show_requests),
        *(
            Shot(f"reading-found-{name.lower()}", f"/cases/{states.entered}", "reader", do.open_panel(name))
            for name in ("Red", "Platelets", "Malaria")
        ),
        Shot("reading-amending", f"/cases/{states.amended}", "reader"),
        Shot("reading-amend-sign", f"/cases/{states.amended}", "reader", _open_sign),
        Shot("reading-conflict", f"/cases/{states.entered}", "reader", _claimed(do.meet_conflict)),
        Shot("reading-offline", f"/cases/{states.entered}", "reader", _claimed(do.lose_connection)),
        Shot("reading-blind", f"/cases/{blind}", "reader"),
        Shot("reading-blind-save", f"/cases/{blind}", "reader", _open_sign),
        Shot("reading-second", f"/cases/{asked}", "second"),
        Shot("reading-asked", f"/cases/{asked}", "reader", _ask),
        Shot("reading-why", f"/cases/{asked}", "reader", _why),
        Shot("opinion", f"/cases/{given}/opinions/{opinion}", "reader", whole=True),
        Shot("insights", "/insights", "coordinator", whole=True),
        Shot("insights-reader", "/insights", "reader", whole=True),
        Shot("reports", "/reports", "reader"),
        Shot("report", f"/reports/{report}", "reader", whole=True),
        Shot("report-findings", f"/reports/{states.reported}", "reader", whole=True),
        Shot("report-glass", f"/reports/{states.glass}", "reader", whole=True),
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
        Shot("nodes-invite", "/nodes", "coordinator", _invite_hospital),
        Shot("node", f"/nodes/{network.nodes['b'].node_id}", "coordinator", whole=True),
        Shot("node-waiting", "/nodes/node-d", "coordinator"),
        Shot("turnaround", "/turnaround", "coordinator", whole=True),
        Shot("people", "/people", "admin"),
        Shot("people-invite", "/people", "admin", _invite),
        Shot("person", f"/people/{network.people['reader'].user_id}", "admin"),
        Shot("people-add", "/people", "admin", _add_person),
        Shot("account", "/account", "reader", whole=True),
        Shot("second-factor", "/account", "second", _second_factor),
        Shot("recovery-codes", "/account", "second", _recovery_codes(network)),
        Shot("invitation", f"/login/invitation/{link}"),
        Shot("invitation-over", "/login/invitation/none"),
        Shot("audit", "/audit", "auditor"),
        Shot("audit-found", f"/audit?subject=case:{network.cases[2]}", "auditor"),
        Shot("audit-none", "/audit?text=nothing-like-it", "auditor"),
        Shot("audit-check", "/audit/check", "auditor"),
        Shot("forbidden", "/people", "reader"),
        Shot("not-found", "/nowhere", "reader"),
    ]


def bare() -> list[Shot]:
    """Return the pictures of a centre in which nothing has happened yet."""
    admin = [
        Shot(f"empty-{name}", f"/{name}", "admin")
        for name in ("worklist", "reports", "insights", "rounds", "models", "nodes", "turnaround")
    ]
    return [
        *admin,
        Shot("empty-people", "/people", "admin"),
        Shot("empty-audit", "/audit?action=case.signed", "auditor"),
    ]


def crowded_pictured(folder: Path) -> tuple[Network, list[Shot]]:
    """Return a centre with a thousand cases, and names as long as there are, and its pictures."""
    network = crowded(folder)
    return network, [
        Shot("crowd-worklist", "/worklist", "reader"),
        Shot("crowd-reading", f"/cases/{network.cases[0]}", "reader"),
        Shot("crowd-turnaround", "/turnaround", "coordinator", whole=True),
        Shot("crowd-nodes", "/nodes", "coordinator"),
        Shot("crowd-people", "/people", "admin"),
        Shot("crowd-audit", "/audit", "auditor"),
    ]


def pictured(folder: Path) -> tuple[Network, list[Shot]]:
    """Return a centre with blind readings, opinions, weeks of figures and further states, and its pictures."""
    network = seeded(folder)
    smears = [with_overlays(one) for one in draw_smears() if one.smear.fields and one.smear.flags]
    begun_blind(network, blind_case(network, smears[0]))
    asked_case(network, smears[-1], given=False)
    weeks_of_figures(network, asked_case(network, smears[0], given=True))
    return network, shots(network, in_all_states(network, smears))


def _ask(page: Page) -> None:
    page.get_by_role("button", name="Withdraw the request").scroll_into_view_if_needed()


def _why(page: Page) -> None:
    page.wait_for_selector(".tile")
    page.keyboard.press(".")
    page.keyboard.press("y")
    page.wait_for_timeout(500)


def _claim(page: Page) -> None:
    if page.get_by_role("button", name="Claim to read").count():
        page.get_by_role("button", name="Claim to read").click()
        page.wait_for_selector("#open-sign, #open-blind")
    page.wait_for_selector(".tile")


def _claimed(act: Callable[[Page], None]) -> Callable[[Page], None]:
    def done(page: Page) -> None:
        _claim(page)
        act(page)

    return done


def _read(page: Page) -> None:
    _claim(page)
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
    page.locator("dialog[open]").get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Show the code to scan").click()
    page.get_by_label("Six digits").wait_for()


def _recovery_codes(network: Network) -> Callable[[Page], None]:
    def shown(page: Page) -> None:
        _second_factor(page)
        secret = "".join(page.locator(".secret").inner_text().split())
        page.get_by_label("Six digits").fill(pyotp.TOTP(secret).now())
        page.get_by_role("button", name="Put it in force").click()
        page.get_by_role("list", name="Recovery codes").wait_for()
        _without_second_factor(network, network.people["second"])

    return shown


def _without_second_factor(network: Network, person: Principal) -> None:
    """As before: the same person is signed in again by password alone, in another theme and size."""
    with network.centre.runtime.database.session() as session:
        user = session.get_one(User, person.user_id)
        user.totp_sealed = user.totp_pending = None


def _wrong_password(page: Page) -> None:
    page.get_by_label("User name").fill("nobody")
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()


def _no_connection(page: Page) -> None:
    page.context.set_offline(True)
    page.select_option("#state", "all")
    page.locator(".toast").wait_for()
    page.context.set_offline(False)


def _invite_hospital(page: Page) -> None:
    page.get_by_role("button", name="Invite a hospital…").click()


def _add_person(page: Page) -> None:
    page.get_by_role("button", name="Add with a password…").click()


def _classes(page: Page) -> None:
    _claim(page)
    page.keyboard.press("0")
    page.wait_for_selector("#classes[open]")


def _expired(page: Page) -> None:
    _claim(page)
    page.route("**/heartbeat", lambda route: route.fulfill(status=401, json={"message": "Your session has ended."}))
    page.route("**/cells", lambda route: route.fulfill(status=401, json={"message": "Your session has ended."}))
    page.keyboard.press(".")
    page.keyboard.press("6")
    page.wait_for_selector("#expired[open]")
    page.unroute_all()


def _ready_to_sign(page: Page) -> None:
    _claim(page)
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
    page.wait_for_selector(".tile")
    if not page.locator(".tile.human").count():
        _read(page)
    page.locator(".tile.human").first.click()
    page.keyboard.press("h")
    page.wait_for_timeout(500)


def _open_plan(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    page.wait_for_timeout(250)


def _open_sign(page: Page) -> None:
    _claim(page)  # the claim may have lapsed while other pictures were taken
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
                page.unroute_all()
                taken.append(_light(target))
            for page in contexts.values():
                page.context.close()
    return taken


def _light(picture: Path) -> Path:
    """Return the picture, as a JPEG where smears make it heavy: a palette would falsify the hues of classes."""
    if picture.stat().st_size <= MOST_BYTES:
        return picture
    lighter = picture.with_suffix(".jpg")
    with Image.open(picture) as opened:
        opened.convert("RGB").save(lighter, quality=86, subsampling=0, optimize=True)
    picture.unlink()
    return lighter


def main(words: list[str]) -> None:
    """Take every picture, or those whose name holds one of ``words``."""
    console = Console(stderr=True)
    OUT.mkdir(parents=True, exist_ok=True)

    def wanted(shots: list[Shot]) -> list[Shot]:
        return [shot for shot in shots if not words or any(word in shot.name for word in words)]

    with tempfile.TemporaryDirectory(prefix="hematovision-shots-") as folder:
        full, none, many = (Path(folder) / name for name in ("full", "empty", "crowded"))
        for place in (full, none, many):
            place.mkdir()
        # Seeded before the browser starts: its event loop would forbid the PDF signer's.
        worlds = (pictured(full), (staffed(none), bare()), crowded_pictured(many))
        taken: list[Path] = []
        with chromium() as browser:
            for world, its in worlds:
                if asked := wanted(its):
                    with serving(world) as address:
                        taken += take(browser, address, asked)
        for made, _ in worlds:
            made.centre.runtime.database.dispose()
    heavy = [picture.name for picture in taken if picture.stat().st_size > MOST_BYTES]
    console.print(f"{len(taken)} pictures in {OUT}" + (f"; above 300 KB: {', '.join(heavy)}" if heavy else ""))


if __name__ == "__main__":
    main(sys.argv[1:])
