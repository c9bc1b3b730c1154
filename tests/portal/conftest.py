"""A portal over a small centre, and people who are signed in to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from portal.main import create_app
from server.cases.ingest import ingest
from tests.factories import centre_key, pack
from tests.portal.client import Browser
from tests.portal.factories import Network, add_hospital, play_round, register_model, staffed, start_run


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """A centre with three hospitals, a finished run with its candidate, and one case."""
    made = staffed(tmp_path)
    for hospital in "abc":
        add_hospital(made, hospital)
    book = start_run(made, rounds=1)
    play_round(made, book, 1)
    register_model(made, book, "hv-1")
    parcel = pack(made.nodes["a"], centre_key(made.centre))
    parcel.upload(made.centre.store)
    ingest(made.centre.runtime, hospital_id="a", case_id=parcel.case_id)
    made.cases.append(parcel.case_id)
    yield made
    made.centre.runtime.database.dispose()


@pytest.fixture
def visitor(network: Network) -> Iterator[Browser]:
    """Somebody who is not signed in."""
    with TestClient(create_app(network.centre.runtime), follow_redirects=False) as client:
        yield Browser(client)


@pytest.fixture
def reader(visitor: Browser) -> Browser:
    """A hematologist."""
    return visitor.sign_in("reader")
