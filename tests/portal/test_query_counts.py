"""A list page asks the database as often for 300 rows as for 3."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import event
from sqlmodel import Session

from server.accounts import invitations
from server.accounts.roles import Role
from server.audit import service as audit
from server.consult import service as consult
from server.consult.schemas import About, Asked
from server.models import Case, Hospital, Node, User, UserSession
from server.models.base import utc_now
from shared.contracts.enrolment import EnrolmentState, NodeMode
from tests.portal.client import Browser
from tests.portal.factories import Network

FEW, MANY = 3, 300


def _people(session: Session, network: Network, number: int) -> None:
    user = User(username=f"person-{number}", display_name=f"Person {number}", role=Role.HEMATOLOGIST, password_hash="x")
    session.add(user)
    session.flush()
    until = utc_now() + timedelta(hours=1)
    session.add(UserSession(id=f"{number:064x}", user_id=user.id, csrf_token="x", expires_at=until))
    invitations.invite(session, actor=network.people["admin"], display_name=f"Guest {number}", role=Role.AUDITOR)


def _entries(session: Session, network: Network, number: int) -> None:
    actor = network.people["reader" if number % 2 else "admin"].actor
    audit.record(session, subject=f"case:HV-{number:08d}", actor=actor, action="case.claimed", data={"number": number})


def _nodes(session: Session, _network: Network, number: int) -> None:
    session.add(Hospital(id=f"h{number}", name=f"Hospital {number}"))
    session.flush()
    session.add(
        Node(
            id=f"node-{number}", hospital_id=f"h{number}", mode=NodeMode.TRAINING, state=EnrolmentState.APPROVED,
            signing_key=f"k{number}", envelope_key="", flower_key="", fingerprint="", software="test",
        )
    )  # fmt: skip


def _cases(session: Session, network: Network, number: int) -> None:
    case = Case(**session.get_one(Case, network.cases[0]).model_dump())
    case.id = f"HV-{number:08d}"
    session.add(case)
    session.flush()
    asked = Asked(text="?", people=[network.people["second"].user_id], key=f"key-{number}")
    consult.ask(session, network.people["reader"], case.id, About(), asked)


@pytest.mark.parametrize(
    ("path", "add", "row"),
    [
        ("/worklist?state=open", _cases, 'id="row-'),
        ("/people", _people, "Person "),
        ("/audit", _entries, "claimed the case"),
        ("/nodes", _nodes, "Hospital "),
    ],
)
def test_as_many_queries_for_300_rows_as_for_3(
    visitor: Browser, network: Network, path: str, add: Callable[[Session, Network, int], None], row: str
) -> None:
    visitor.sign_in("second" if add is _cases else "admin")
    asked, shown = [], []
    for numbers in (range(FEW), range(FEW, MANY)):
        with network.centre.runtime.database.session() as session:
            for number in numbers:
                add(session, network, number)
        count, text = _asked(visitor, network, path)
        asked.append(count)
        shown.append(text.count(row))
    assert asked[0] == asked[1]
    assert shown[1] > 20 * shown[0] or path == "/audit"  # a hundred lines a page


def _asked(visitor: Browser, network: Network, path: str) -> tuple[int, str]:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        # That a session was seen is written down once a minute, whatever the page.
        if statement.startswith("SELECT"):
            statements.append(statement)

    engine = network.centre.runtime.database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        answer = visitor.get(path)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert answer.status_code == 200
    return len(statements), answer.text
