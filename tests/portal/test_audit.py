"""The audit's pages: sentences, search, and the walk along the chains."""

import csv
import io
import json
import re
from datetime import UTC, datetime
from html import unescape
from urllib.parse import quote

import pytest
from sqlalchemy import text
from sqlmodel import Session

from portal.audit_words import line
from server.audit import service as audit
from server.audit.schemas import AuditView
from tests.portal.client import Browser
from tests.portal.factories import Network, promote_and_install

NAMES = {"user:u1": "Dr. A. Reader", "node:n1": "Riverside Clinic, node", "hospital:b": "Riverside Clinic"}


def _entry(subject: str, actor: str, action: str, **data: object) -> AuditView:
    at = datetime(2026, 11, 23, 4, 5, tzinfo=UTC)
    return AuditView(id=1, subject=subject, seq=3, at=at, actor=actor, actor_name=actor, action=action, data=data)


@pytest.mark.parametrize(
    ("entry", "who", "what", "about"),
    [
        (_entry("user:u1", "user:u1", "account.signed_in"), "Dr. A. Reader", "signed in", "account Dr. A. Reader"),
        (_entry("model:hv-1", "node:n1", "model.held"), "Riverside Clinic, node", "held the model back", "model hv-1"),
        (_entry("case:HV-1", "system", "case.received"), "the centre", "took the case in", "case HV-1"),
        (_entry("run:" + "ab" * 16, "user:u9", "new.kind_of"), "user:u9", "new: kind of", "run " + "ab" * 5),
    ],
)
def test_entry_is_a_sentence(entry: AuditView, who: str, what: str, about: str) -> None:
    told = line(entry, NAMES)
    assert (told.who, told.what, told.about) == (who, what, about)


def test_details_are_plain_words() -> None:
    told = line(
        _entry("model:x", "system", "x", gate=False, sha256="a" * 64, hospital_id="b", cells=["neutrophil"]), NAMES
    )
    assert told.details == [
        ("the gate", "blocks"),
        ("SHA-256", "aaaaaaaaaa…"),
        ("hospital", "Riverside Clinic"),
        ("cells", "neutrophil"),
    ]


def test_search_by_words_and_subject(visitor: Browser, network: Network) -> None:
    promote_and_install(network, "hv-1")
    visitor.sign_in("auditor")
    found = visitor.get("/audit?text=held", **{"X-Part": "true"}).text
    assert "held the model back" in found
    assert "launched the run" not in found
    part = visitor.get("/audit?subject=model:hv-1", **{"X-Part": "true"}).text
    assert "promoted the model" in part
    assert "<html" not in part


def test_intact_chains_are_said_to_hold(visitor: Browser) -> None:
    assert "All chains hold." in visitor.sign_in("auditor").get("/audit/check").text


def test_changed_entry_is_named(visitor: Browser, network: Network) -> None:
    visitor.sign_in("auditor")
    with network.centre.runtime.database.session() as session:
        _tamper(session)
    page = visitor.get("/audit/check").text
    assert "The audit was changed after it was written." in page
    assert f"run:{network.runs[0]} entry 1" in page


def _tamper(session: Session) -> None:
    session.connection().execute(text("UPDATE audit_entry SET actor = 'user:nobody' WHERE action = 'federation.start'"))


@pytest.mark.parametrize("username", ["reader", "coordinator"])
def test_audit_is_for_oversight_only(visitor: Browser, username: str) -> None:
    visitor.sign_in(username)
    assert [visitor.get(path).status_code for path in ("/audit", "/audit/check")] == [403, 403]


def _found(visitor: Browser, query: str) -> str:
    return visitor.get(f"/audit?{query}", **{"X-Part": "true"}).text


def test_search_by_actor_action_and_day(visitor: Browser, network: Network) -> None:
    visitor.sign_in("auditor")
    for who in ("lindqvist", "coordinator", f"user:{network.people['coordinator'].user_id}"):
        assert "launched the run" in _found(visitor, f"actor={who}")
    assert "signed in" not in _found(visitor, "actor=lindqvist")
    only = _found(visitor, "action=federation.start")
    assert (only.count("launched the run"), "signed in" in only) == (1, False)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert "launched the run" in _found(visitor, f"since={today}&until={today}")
    assert "No entry fits" in _found(visitor, "until=2020-01-01")
    assert "No entry fits" in _found(visitor, "since=2099-01-01&until=")
    assert visitor.get("/audit?since=nonsense").status_code == 422


@pytest.mark.parametrize("word", ["100%", "_", "\\"])
def test_search_takes_signs_as_they_are(visitor: Browser, network: Network, word: str) -> None:
    with network.centre.runtime.database.session() as session:
        audit.record(session, subject="case:1", actor="system", action="case.state", data={"note": f"a {word} b"})
        audit.record(session, subject="case:2", actor="system", action="case.state", data={"note": "a 100 b"})
    visitor.sign_in("auditor")
    rows = _found(visitor, f"subject=case:1&text={quote(word)}")
    assert rows.count("moved the case on") == 1
    assert "No entry fits" in _found(visitor, f"subject=case:2&text={quote(word)}")


def test_pages_lead_through_every_entry_once(visitor: Browser, network: Network) -> None:
    with network.centre.runtime.database.session() as session:
        for number in range(250):
            audit.record(session, subject=f"case:N{number:04d}", actor="system", action="case.state", data={})
    visitor.sign_in("auditor")
    query, seen = "action=case.state&text=case:N", []
    while True:
        page = _found(visitor, query)
        seen += re.findall(r'subject=case%3AN(\d{4})"|subject=case:N(\d{4})"', page)
        older = re.search(r'href="/audit\?([^"]+)" rel="next"', page)
        if older is None:
            break
        query = unescape(older[1])
    numbers = [int(first or second) for first, second in seen]
    assert numbers == list(range(249, -1, -1))


def test_export_holds_what_was_searched_for_and_is_audited_itself(visitor: Browser, network: Network) -> None:
    with network.centre.runtime.database.session() as session:
        audit.record(session, subject="case:X1", actor="system", action="case.state", data={"to": "signed"})
        audit.record(session, subject="case:X2", actor="=cmd()", action="case.state", data={})
    visitor.sign_in("auditor")
    assert 'href="/audit.csv?action=case.state"' in _found(visitor, "action=case.state")
    answer = visitor.get("/audit.csv?action=case.state&text=case:X")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith('attachment; filename="audit-')
    lines = list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert lines[0] == ["at", "actor", "name", "action", "subject", "number", "details"]
    assert [(line[1], line[4]) for line in lines[1:]] == [("'=cmd()", "case:X2"), ("system", "case:X1")]
    assert json.loads(lines[2][6]) == {"to": "signed"}
    told = unescape(_found(visitor, "action=audit.exported"))
    assert "exported entries of the audit" in told
    assert "entries 2" in told
    assert "case:X" in told


def test_export_refuses_more_than_a_file_holds(
    visitor: Browser, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "MOST_EXPORTED", 2)
    visitor.sign_in("auditor")
    answer = visitor.get("/audit.csv", Accept="application/json")
    assert (answer.status_code, "shorter time" in answer.json()["message"]) == (400, True)
