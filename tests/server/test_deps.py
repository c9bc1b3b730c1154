"""When a request's transaction ends."""

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, field_serializer

from server.deps import CommittingRoute, SessionDep
from server.models import Hospital
from tests.server.centres import make_runtime


def test_others_can_write_while_an_answer_is_put_into_bytes(tmp_path: Path) -> None:
    runtime = make_runtime(tmp_path)

    class Answer(BaseModel):
        name: str

        @field_serializer("name")
        def written(self, name: str) -> str:
            with runtime.database.session() as other:
                other.add(Hospital(id="other", name="Written meanwhile"))
            return name

    router = APIRouter(route_class=CommittingRoute)

    @router.post("/{name}")
    def add(session: SessionDep, name: str) -> Answer:
        session.add(Hospital(id="first", name=name))
        session.flush()
        return Answer(name=name)

    app = FastAPI()
    app.state.runtime = runtime
    app.include_router(router)
    assert TestClient(app).post("/First").json() == {"name": "First"}
    with runtime.database.session(read_only=True) as session:
        assert {session.get_one(Hospital, known).name for known in ("first", "other")} == {"First", "Written meanwhile"}
    runtime.database.dispose()
