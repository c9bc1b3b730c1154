"""Tests of the limit that stands in front of every route: no body is kept before its size is known to be sane."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive

from portal.main import create_app
from server.app import create_node_api
from server.limits import LARGEST_BODY
from server.runtime import Runtime
from tests.server.centres import make_runtime

PIECE = b"x" * 65_536
ENROL, LOGIN = "/api/node/v1/enrolments", "/login"


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = make_runtime(tmp_path)
    yield made
    made.database.dispose()


@pytest.mark.parametrize("length", [str(LARGEST_BODY + 1), "9" * 400, "-1", "1e3"])
@pytest.mark.parametrize("path", [ENROL, LOGIN])
def test_announced_length_out_of_bounds_is_refused_unread(runtime: Runtime, path: str, length: str) -> None:
    app = create_node_api(runtime) if path == ENROL else create_app(runtime)
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post(path, content=b"{}", headers={"Content-Length": length})
    assert answer.status_code == 413
    assert answer.json()["code"] == "data_invalid"


def test_body_of_unknown_length_is_cut_off_by_the_limit(runtime: Runtime) -> None:
    taken = 0
    app = create_node_api(runtime)

    async def receive() -> Message:
        nonlocal taken
        taken += len(PIECE)
        return {"type": "http.request", "body": PIECE, "more_body": taken < 4 * LARGEST_BODY}

    statuses = _ask(app, receive)
    assert statuses == [400]
    assert taken <= LARGEST_BODY + len(PIECE)


def _ask(app: ASGIApp, receive: Receive) -> list[int]:
    statuses: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "https",
        "path": ENROL, "raw_path": ENROL.encode(), "query_string": b"", "root_path": "", "server": ("centre", 443),
        "client": ("node", 1), "headers": [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")],
    }  # fmt: skip

    async def ask() -> None:
        await app(scope, receive, send)

    asyncio.run(ask())
    return statuses
