"""``hematovision-server federate``: the strategy at the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from server.cli import app
from server.db.session import Database
from server.federation import service
from server.models import Hospital
from server.settings import HOME_VARIABLE, load_settings
from shared.cli import run
from shared.contracts.errors import ExitCode
from tests.server.federation.world import census, new_node, node_of


class Call:
    """Calls the command in this process, as a shell would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capture = monkeypatch, capsys
        self.said = self.error = ""

    def __call__(self, *arguments: str, status: int = 0) -> None:
        self._patch.setattr("sys.argv", ["hematovision-server", *arguments])
        assert run(app) == status
        self.said, self.error = self._capture.readouterr()

    def json(self, *arguments: str) -> Any:  # Any: parsed JSON
        self(*arguments, "--json")
        return json.loads(self.said)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    return Call(monkeypatch, capsys)


@pytest.fixture
def home(tmp_path: Path, call: Call) -> Path:
    """Return a centre whose two hospitals have labelled cells."""
    folder = tmp_path / "centre"
    call("init", "--home", str(folder))
    database = Database(load_settings(folder).effective_database_url)
    with database.session() as session:
        for name in ("north", "south"):
            session.add(Hospital(id=name, name=name.title()))
        session.flush()
        for name in ("north", "south"):
            session.add(new_node(name))
        session.flush()
        for name in ("north", "south"):
            service.store_census(session, node_of(name), census(neutrophil=30, lymphocyte=30))
    database.dispose()
    return folder


def test_start_takes_the_strategy_and_its_parameters(home: Path, call: Call) -> None:
    options = ("--strategy", "fedadam", "--server-learning-rate", "0.05", "--beta-1", "0.4", "--norm-limit", "0")
    view = call.json("federate", "start", "--home", str(home), *options)
    assert view["strategy"] == "fedadam"
    assert view["strategy_parameters"] == {
        "Server learning rate": 0.05, "Beta 1": 0.4, "Beta 2": 0.99, "Tau": 0.001, "Largest update": 0.0,
    }  # fmt: skip
    call("federate", "status", "--home", str(home))
    assert (
        "Strategy: FedAdam (server learning rate 0.05, beta 1 0.4, beta 2 0.99, tau 0.001, largest update 0)"
        in call.said
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--strategy", "multikrum"), "Multi-Krum needs 5 hospitals in a round; 2 have an approved training node."),
        (("--momentum", "0.5"), "FedAvg has no parameter momentum"),
        (("--strategy", "fedprox", "--proximal-mu", "11"), "Pull: Input should be less than or equal to 10"),
        (("--strategy", "bulyan"), "bulyan"),
    ],
)
def test_start_refuses_what_does_not_go_together(
    home: Path, call: Call, options: tuple[str, ...], sentence: str
) -> None:
    call("federate", "start", "--home", str(home), *options, status=ExitCode.USAGE)
    assert sentence in call.error
    assert call.json("federate", "list", "--home", str(home)) == []


def test_strategies_are_told_in_plain_words(call: Call) -> None:
    offered = call.json("federate", "strategies")
    assert [one["name"] for one in offered][:2] == ["fedavg", "fedprox"]
    call("federate", "strategies")
    assert "--byzantine-sites 1" in call.said
    assert "≥ 5" in call.said
