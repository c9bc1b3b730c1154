"""A list page asks the database as often for 300 rows as for 3."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import pytest
from sqlalchemy import event
from sqlmodel import Session, select

from server.accounts import invitations
from server.accounts.roles import Role
from server.audit import service as audit
from server.cases import service as cases
from server.consult import service as consult
from server.consult.schemas import About, Asked
from server.models import Case, CaseMeasure, Hospital, Node, Report, User, UserSession
from server.models.base import utc_now
from server.models.federation import CensusRecord, RoundRecord, Run
from server.models.registry import ModelSite, ModelVersion, NodeModel
from server.registry.states import ModelState
from server.reviews import service as reviews
from shared.contracts.case import CaseState, Priority
from shared.contracts.enrolment import EnrolmentState, NodeMode
from shared.contracts.training import Census
from tests.factories import make_context
from tests.portal.client import Browser
from tests.portal.factories import Network
from tests.reading import look_through, sign_input

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


def _cases(session: Session, network: Network, number: int) -> None:
    """A case in which a question waits."""
    now, context = utc_now(), make_context()
    session.merge(Hospital(id="crowd", name="Crowd"))
    session.merge(
        Node(
            id="node-crowd", hospital_id="crowd", mode=NodeMode.TRAINING, state=EnrolmentState.APPROVED,
            signing_key="crowd", envelope_key="", flower_key="", fingerprint="", software="test",
        )
    )  # fmt: skip
    session.flush()
    session.add(
        Case(
            id=f"HV-N{number:07d}", hospital_id="crowd", node_id="node-crowd", priority=Priority.ROUTINE,
            state=CaseState.AVAILABLE, model_version="m", patient_pseudonym=f"{number:032x}",
            context=context.model_dump(mode="json"), flags=[], quality={}, differential={}, smear_id="s",
            cell_count=100, doubtful_count=3, manifest={}, due_at=now + timedelta(hours=4),
        )
    )  # fmt: skip
    session.flush()
    asked = Asked(text="?", people=[network.people["second"].user_id], key=f"key-{number}")
    consult.ask(session, network.people["reader"], f"HV-N{number:07d}", About(), asked)


def _nodes(session: Session, _network: Network, number: int) -> None:
    session.add(Hospital(id=f"h{number}", name=f"Hospital {number}"))
    session.flush()
    session.add(
        Node(
            id=f"node-{number}", hospital_id=f"h{number}", mode=NodeMode.TRAINING, state=EnrolmentState.APPROVED,
            signing_key=f"k{number}", envelope_key="", flower_key="", fingerprint="", software="test",
        )
    )  # fmt: skip


def _case(session: Session, network: Network, number: int) -> Case:
    first = session.get_one(Case, network.cases[0])
    case = Case.model_validate({**first.model_dump(), "id": f"HV-{number:08d}"})
    session.add(case)
    session.flush()
    return case


def _models(session: Session, _network: Network, number: int) -> None:
    """A version with its line of the matrix and a node's decision."""
    first = session.get_one(ModelVersion, "hv-1")
    made = {"version": f"hv-n{number}", "state": ModelState.RETIRED}
    session.add(ModelVersion.model_validate({**first.model_dump(), **made}))
    session.flush()
    for site in session.exec(select(ModelSite).where(ModelSite.version == "hv-1")).all():
        session.add(ModelSite.model_validate({**site.model_dump(), "version": f"hv-n{number}"}))
    node = session.exec(select(Node)).first()
    assert node is not None
    session.add(NodeModel(node_id=node.id, version=f"hv-n{number}", decision="installed", reason="better"))


def _reports(session: Session, network: Network, number: int) -> None:
    reader, case_id = network.people["reader"], network.cases[0]
    case = _case(session, network, number)
    first = session.exec(select(Report).where(Report.case_id == case_id)).first()
    if first is None:
        cases.claim(session, reader, case_id)
        look_through(session, reader, case_id)
        signing = sign_input(session, reader, case_id, impression="Left shift.")
        first = session.get_one(Report, reviews.sign(session, reader, network.centre.runtime, case_id, signing))
    session.add(Report.model_validate({**first.model_dump(), "id": f"report-n{number}", "case_id": case.id}))


def _runs(session: Session, network: Network, number: int) -> None:
    first = session.get_one(Run, network.runs[0])
    run = Run.model_validate({**first.model_dump(), "id": f"{number:032x}"})
    session.add(run)
    session.flush()
    for played in session.exec(select(RoundRecord).where(RoundRecord.run_id == first.id)).all():
        session.add(RoundRecord.model_validate({**played.model_dump(), "run_id": run.id}))


def _figures(session: Session, network: Network, number: int) -> None:
    """A signed case's figures, beside a case that they can be of."""
    case = _case(session, network, number)
    reader = network.people["reader" if number % 2 else "second"].user_id
    session.add(
        CaseMeasure(
            case_id=case.id, hospital_id=case.hospital_id, received_at=utc_now(), cells=20, ood_cells=1, set_sizes=22,
            signed_at=utc_now(), reader_id=reader, pairs={"monocyte|monocyte": 19, "monocyte|blast": 1}, seconds=60.0,
        )
    )  # fmt: skip


def _counted(session: Session, network: Network, number: int) -> None:
    """A hospital that has counted its cells, and whose case came in."""
    counted = Census(rows=(), groups=number).model_dump(mode="json", by_alias=True)
    session.add(Hospital(id=f"h{number}", name=f"Counted hospital {number}"))
    session.flush()
    session.add(CensusRecord(hospital_id=f"h{number}", at=utc_now(), census=counted))
    case = _case(session, network, number)
    session.add(
        CaseMeasure(
            case_id=case.id, hospital_id=f"h{number}", received_at=utc_now(), cells=20, ood_cells=1, set_sizes=22
        )
    )


@dataclass(frozen=True)
class List:
    """A list page: how a row is added, and what of it stands on the page."""

    path: str
    add: Callable[[Session, Network, int], None]
    row: str
    person: str = "admin"


LISTS: Final = (
    List("/worklist?state=open", _cases, 'id="row-HV-N', "second"),
    List("/people", _people, "Person "),
    List("/audit", _entries, "claimed the case"),
    List("/nodes", _nodes, "Hospital "),
    List("/insights", _figures, "HV-0000"),
    List("/models", _models, "/models/hv-n"),
    List("/reports", _reports, "/reports/report-n"),
    List("/rounds", _runs, "/rounds/0000", "coordinator"),
    List("/rounds", _counted, "Counted hospital ", "coordinator"),
    List("/turnaround", _figures, "HV-0000"),
)
BOUNDED: Final = {"/audit", "/insights", "/rounds", "/turnaround"}
"""These show a page of the rows, or figures of them."""


@pytest.mark.parametrize("page", LISTS, ids=lambda page: page.path)
def test_as_many_queries_for_300_rows_as_for_3(visitor: Browser, network: Network, page: List) -> None:
    visitor.sign_in(page.person)
    counts, shown = [], []
    for numbers in (range(FEW), range(FEW, MANY)):
        with network.centre.runtime.database.session() as session:
            for number in numbers:
                page.add(session, network, number)
        count, text = asked(visitor, network, page.path)
        counts.append(count)
        shown.append(text.count(page.row))
    assert counts[0] == counts[1]
    assert shown[1] > 20 * shown[0] or page.path in BOUNDED or page.add is _cases


def asked(visitor: Browser, network: Network, path: str) -> tuple[int, str]:
    """Open a page; return how often it asked the database, and its text."""
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
