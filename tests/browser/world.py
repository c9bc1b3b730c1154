"""The portal on a real port over a seeded centre, and Debian's chromium to look at it."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from portal.main import create_app
from server.cases import service as cases
from server.federation import dry_run
from server.federation.schemas import RunPlan
from server.models import Node
from server.reports import service as reports
from server.reports import tasks as report_tasks
from server.reports.schemas import ReportView
from server.reviews import service as reviews
from shared.contracts.case import Priority
from shared.contracts.ontology import CellClass
from shared.contracts.report import Acknowledgement
from tests.factories import PASSWORD
from tests.portal.drawn import draw_smears, send_case
from tests.portal.dry_runs import answer_dry_run
from tests.portal.factories import (
    Network,
    add_hospital,
    add_waiting_node,
    play_round,
    promote_and_install,
    register_model,
    staffed,
    start_run,
)
from tests.reading import look_through, sign_input

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
_LAST_ANSWERS_S = 5


def seeded(folder: Path, *, cases_wanted: int = 7) -> Network:
    """Return a centre in the middle of its work: cases to read, one signed, a model in use, one blocked, a run."""
    network = staffed(folder)
    for hospital in "abc":
        add_hospital(network, hospital)
    add_waiting_node(network)
    with network.centre.runtime.database.session() as session:
        for node in network.nodes.values():
            # Nodes beat every few seconds; these stand still while pictures are taken.
            session.get_one(Node, node.node_id).last_seen_at = datetime.now(UTC) + timedelta(minutes=30)
    first = start_run(network)
    for number in (1, 2, 3):
        play_round(network, first, number, missing="c" if number == 2 else "")
    register_model(network, first, "hv-2026-11-20-1", accuracy=0.91, before=None)
    promote_and_install(network, "hv-2026-11-20-1")
    second = start_run(network)
    for number in (1, 2, 3):
        play_round(network, second, number)
    register_model(network, second, "hv-2026-11-22-1", accuracy=0.94, before=0.91)
    blocked = start_run(network)
    for number in (1, 2, 3):
        play_round(network, blocked, number)
    register_model(network, blocked, "hv-2026-11-24-1", accuracy=0.84, before=0.91)
    with network.centre.runtime.database.session() as session:
        asked = dry_run.start(session, network.people["coordinator"], RunPlan(rounds=5))
    answer_dry_run(network, asked, "a")
    under_way = start_run(network, rounds=6)
    for number in (1, 2, 3):
        play_round(network, under_way, number, missing="b" if number == 2 else "")
    play_round(network, under_way, 4, open_end=True)
    drawn = draw_smears()
    plan = [
        ("a", Priority.STAT, 38),
        ("b", Priority.URGENT, 125),
        ("c", Priority.URGENT, 70),
        ("a", Priority.ROUTINE, 400),
        ("b", Priority.ROUTINE, 220),
        ("c", Priority.STAT, 12),
        ("a", Priority.URGENT, 20),
    ]
    fields = [one for one in drawn if one.smear.fields and one.smear.flags]
    galleries = [one for one in drawn if not one.smear.fields and one.smear.flags]
    for number, (hospital, priority, minutes) in enumerate(plan[:cases_wanted]):
        one = galleries[0] if number == 4 else fields[number % len(fields)]
        send_case(network, hospital, one, priority=priority, minutes_ago=minutes)
    if cases_wanted > 2:
        sign_one(network, network.cases[2])
    if cases_wanted > 3:
        with network.centre.runtime.database.session() as session:
            cases.claim(session, network.people["second"], network.cases[3])
    return network


def sign_one(network: Network, case_id: str) -> str:
    """Read and sign a case, render its report and bring it home; return the report's id."""
    runtime, reader = network.centre.runtime, network.people["reader"]
    with runtime.database.session() as session:
        cases.claim(session, reader, case_id)
        view = cases.case_view(session, reader, case_id)
        moved = [cell.cell_id for cell in view.cells if cell.doubtful][:2] or [view.cells[0].cell_id]
        label = CellClass.MONOCYTE
        reviews.reclassify(session, reader, case_id, cell_ids=moved, label=label, idempotency_key="seeded")
        look_through(session, reader, case_id)
    with runtime.database.session() as session:
        dismissed = {view.flags[-1].id: "The smear is representative."}
        impression = "Left shift with immature granulocytes, no blasts seen. Reactive picture; correlate with CRP."
        signing = sign_input(session, reader, case_id, impression=impression, dismissed=dismissed)
        report_id = reviews.sign(session, reader, runtime, case_id, signing)
    report_tasks.render(runtime, {"report_id": report_id})
    with runtime.database.session() as session:
        report: ReportView = reports.view(session, reader, report_id)
    node = network.nodes[report.hospital_id]
    with runtime.database.session() as session:
        (notice,) = reports.waiting(session, hospital_id=node.hospital_id)
        reports.content(session, runtime, hospital_id=node.hospital_id, node_id=node.node_id, report_id=report_id)
        said = Acknowledgement(version=notice.version, sha256=notice.sha256, labels_joined=len(moved))
        reports.acknowledge(
            session, hospital_id=node.hospital_id, node_id=node.node_id, report_id=report_id, acknowledgement=said
        )
    return report_id


@contextmanager
def serving(network: Network) -> Iterator[str]:
    """Serve the portal from a thread; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = create_app(network.centre.runtime)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_level="critical", ws="none", timeout_graceful_shutdown=_LAST_ANSWERS_S
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline, "the portal did not start"
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        # Not at once: a request torn off in another thread's transaction would raise into whatever test comes next.
        server.should_exit = True
        thread.join(timeout=2 * _LAST_ANSWERS_S)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def sign_in(page: Page, address: str, username: str) -> None:
    """Sign in by the form, from the keyboard."""
    page.goto(f"{address}/login")
    # The field has the focus by itself, but a page in the background may get it late.
    page.locator("input[name=username]").focus()
    page.keyboard.type(username)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "/login" not in url)
