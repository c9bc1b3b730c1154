"""A portal over a small centre, and people who are signed in to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from portal.main import create_app
from tests.portal.client import Browser
from tests.portal.factories import Network
from tests.portal.small import small_centre


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """A centre with three hospitals, a finished run with its candidate, and one case."""
    made = small_centre(tmp_path)
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
