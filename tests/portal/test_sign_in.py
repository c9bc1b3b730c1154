"""Signing in by the pages: the second factor, setting it up, the address's measure, an invitation's link."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx2
import pyotp
import pytest
import time_machine
from fastapi.testclient import TestClient

from portal.main import create_app
from server.accounts import invitations, throttle
from server.accounts.roles import Role
from tests.factories import PASSWORD
from tests.portal.client import Browser, hidden
from tests.portal.factories import Network

NOON = datetime(2026, 11, 26, 12, 0, 10, tzinfo=UTC)
STEP = timedelta(seconds=30)


@pytest.fixture
def strict(network: Network) -> Iterator[Browser]:
    """Nobody, at a portal where everybody at the centre needs a second factor."""
    runtime = network.centre.runtime
    settings = runtime.settings.model_copy(update={"second_factor": "default"})
    with TestClient(create_app(replace(runtime, settings=settings)), follow_redirects=False) as client:
        yield Browser(client)


def _password(browser: Browser, username: str = "reader", back: str = "") -> str:
    """Give name and password; return where that leads."""
    fields = {"csrf_token": hidden(browser.get("/login").text, "csrf_token"), "username": username, "next": back}
    answer = browser.client.post("/login", data={**fields, "password": PASSWORD})
    assert answer.status_code == 303
    return answer.headers["location"]


def _code(browser: Browser, path: str, code: str, back: str = "") -> httpx2.Response:
    form = browser.get(path).text
    token = hidden(form, "csrf_token")
    return browser.client.post(path.split("?")[0], data={"csrf_token": token, "code": code, "next": back})


def _app(page: str) -> pyotp.TOTP:
    found = re.search(r'class="secret">([A-Z2-7 ]+)<', page)
    assert found
    return pyotp.TOTP(found[1].replace(" ", ""))


def test_role_that_must_sets_it_up_and_is_asked_from_then_on(strict: Browser) -> None:
    with time_machine.travel(NOON, tick=False):
        assert _password(strict, back="/reports") == "/login/second-factor?next=%2Freports"
        assert strict.get("/worklist").status_code == 303, "a password alone opens nothing"
        page = strict.get("/login/second-factor").text
        assert '<svg viewBox="0 0' in page
        wrong = _code(strict, "/login/second-factor", "000000")
        assert (wrong.status_code, "not the code the app shows" in wrong.text) == (400, True)
        app = _app(page)
        done = _code(strict, "/login/second-factor", app.at(NOON), back="/reports")
        codes = re.findall(r"<li><code>([a-z0-9-]{19})</code>", done.text)
        assert (done.status_code, len(codes)) == (200, 10)
        assert 'href="/reports"' in done.text
        assert strict.get("/worklist").status_code == 200
    strict.client.cookies.clear()
    with time_machine.travel(NOON + STEP, tick=False):
        assert _password(strict) == "/login/code"
        assert strict.get("/worklist").status_code == 303
        refused = _code(strict, "/login/code", app.at(NOON))
        assert (refused.status_code, 'role="alert"' in refused.text) == (401, True)
        assert _code(strict, "/login/code", app.at(NOON + STEP)).headers["location"] == "/"
        assert strict.get("/worklist").status_code == 200
    strict.client.cookies.clear()
    assert _password(strict) == "/login/code"
    assert _code(strict, "/login/code", codes[0]).status_code == 303
    assert strict.get("/worklist").status_code == 200


def test_hospitals_staff_need_none(strict: Browser, network: Network) -> None:
    network.centre.add_person("it", Role.HOSPITAL_IT, "a")
    assert _password(strict, "it") == "/"
    assert strict.get("/nodes").status_code == 200


@pytest.mark.parametrize("path", ["/login/code", "/login/second-factor"])
def test_second_step_without_the_first_leads_to_the_start(strict: Browser, path: str) -> None:
    assert strict.get(path).headers["location"] == "/login"
    assert strict.client.post(path, data={"code": "123456", "csrf_token": "x"}).status_code in {303, 403}
    assert "hv_session" not in strict.client.cookies


def test_address_that_failed_too_often_is_told_to_wait(visitor: Browser) -> None:
    form = visitor.get("/login").text
    fields = {"csrf_token": hidden(form, "csrf_token"), "username": "nobody-here", "password": "x" * 12}
    # Names that nobody has, so that no account locks first.
    statuses = [visitor.client.post("/login", data=fields).status_code for _ in range(throttle.MOST_FAILURES + 1)]
    assert statuses == [401] * throttle.MOST_FAILURES + [429]
    answer = visitor.client.post("/login", data={**fields, "username": "reader", "password": PASSWORD})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "900")
    assert "Too many attempts from your network failed" in answer.text


def test_invited_person_makes_the_account_and_is_signed_in(visitor: Browser) -> None:
    visitor.sign_in("coordinator")
    answer = visitor.post(
        "/people/invitations", {"display_name": "Dr. N. Ew", "role": "hematologist"}, Accept="application/json"
    )
    path = answer.json()["link"].removeprefix("http://testserver")
    listed = visitor.get("/people").text
    assert "Take back the invitation of Dr. N. Ew" in listed
    assert path not in listed, "the link is told once"
    visitor.client.cookies.clear()
    form = visitor.get(path).text
    assert "Welcome, Dr. N. Ew" in form
    fields = {"csrf_token": hidden(form, "csrf_token"), "username": "new.one", "password": PASSWORD, "again": PASSWORD}
    assert visitor.client.post(path, data={**fields, "again": "differs"}).status_code == 400
    assert visitor.client.post(path, data={**fields, "username": "reader"}).status_code == 409
    assert visitor.client.post(path, data={**fields, "csrf_token": "x"}).status_code == 403
    assert visitor.client.post(path, data=fields).headers["location"] == "/"
    assert visitor.get("/worklist").status_code == 200
    assert visitor.get(path).status_code == 404


def test_invited_person_of_a_strict_role_goes_on_to_the_second_factor(strict: Browser, network: Network) -> None:
    with network.centre.runtime.database.session() as session:
        token, _ = invitations.invite(
            session, actor=network.people["admin"], display_name="Dr. N. Ew", role=Role.HEMATOLOGIST
        )
    path = f"/login/invitation/{token}"
    form = strict.get(path).text
    assert "have your phone at hand" in form
    fields = {"csrf_token": hidden(form, "csrf_token"), "username": "new.one", "password": PASSWORD, "again": PASSWORD}
    assert strict.client.post(path, data=fields).headers["location"] == "/login/second-factor"
    assert strict.get("/login/second-factor").status_code == 200


def test_step_cookie_is_kept_from_scripts_and_other_pages(strict: Browser) -> None:
    fields = {"csrf_token": hidden(strict.get("/login").text, "csrf_token"), "username": "reader"}
    cookie = strict.client.post("/login", data={**fields, "password": PASSWORD}).headers["set-cookie"]
    assert cookie.startswith("hv_step=")
    assert {"HttpOnly", "SameSite=strict", "Path=/login"} <= set(cookie.split("; "))
