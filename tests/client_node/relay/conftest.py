"""A trainer that is not there is not waited for, unless a test wants it."""

import pytest

from client_node.relay import exchange


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_TRAINER_BACK", 0.0)
