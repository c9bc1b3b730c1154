"""A picture of every page and state, light and dark, in three sizes: ``python -m tests.browser.screenshots [WORD …]``.

Each is at most 300 KB: one that is larger, for the smear in it, is a JPEG, whose colours are true.
"""

import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyotp
from PIL import Image
from playwright.sync_api import Browser, Page
from rich.console import Console
from sqlmodel import col, select

from server.accounts import invitations, second_factor
from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.cases.lifecycle import LEASE
from server.models import Case, DryRun
from server.models.base import utc_now
from server.reports import service as reports
from server.reviews import second_opinions
from tests.browser import acts
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
QUALITIES: Final = (86, 78, 70, 60)
"""Of a JPEG, the first that is light enough."""


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
    _, second, _, live = network.runs
    blind, asked, given = network.cases[7:10]
    with network.centre.runtime.database.session(read_only=True) as session:
        report = reports.versions(session, network.people["reader"], network.cases[2])[0].id
        opinion = second_opinions.opinions(session, network.people["reader"], given)[0].id
        dry_run = session.exec(select(DryRun)).one().id
    with network.centre.runtime.database.session() as session:
        link, _ = invitations.invite(
            session, actor=network.people["admin"], display_name="Dr. K. Haddad", role=Role.HEMATOLOGIST
        )
    return [
        Shot("login", "/login"),
        Shot("login-refused", "/login", act=acts.wrong_password),
        Shot("login-code", "/login", act=acts.asked_for_code),
        Shot("worklist", "/worklist", "reader"),
        Shot("worklist-none", "/worklist?search=nothing", "reader"),
        Shot("worklist-all", "/worklist?state=all", "reader"),
        Shot("worklist-lost", "/worklist", "reader", acts.no_connection),
        Shot("worklist-assign", "/worklist", "reader", do.assign_cases),
        Shot("worklist-chosen", "/worklist", "reader", do.choose_cases),
        Shot("worklist-view", "/worklist?priority=stat", "reader", do.save_view),
        Shot("reading-unclaimed", f"/cases/{taken}", "reader"),
        Shot("reading-take-over", f"/cases/{taken}", "reader", acts.take_over),
        Shot("reading-gallery-only", f"/cases/{gallery}", "reader"),
        Shot("reading", f"/cases/{case}", "reader", acts.read),
        Shot("reading-keys", f"/cases/{case}", "reader", lambda page: page.keyboard.press("?")),
        Shot("reading-blocked", f"/cases/{case}", "reader", acts.open_sign),
        Shot("reading-many", f"/cases/{case}", "reader", acts.choose_many),
        Shot("reading-mark", f"/cases/{case}", "reader", acts.mark),
        Shot("reading-menu", f"/cases/{case}", "reader", acts.menu),
        Shot("reading-compare", f"/cases/{case}", "reader", acts.compare),
        Shot("reading-history", f"/cases/{case}", "reader", acts.history),
        Shot("reading-classes", f"/cases/{case}", "reader", acts.classes),
        Shot("reading-expired", f"/cases/{case}", "reader", acts.expired),
        Shot("reading-facts", f"/cases/{case}", "reader", lambda page: page.keyboard.press("q")),
        Shot("reading-red-cells", f"/cases/{case}", "reader", acts.red_cells),
        Shot("reading-malaria", f"/cases/{case}", "reader", acts.malaria),
        Shot("reading-glass", f"/cases/{case}", "reader", acts.glass),
        Shot("reading-sign", f"/cases/{case}", "reader", acts.ready_to_sign),
        Shot("reading-consult", f"/cases/{states.discussed}", "reader", do.ask_colleague),
        Shot("reading-more", f"/cases/{states.discussed}", "reader", do.show_requests),
        *(
            Shot(f"reading-found-{name.lower()}", f"/cases/{states.entered}", "reader", do.open_panel(name))
            for name in ("Red", "Platelets", "Malaria")
        ),
        Shot("reading-amending", f"/cases/{states.amended}", "reader"),
        Shot("reading-amend-sign", f"/cases/{states.amended}", "reader", acts.open_sign),
        Shot("reading-conflict", f"/cases/{states.entered}", "reader", acts.claimed(do.meet_conflict)),
        Shot("reading-offline", f"/cases/{states.entered}", "reader", acts.claimed(do.lose_connection)),
        Shot("reading-sign-out", f"/cases/{states.entered}", "reader", acts.claimed(do.leave_unsent)),
        Shot("reading-draft-offered", f"/cases/{states.entered}", "reader", do.come_back_to_other_text),
        Shot("reading-blind", f"/cases/{blind}", "reader"),
        Shot("reading-blind-save", f"/cases/{blind}", "reader", acts.open_sign),
        Shot("reading-second", f"/cases/{asked}", "second"),
        Shot("reading-asked", f"/cases/{asked}", "reader", acts.ask),
        Shot("reading-why", f"/cases/{asked}", "reader", acts.why),
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
        Shot("rounds-plan", "/rounds", "coordinator", acts.open_plan, whole=True),
        Shot("run-live", f"/rounds/{live}", "coordinator"),
        Shot("run-done", f"/rounds/{second}", "coordinator", whole=True),
        Shot("dry-run", f"/dry-runs/{dry_run}", "coordinator", whole=True),
        Shot("models", "/models", "coordinator"),
        Shot("model", "/models/hv-2026-11-22-1", "coordinator", whole=True),
        Shot("model-current", "/models/hv-2026-11-20-1", "coordinator"),
        Shot("model-blocked", "/models/hv-2026-11-24-1", "coordinator", whole=True),
        Shot("nodes", "/nodes", "coordinator", whole=True),
        Shot("nodes-invite", "/nodes", "coordinator", acts.invite_hospital),
        Shot("node", f"/nodes/{network.nodes['b'].node_id}", "coordinator", whole=True),
        Shot("node-waiting", "/nodes/node-d", "coordinator"),
        Shot("turnaround", "/turnaround", "coordinator", whole=True),
        Shot("people", "/people", "admin"),
        Shot("people-invite", "/people", "admin", acts.invite),
        Shot("person", f"/people/{network.people['reader'].user_id}", "admin"),
        Shot("people-add", "/people", "admin", acts.add_person),
        Shot("account", "/account", "reader", whole=True),
        Shot("second-factor", "/account", "second", acts.second_factor),
        Shot("recovery-codes", "/account", "second", acts.recovery_codes),
        Shot("invitation", f"/login/invitation/{link}"),
        Shot("invitation-over", "/login/invitation/none"),
        Shot("audit", "/audit", "auditor"),
        Shot("audit-found", f"/audit?subject=case:{network.cases[2]}", "auditor"),
        Shot("audit-none", "/audit?text=nothing-like-it", "auditor"),
        Shot("audit-check", "/audit/check", "auditor"),
        *(Shot(f"hospital-{name}", f"/{name}", "local") for name in ("reports", "rounds", "models", "turnaround")),
        Shot("hospital-nodes", "/nodes", "local", whole=True),
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
    network.people["local"] = network.centre.add_person("local", Role.HOSPITAL_IT, "a", "R. Banda")
    _guard(network, network.centre.add_person("guarded", Role.HEMATOLOGIST, name="Dr. Y. Sato"))
    smears = [with_overlays(one) for one in draw_smears() if one.smear.fields and one.smear.flags]
    begun_blind(network, blind_case(network, smears[0]))
    asked_case(network, smears[-1], given=False)
    weeks_of_figures(network, asked_case(network, smears[0], given=True))
    return network, shots(network, in_all_states(network, smears))


class Moment:
    """What a centre's database held when this was made, to be had again: no picture shows what was done for another.

    ``folder``: of the centre, where a copy of the database is kept.
    """

    def __init__(self, network: Network, folder: Path) -> None:
        self._database = network.centre.runtime.database
        self._live = Path(str(self._database.engine.url.database))
        self._kept, self._at = folder / "kept.sqlite", utc_now()
        _copy(self._live, self._kept)

    def again(self) -> None:
        """Put it back; who held a case then holds it from now on."""
        _copy(self._kept, self._live)
        with self._database.session() as session:
            for case in session.exec(select(Case).where(col(Case.lease_until) > self._at)):
                case.lease_until = utc_now() + LEASE


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)


def _guard(network: Network, person: Principal) -> None:
    """Have the person sign in with a second factor from now on."""
    runtime = network.centre.runtime
    with runtime.database.session() as session:
        second_factor.begin(session, runtime, person, PASSWORD)
        secret = second_factor.own_waiting(session, runtime, person).secret.replace(" ", "")
        second_factor.confirm_own(session, runtime, person, pyotp.TOTP(secret).now())


def take(browser: Browser, address: str, wanted: list[Shot], moment: Moment) -> list[Path]:
    """Take the pictures; people sign in once a theme and size, each of which begins with the centre as it was."""
    taken = []
    for width, height in SIZES:
        for theme in ("light", "dark"):
            moment.again()
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
        colours = opened.convert("RGB")
    for quality in QUALITIES:
        colours.save(lighter, quality=quality, subsampling=0, optimize=True)
        if lighter.stat().st_size <= MOST_BYTES:
            break
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
        made = ((full, pictured), (none, lambda place: (staffed(place), bare())), (many, crowded_pictured))
        worlds = []
        for place, seed in made:
            world, its = seed(place)
            worlds.append((world, its, Moment(world, place)))
        taken: list[Path] = []
        with chromium() as browser:
            for world, its, moment in worlds:
                if asked := wanted(its):
                    with serving(world) as address:
                        taken += take(browser, address, asked, moment)
        for world, _, _ in worlds:
            world.centre.runtime.database.dispose()
    heavy = [picture.name for picture in taken if picture.stat().st_size > MOST_BYTES]
    console.print(f"{len(taken)} pictures in {OUT}" + (f"; above 300 KB: {', '.join(heavy)}" if heavy else ""))


if __name__ == "__main__":
    main(sys.argv[1:])
