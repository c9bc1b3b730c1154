"""One's own account's page: password, second factor, sessions."""

import re
from datetime import UTC, datetime

import pyotp
import pytest
import time_machine

from server.accounts import service as accounts
from tests.factories import PASSWORD
from tests.portal.client import Browser
from tests.portal.factories import Network
from tests.reading import look_through

NEW = "another good password"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
NOON = datetime(2026, 11, 26, 12, 0, 10, tzinfo=UTC)


@pytest.fixture
def elsewhere(network: Network) -> str:
    """The token of the reader's session on another machine."""
    with network.centre.runtime.database.session() as session:
        return accounts.open_session(session, network.people["reader"].user_id, user_agent=FIREFOX)[0]


def _alive(network: Network, token: str) -> bool:
    with network.centre.runtime.database.session(read_only=True) as session:
        return accounts.principal_for(session, token) is not None


def test_page_lists_the_sessions_and_ends_one(elsewhere: str, reader: Browser, network: Network) -> None:
    page = reader.get("/account").text
    assert page.count("<tr>") == 3
    assert "Firefox on Linux" in page
    (path,) = re.findall(r'action="(/account/sessions/[0-9a-f]{64}/end)"', page)
    assert reader.post(path).headers["location"] == "/account?done=session"
    assert not _alive(network, elsewhere)
    assert "The session has ended." in reader.get("/account?done=session").text
    assert reader.post(path).status_code == 404


def test_all_others_end_at_once(elsewhere: str, reader: Browser, network: Network) -> None:
    assert reader.post("/account/sessions/end-others").status_code == 303
    assert not _alive(network, elsewhere)
    assert "End all others" not in reader.get("/account").text


def test_password_changes_and_the_new_one_signs_in(elsewhere: str, reader: Browser, network: Network) -> None:
    json = {"Accept": "application/json"}
    differ = reader.post("/account/password", {"old": PASSWORD, "new": NEW, "again": "differs"}, **json)
    assert (differ.status_code, differ.json()["message"]) == (400, "The two new passwords differ; try again.")
    wrong = reader.post("/account/password", {"old": "wrong password", "new": NEW, "again": NEW}, **json)
    assert (wrong.status_code, wrong.json()["message"]) == (403, "The password is wrong; try again.")
    assert reader.post("/account/password", {"old": PASSWORD, "new": NEW, "again": NEW}).status_code == 303
    assert not _alive(network, elsewhere)
    reader.client.cookies.clear()
    reader.sign_in("reader", NEW)


def test_second_factor_is_set_up_renewed_and_turned_off(reader: Browser) -> None:
    with time_machine.travel(NOON, tick=False):
        reader.client.cookies.clear()
        reader.sign_in("reader")
        assert reader.post("/account/second-factor", {"password": "wrong password"}).status_code == 403
        assert reader.post("/account/second-factor", {"password": PASSWORD}).status_code == 303
        page = reader.get("/account/second-factor").text
        found = re.search(r'class="secret">([A-Z2-7 ]+)<', page)
        assert found
        app = pyotp.TOTP(found[1].replace(" ", ""))
        wrong = reader.post("/account/second-factor/confirm", {"code": "000000"})
        assert (wrong.status_code, 'class="qr"' in wrong.text) == (400, True)
        codes = reader.post("/account/second-factor/confirm", {"code": app.at(NOON)}).text
        assert len(re.findall(r"<li><code>", codes)) == 10
        assert "10 recovery codes are left" in reader.get("/account").text
        refused = reader.post("/account/recovery-codes", {"password": "wrong password"})
        assert (refused.status_code, "The password is wrong" in refused.text) == (403, True)
        fresh = reader.post("/account/recovery-codes", {"password": PASSWORD}).text
        assert not set(re.findall(r"<li><code>([^<]+)", codes)) & set(re.findall(r"<li><code>([^<]+)", fresh))
        assert reader.post("/account/second-factor/off", {"password": PASSWORD}).status_code == 303
        assert "by password alone" in reader.get("/account?done=off").text


def test_signing_a_report_still_asks_for_the_password(reader: Browser, network: Network) -> None:
    """The second factor opens the session; the signature's second component is the password."""
    case = network.cases[0]
    reader.post(f"/cases/{case}/claim")
    with network.centre.runtime.database.session() as session:
        look_through(session, network.people["reader"], case)
    shown = reader.get(f"/cases/{case}.json").json()
    flags = shown["flags"]
    fields: dict[str, str | list[str]] = {
        "impression": "Nothing of note.", "case_version": str(shown["version"]),
        "flag": [flag["id"] for flag in flags], "shown": [flag["shown"] for flag in flags],
        "reason": [""] * len(flags), "idempotency_key": "signed-once",
    }  # fmt: skip
    json = {"Accept": "application/json"}
    assert reader.post(f"/cases/{case}/sign", {**fields, "password": "123456"}, **json).status_code == 401
    assert reader.post(f"/cases/{case}/sign", {**fields, "password": PASSWORD}, **json).status_code == 200


def test_administrator_ends_anybodys_sessions_and_resets_the_second_factor(
    visitor: Browser, network: Network, elsewhere: str
) -> None:
    visitor.sign_in("admin")
    person = f"/people/{network.people['reader'].user_id}"
    assert "Firefox on Linux" in visitor.get(person).text
    assert visitor.post(f"{person}/sessions/end").headers["location"] == person
    assert not _alive(network, elsewhere)
    assert "Signed in nowhere." in visitor.get(person).text
    assert visitor.post(f"{person}/second-factor/reset").status_code == 303
    told = visitor.get(f"/audit?subject=user:{network.people['reader'].user_id}", **{"X-Part": "true"}).text
    assert "reset the second factor" in told
    assert "ended sessions" in told
