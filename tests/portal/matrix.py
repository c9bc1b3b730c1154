"""The world in which every route is tried by everybody: two hospitals with everything a hospital can have."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from portal.main import create_app
from server.accounts import invitations
from server.accounts import service as accounts
from server.accounts.roles import Role
from server.cases import service as cases
from server.cases.ingest import ingest
from server.federation import dry_run, schedule
from server.federation import service as federation
from server.federation.schedule import When
from server.federation.schemas import RunPlan
from server.models import Case, Node
from server.reports import tasks as reports
from server.reviews import opinions, second_opinions
from server.reviews import service as reviews
from shared.contracts.enrolment import EnrolmentState, NodeMode
from shared.contracts.ontology import CellClass
from shared.crypto.pki import DemoCA
from tests.factories import centre_key, pack
from tests.portal.client import Browser
from tests.portal.factories import (
    SITES,
    Network,
    add_hospital,
    play_round,
    promote_and_install,
    register_model,
    staffed,
    start_run,
)
from tests.reading import look_through, sign_input

OWN, OTHER = "a", "b"
ROLES = ("nobody", "hematologist", "coordinator", "auditor", "admin", "own", "other")
"""The columns: `own` and `other` are the IT staff of hospital a, trying what is a's and what is b's."""


@dataclass
class World:
    """Two hospitals, what is theirs by kind (`case`, `report`, `node`, …), and somebody signed in for every role."""

    network: Network
    app: FastAPI
    client: TestClient
    things: dict[str, dict[str, str]] = field(default_factory=dict)
    """Hospital → kind → id; what belongs to no hospital is the same for both."""
    browsers: dict[str, Browser] = field(default_factory=dict)
    cookies: dict[str, dict[str, str]] = field(default_factory=dict)
    changed: bool = False
    """Something was posted since `keep`."""

    @property
    def file(self) -> Path:
        """The database."""
        return self.network.centre.runtime.settings.home / "centre.sqlite"

    def keep(self) -> None:
        """Remember the database as it is."""
        self.network.centre.runtime.database.dispose()
        shutil.copyfile(self.file, self.file.with_suffix(".kept"))

    def restore_if_changed(self) -> None:
        """Undo what was posted since `keep`."""
        if not self.changed:
            return
        self.network.centre.runtime.database.dispose()
        for tail in ("-wal", "-shm"):
            self.file.with_name(self.file.name + tail).unlink(missing_ok=True)
        shutil.copyfile(self.file.with_suffix(".kept"), self.file)

    def ask(self, column: str, method: str, path: str, fields: Mapping[str, str | list[str]]) -> httpx2.Response:
        """Send a request as the person of a column, with the token of their session."""
        self.client.cookies.clear()
        for name, value in self.cookies.get(column, {}).items():
            self.client.cookies.set(name, value)
        if method == "GET":
            return self.client.get(path)
        token = self.browsers[column].token if column in self.browsers else ""
        return self.client.post(path, data={"csrf_token": token, **fields})


def make_world(folder: Path) -> World:
    """Make it through the real services, and sign everybody in."""
    network = staffed(folder)
    runtime = network.centre.runtime
    DemoCA.create(runtime.settings.keys / "ca")
    for hospital in (OWN, OTHER):
        add_hospital(network, hospital)
        network.people[f"it-{hospital}"] = network.centre.add_person(
            f"it-{hospital}", Role.HOSPITAL_IT, hospital, f"Staff of {SITES[hospital]}"
        )
    app = create_app(runtime)
    world = World(network, app, TestClient(app, follow_redirects=False))
    shared = _runs_and_models(network)
    for hospital in (OWN, OTHER):
        world.things[hospital] = {**shared, **_things(network, hospital)}
    people = {"hematologist": "reader", "coordinator": "coordinator", "auditor": "auditor", "admin": "admin"}
    for column, username in {**people, "own": f"it-{OWN}"}.items():
        world.client.cookies.clear()
        world.browsers[column] = Browser(world.client).sign_in(username)
        world.cookies[column] = dict(world.client.cookies)
    _sessions_and_invitations(world)
    world.browsers["other"], world.cookies["other"] = world.browsers["own"], world.cookies["own"]
    world.keep()
    return world


def _sessions_and_invitations(world: World) -> None:
    """Give each hospital's staff a session elsewhere, and have somebody of each invited."""
    admin = world.network.people["admin"]
    with world.network.centre.runtime.database.session() as session:
        for hospital, things in world.things.items():
            _, opened = accounts.open_session(session, things["person"])
            link, invited = invitations.invite(
                session, actor=admin, display_name="Dr. N. Ew", role=Role.HOSPITAL_IT, hospital_id=hospital
            )
            things.update(session=opened.session_id, link=link, invitation=invited.id)


def _runs_and_models(network: Network) -> dict[str, str]:
    runtime, coordinator = network.centre.runtime, network.people["coordinator"]
    for number in (1, 2):
        book = start_run(network, rounds=1)
        play_round(network, book, 1)
        register_model(network, book, f"hv-{number}")
        promote_and_install(network, f"hv-{number}")
    book = start_run(network, rounds=3)
    play_round(network, book, 1)
    with runtime.database.session() as session:
        federation.request_stop(session, coordinator, book.run_id)
        federation.fail(session, book.run_id, "")
        kept = schedule.add(session, coordinator, RunPlan(rounds=2), When(hour=2))
        asked = dry_run.start(session, coordinator, RunPlan(rounds=2))
        dry_run.fail(session, asked, "")
    return {"run": network.runs[0], "stopped": book.run_id, "model": "hv-1", "schedule": kept, "dry_run": asked}


def _things(network: Network, hospital: str) -> dict[str, str]:
    """Give a hospital a case that is being read, one that is signed, and a node that waits."""
    runtime, reader = network.centre.runtime, network.people["reader"]
    found = {"hospital": hospital, "node": f"node-{hospital}", "waiting": f"waiting-{hospital}"}
    found["person"] = network.people[f"it-{hospital}"].user_id
    with runtime.database.session() as session:
        session.add(
            Node(
                id=found["waiting"],
                hospital_id=hospital,
                mode=NodeMode.INFERENCE,
                state=EnrolmentState.PENDING,
                signing_key=f"k{hospital}",
                envelope_key="k",
                flower_key="k",
                fingerprint="3f2a-91bc",
                software="hematovision 0.1.0",
            )
        )
    for kind in ("drawn", "second", "compared"):
        found.update(_blind(network, hospital, kind))
    for kind in ("case", "signed"):
        parcel = pack(network.nodes[hospital], centre_key(network.centre))
        parcel.upload(network.centre.store)
        ingest(runtime, hospital_id=hospital, case_id=parcel.case_id)
        with runtime.database.session() as session:
            cases.claim(session, reader, parcel.case_id)
            view = cases.case_view(session, reader, parcel.case_id)
            found[kind] = parcel.case_id
            reviews.reclassify(
                session, reader, parcel.case_id, cell_ids=["c1"], label=view.cells[-1].current_class,
                idempotency_key=f"first-{parcel.case_id}",
            )  # fmt: skip
    with runtime.database.session() as session:
        look_through(session, reader, found["signed"])
        signing = sign_input(session, reader, found["signed"], impression=f"Read for {SITES[hospital]}.")
        found["report"] = reviews.sign(session, reader, runtime, found["signed"], signing)
    reports.render(runtime, {"report_id": found["report"]})
    return found


def _blind(network: Network, hospital: str, kind: str) -> dict[str, str]:
    """Give a hospital a case to read without the AI, one with an open second opinion, or one with a saved one."""
    runtime, reader, second = network.centre.runtime, network.people["reader"], network.people["second"]
    parcel = pack(network.nodes[hospital], centre_key(network.centre))
    parcel.upload(network.centre.store)
    ingest(runtime, hospital_id=hospital, case_id=parcel.case_id)
    found = {kind: parcel.case_id}
    with runtime.database.session() as session:
        session.get_one(Case, parcel.case_id).blind_drawn = kind == "drawn"
        cases.claim(session, second if kind == "second" else reader, parcel.case_id)
        if kind == "second":
            second_opinions.ask(session, second, parcel.case_id, of=None, question="Blasts?", hides_ai=False)
        if kind == "compared":
            found["opinion"] = second_opinions.ask(
                session, reader, parcel.case_id, of=second.user_id, question="", hides_ai=False
            )
            opinions.classify(
                session,
                second,
                parcel.case_id,
                cell_ids=["c2"],
                label=CellClass.BLAST,
                idempotency_key=found["opinion"],
            )
            opinions.save(session, second, parcel.case_id, text="One blast.", estimate={})
    return found


def start_another_run(world: World) -> str:
    """Have a run under way; return its key."""
    with world.network.centre.runtime.database.session() as session:
        return federation.start_run(session, world.network.people["coordinator"], RunPlan(rounds=3))


def every_route(app: FastAPI) -> dict[str, APIRoute]:
    """Return the routes of an application by name, those of its routers too."""
    found: list[APIRoute] = []
    waiting = list(app.routes)
    while waiting:
        route = waiting.pop()
        # The framework keeps an included router as it is, and looks into it when it is asked.
        waiting += getattr(getattr(route, "original_router", None), "routes", [])
        found += [route] if isinstance(route, APIRoute) else []
    assert len({route.name for route in found}) == len(found), "two routes of one name"
    return {route.name: route for route in found}
