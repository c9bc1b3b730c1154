"""A centre without anything in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.runtime import Runtime
from tests.server.centres import make_runtime


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = make_runtime(tmp_path)
    yield made
    made.database.dispose()
