"""The centre that most tests of runs are about."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.runtime import Runtime
from tests.server.federation.world import new_centre


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """Yield a centre in memory with two hospitals, north and south."""
    with new_centre(tmp_path) as centre:
        yield centre
