"""Who gets where: every route has a rule, every role its pages, every post its token."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import time_machine
from fastapi.routing import APIRoute
from sqlmodel import select
from starlette.routing import BaseRoute

from portal.access import PUBLIC, RULES, UNASKED
from portal.main import create_app
from portal.views import ROUTERS
from portal.views.login import local_path
from server.accounts import service as accounts
from server.models import Run
from tests.portal.client import Browser, hidden
from tests.portal.factories import Network

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PAGES = {
    "worklist": "/worklist",
    "reports": "/reports",
    "rounds": "/rounds",
    "nodes": "/nodes",
    "models": "/models",
    "people": "/people",
    "audit": "/audit",
}
MENUS = {
    "reader": {"worklist", "reports", "models"},
    "coordinator": {"rounds", "nodes", "models", "people"},
    "auditor": {"reports", "rounds", "nodes", "models", "audit"},
    "admin": {"worklist", "reports", "rounds", "nodes", "models", "people", "audit"},
}


def _routes() -> Iterator[APIRoute]:
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            yield route


def test_every_route_has_a_rule_and_every_rule_a_route() -> None:
    assert {route.name for route in _routes()} == set(RULES)


def test_every_route_of_the_app_is_a_view_or_a_static_file(network: Network) -> None:
    def name(route: BaseRoute) -> str:
        return str(getattr(route, "name", ""))

    app = create_app(network.centre.runtime)
    names = {name(route) for route in app.routes if isinstance(route, APIRoute) or name(route) == "static"}
    assert names <= set(RULES) | {"static"} | {""}


def test_only_sign_in_and_health_are_public() -> None:
    public = {name for name, rule in RULES.items() if rule == PUBLIC}
    first, second = {"login", "login_form"}, {"login_code", "login_code_form", "login_set_up", "login_set_up_form"}
    assert public == {*first, *second, "invitation", "invitation_accept", "healthz"}


@pytest.mark.parametrize("path", sorted(PAGES.values()))
def test_page_without_session_leads_to_sign_in(visitor: Browser, path: str) -> None:
    answer = visitor.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={path}")


@pytest.mark.parametrize("path", ["/worklist/events", "/cases/HV-00000000/events"])
def test_stream_without_session_ends_and_brings_no_page(visitor: Browser, path: str) -> None:
    answer = visitor.client.get(path, headers={"Accept": "text/event-stream"})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("username", sorted(MENUS))
def test_each_role_opens_the_pages_of_its_menu_and_no_other(visitor: Browser, username: str) -> None:
    visitor.sign_in(username)
    opened = {name for name, path in PAGES.items() if visitor.get(path).status_code == 200}
    refused = {name for name, path in PAGES.items() if visitor.get(path).status_code == 403}
    assert opened == MENUS[username]
    assert refused == set(PAGES) - MENUS[username]


def test_menu_shows_what_the_role_may_open(visitor: Browser) -> None:
    page = visitor.sign_in("coordinator").get("/models").text
    assert all((f'href="{path}"' in page) is (name in MENUS["coordinator"]) for name, path in PAGES.items())


@pytest.mark.parametrize("token", ["", "wrong"])
def test_post_without_the_sessions_token_is_refused(reader: Browser, network: Network, token: str) -> None:
    answer = reader.client.post(f"/cases/{network.cases[0]}/claim", data={"csrf_token": token})
    assert answer.status_code == 403
    assert network.cases[0] in reader.get("/worklist").text
    assert "Claim to read" in reader.get(f"/cases/{network.cases[0]}").text


def test_login_form_needs_its_own_token(visitor: Browser) -> None:
    visitor.get("/login")
    answer = visitor.client.post("/login", data={"csrf_token": "x" * 43, "username": "reader", "password": "x"})
    assert answer.status_code == 403
    assert "hv_session" not in answer.cookies


def test_wrong_password_says_so_and_keeps_the_name(visitor: Browser) -> None:
    form = visitor.get("/login").text
    answer = visitor.client.post(
        "/login", data={"csrf_token": hidden(form, "csrf_token"), "username": "reader", "password": "wrong"}
    )
    assert answer.status_code == 401
    assert 'value="reader"' in answer.text
    assert 'role="alert"' in answer.text


def test_session_cookie_is_closed_to_scripts_and_ends_with_sign_out(reader: Browser) -> None:
    token = reader.client.cookies["hv_session"]
    assert reader.post("/logout").status_code == 303
    reader.client.cookies.set("hv_session", token)
    assert reader.get("/worklist").status_code == 303


# As whom, and what the pages open there ask for by themselves.
UNASKED_REQUESTS: dict[str, list[tuple[str, str, dict[str, str]]]] = {
    "reader": [
        ("POST", "/cases/{case}/heartbeat", {}),
        ("GET", "/cases/{case}/events?seconds=0", {}),
        ("GET", "/cases/{case}.json", {}),
        ("GET", "/cases/{case}/consult", {}),
        ("GET", "/cases/{case}/findings", {}),
        ("GET", "/cases/{case}/more", {}),
        ("POST", "/cases/{case}/seen", {"group": "neutrophil"}),
        ("POST", "/cases/{case}/consult/seen", {}),
        ("GET", "/worklist/events?seconds=0", {}),
        ("GET", "/worklist/lines?case_id={case}", {}),
    ],
    "coordinator": [("GET", "/rounds/{run}/events", {})],
}
# What people ask for as well: there the page's script says that nobody did.
SAID_TO_BE_UNASKED = {
    "reader": ["/worklist/rows?most=100", "/reports/none"],
    "coordinator": ["/nodes", "/rounds/{run}"],
}


def _alone(browser: Browser, username: str, things: dict[str, str]) -> set[int]:
    """Ask for all that an open page asks for by itself, and return the statuses."""
    answers = [
        browser.get(path.format(**things)) if method == "GET" else browser.post(path.format(**things), fields)
        for method, path, fields in UNASKED_REQUESTS[username]
    ]
    answers += [browser.get(path.format(**things), **{"X-Unasked": "true"}) for path in SAID_TO_BE_UNASKED[username]]
    return {answer.status_code for answer in answers}


def _things(network: Network) -> dict[str, str]:
    with network.centre.runtime.database.session(read_only=True) as session:
        return {"case": network.cases[0], "run": session.exec(select(Run.id)).one()}


def test_every_route_that_pages_ask_for_by_themselves_is_in_the_table() -> None:
    asked = [path.partition("?")[0] for rows in UNASKED_REQUESTS.values() for _, path, _ in rows]
    routes = {route.path.replace("_id", ""): route.name for route in _routes() if route.name in UNASKED}
    assert sorted(asked) == sorted(routes)
    assert set(routes.values()) == UNASKED


@pytest.mark.parametrize("username", sorted(UNASKED_REQUESTS))
def test_page_left_open_alone_ends_after_the_idle_limit(visitor: Browser, network: Network, username: str) -> None:
    things = _things(network)
    with time_machine.travel(NOON, tick=False) as clock:
        visitor.sign_in(username)
        visitor.post(f"/cases/{things['case']}/claim")
        for _ in range(5):
            clock.shift(accounts.IDLE / 6)
            assert not _alone(visitor, username, things) & {303, 401}
        clock.shift(accounts.IDLE / 6)
        assert _alone(visitor, username, things) <= {303, 401}


def test_session_of_a_reader_at_work_goes_on_past_the_idle_limit(visitor: Browser, network: Network) -> None:
    things = _things(network)
    with time_machine.travel(NOON, tick=False) as clock:
        reader = visitor.sign_in("reader")
        reader.post(f"/cases/{things['case']}/claim")
        for _ in range(8):
            clock.shift(accounts.IDLE / 4)
            assert reader.post(f"/cases/{things['case']}/activity", {"keys": "3"}).status_code == 204
            assert not _alone(reader, "reader", things) & {303, 401}


def test_session_cookie_flags(visitor: Browser) -> None:
    form = visitor.get("/login").text
    fields = {"csrf_token": hidden(form, "csrf_token"), "username": "reader"}
    answer = visitor.client.post("/login", data={**fields, "password": "correct horse battery staple 7"})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/\\evil", "javascript:x", "/a\n"])
def test_sign_in_never_leads_away(target: str) -> None:
    assert local_path(target) == "/"
