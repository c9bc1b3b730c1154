"""Where a request's transaction ends, and in which thread."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.testclient import TestClient
from pydantic import BaseModel, field_serializer
from sqlalchemy import event

from portal.main import create_app
from server import deps
from server.app import create_node_api
from server.deps import CommittingRoute, SessionDep
from server.models import Hospital
from server.runtime import Runtime
from tests.portal.matrix import every_route
from tests.server.centres import make_runtime

SESSIONS = {deps.get_session, deps.get_writing_session}


class Answer(BaseModel):
    """A name, that cannot always be put into bytes."""

    name: str

    @field_serializer("name")
    def written(self, name: str) -> str:
        if name == "Unspeakable":
            raise RuntimeError
        WRITTEN_IN.append(threading.get_ident())
        return name


WRITTEN_IN: list[int] = []
WORKED_IN: list[int] = []
router = APIRouter(route_class=CommittingRoute)


@router.post("/{name}", status_code=201)
def add(session: SessionDep, name: str) -> Answer:
    WORKED_IN.append(threading.get_ident())
    session.add(Hospital(id=name.lower(), name=name))
    return Answer(name=name)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = make_runtime(tmp_path)
    WRITTEN_IN.clear()
    WORKED_IN.clear()
    yield made
    made.database.dispose()


@pytest.fixture
def client(runtime: Runtime) -> TestClient:
    app = FastAPI()
    app.state.runtime = runtime
    app.include_router(router)
    return TestClient(app, raise_server_exceptions=False)


def test_work_commit_and_answer_are_done_in_one_thread(runtime: Runtime, client: TestClient) -> None:
    committed_in: list[int] = []
    event.listen(runtime.database.engine, "commit", lambda _connection: committed_in.append(threading.get_ident()))
    answer = client.post("/First")
    assert (answer.status_code, answer.json()) == (201, {"name": "First"})
    assert answer.headers["content-type"] == "application/json"
    assert committed_in == WRITTEN_IN == WORKED_IN
    with runtime.database.session(read_only=True) as session:
        assert session.get_one(Hospital, "first").name == "First"


def test_nothing_is_kept_where_the_answer_cannot_be_given(runtime: Runtime, client: TestClient) -> None:
    assert client.post("/Unspeakable").status_code == 500
    with runtime.database.session() as session:
        assert session.get(Hospital, "unspeakable") is None


def uses_session(dependant: Dependant) -> bool:
    return any(one.call in SESSIONS or uses_session(one) for one in dependant.dependencies)


def test_whatever_has_a_transaction_ends_it_in_its_thread(runtime: Runtime) -> None:
    routes = [
        route
        for app in (create_app(runtime), create_node_api(runtime))
        for route in every_route(app).values()
        if uses_session(route.dependant)
    ]
    assert len(routes) > 60
    assert [route.path for route in routes if not isinstance(route, CommittingRoute)] == []
