"""``hematovision-server federate``: the strategy, and steering, at the command line."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from server.cli import app
from server.db.session import Database
from server.federation import service, steering
from server.federation.book import RunBook
from server.models import Hospital, Run
from server.settings import HOME_VARIABLE, load_settings
from shared.cli import run
from shared.contracts.errors import ExitCode
from tests.server.federation.fleet import EVALUATION
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


def test_census_tells_what_hospitals_hold_and_how_far_apart_they_lie(home: Path, call: Call) -> None:
    database = Database(load_settings(home).effective_database_url)
    with database.session() as session:
        counted = census(neutrophil=10, lymphocyte=30).model_copy(update={"unmapped": 7})
        service.store_census(session, node_of("south"), counted)
    database.dispose()
    told = call.json("federate", "census", "--home", str(home))
    assert [site["hospital_name"] for site in told["census"]] == ["North", "South"]
    assert told["census"][1]["census"]["rows"][0]["class"] == "neutrophil"
    assert [(site["hospital_id"], site["mix"], site["recent"]) for site in told["drift"]] == [
        ("north", 0.25, []),
        ("south", 0.25, []),
    ]
    for command in ("census", "start"):
        call("federate", command, "--home", str(home))
        assert "How far apart they lie" in call.said
        assert "25.0%" in call.said
        assert "no case came in" in call.said
        assert "South: 7 cells are left out, as their labels are not mapped to a class" in call.said


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


def test_start_and_schedule_take_the_hospitals_to_ask(home: Path, call: Call) -> None:
    here = ("--home", str(home))
    call("federate", "start", *here, "--site", "moon", status=ExitCode.USAGE)
    assert "No hospital moon can be asked" in call.error
    assert "north, south" in call.error
    run = call.json("federate", "start", *here, "--site", "north", "--min-sites", "1")
    assert run["asked"] == {"north": "North"}
    call("federate", "status", *here)
    assert "Asked: north" in call.said
    assert call.json("federate", "schedule", "add", *here)["plan"]["sites"] == ["north"]
    both = call.json("federate", "schedule", "add", *here, "--site", "south", "--site", "north")
    assert both["plan"]["sites"] == ["south", "north"]


def test_strategies_are_told_in_plain_words(call: Call) -> None:
    offered = call.json("federate", "strategies")
    assert [one["name"] for one in offered][:2] == ["fedavg", "fedprox"]
    call("federate", "strategies")
    assert "--byzantine-sites 1" in call.said
    assert "≥ 5" in call.said


def test_a_run_is_paused_resumed_and_cloned(home: Path, call: Call) -> None:
    here = ("--home", str(home))
    first = call.json("federate", "start", *here, "--rounds", "4", "--strategy", "fedyogi", "--seed", "3")
    assert call.json("federate", "pause", *here)["pause_requested"]
    database = Database(load_settings(home).effective_database_url)
    with database.session() as session:
        steering.pause(session, session.get_one(Run, first["id"]), "Paused after 2 of 4 rounds")
    database.dispose()
    # A paused run keeps no other from being launched, and `watch` does not wait for it.
    call("federate", "watch", first["id"], *here)
    assert call.said.splitlines()[-1] != ""
    second = call.json("federate", "clone", first["id"], *here)
    for field in ("rounds", "strategy", "strategy_parameters", "recipe", "classes", "min_sites"):
        assert second[field] == first[field], field
    call("federate", "resume", first["id"], *here, status=ExitCode.CONFLICT)
    assert "is under way" in call.error
    call.json("federate", "stop", second["id"], *here)
    database = Database(load_settings(home).effective_database_url)
    with database.session() as session:
        service.fail(session, second["id"], "stopped")
    database.dispose()
    call("federate", "resume", first["id"], *here)
    assert call.said.strip() == f"Run {first['id']} goes on."
    assert call.json("federate", "status", first["id"], *here)["state"] == "queued"


def test_status_ends_with_what_the_last_round_came_to(home: Path, call: Call) -> None:
    run_id = call.json("federate", "start", "--home", str(home))["id"]
    database = Database(load_settings(home).effective_database_url)
    with database.session() as session:
        session.get_one(Run, run_id).base_sha256 = "0" * 64
    book = RunBook(database, run_id)
    book.begin("7")
    call("federate", "status", run_id, "--home", str(home))
    assert " end " not in call.said
    book.evaluating()
    book.evaluated("north", EVALUATION)
    database.dispose()
    call("federate", "status", run_id, "--home", str(home))
    [line] = [line for line in call.said.splitlines() if " end " in line]
    assert line.replace("│", " ").split() == ["end", "0.600", "90.0%"]


def test_a_schedule_is_added_listed_and_removed(home: Path, call: Call) -> None:
    here = ("--home", str(home))
    run = call.json("federate", "start", *here, "--rounds", "5")
    options = ("--like", run["id"], "--day", "tuesday", "--at", "03:30", "--least-labels", "200")
    added = call.json("federate", "schedule", "add", *here, *options)
    assert (added["when"], added["least_labels"], added["plan"]["rounds"], added["plan"]["classes"]) == (
        "every Tuesday at 03:30 UTC", 200, 5, None,
    )  # fmt: skip
    for wrong in (("--day", "someday"), ("--at", "25:00"), ("--at", "late")):
        call("federate", "schedule", "add", *here, *wrong, status=ExitCode.USAGE)
        assert "Monday … Sunday or daily" in call.error
    call("federate", "schedule", "list", *here)
    assert "every Tuesday at 03:30 UTC" in call.said
    call("federate", "schedule", "remove", added["id"], *here)
    assert call.json("federate", "schedule", "list", *here) == []


def test_a_hospitals_tolerance_is_set_and_taken_back(home: Path, call: Call) -> None:
    here = ("--home", str(home))
    call("hospital", "tolerance", "north", "0.01", *here)
    assert call.said.strip() == "north has a tolerance of 0.01."
    call("hospital", "tolerance", "north", "0.5", *here, status=ExitCode.USAGE)
    assert "a hospital can be stricter" in call.error
    call("hospital", "tolerance", "north", *here)
    assert call.said.strip() == "north has the network's tolerance."


def test_a_simulation_that_is_not_installed_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deploy", None)
    for name in [name for name in sys.modules if name.startswith("deploy.")]:
        monkeypatch.delitem(sys.modules, name)
    call("federate", "simulate", status=ExitCode.DEPENDENCY_MISSING)
    assert "The simulation is not installed here" in call.error
