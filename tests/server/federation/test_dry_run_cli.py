"""``hematovision-server federate dry-run``: the question, the wait and the table."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.cli import app
from server.federation import repository, service
from server.federation.rehearsal import rehearse
from server.models import DryRun, Hospital
from server.runtime import Runtime
from shared.cli import run
from shared.contracts.errors import ExitCode
from shared.contracts.training import DryRunReply
from tests.server.centres import make_runtime
from tests.server.federation.fleet import MemoryFleet, Site, says
from tests.server.federation.world import census, new_node, node_of

NO = "This hospital's policy allows 2 epochs a round at most."
YES = says(1, DryRunReply(takes_part=True, examples=44).model_dump_json())


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """A centre whose two hospitals have labelled cells; commands find it by the environment."""
    runtime = make_runtime(tmp_path)
    monkeypatch.setenv("HEMATOVISION_SERVER_HOME", str(runtime.settings.home))
    monkeypatch.setenv("COLUMNS", "200")
    with runtime.database.session() as session:
        for number, name in enumerate(("north", "south"), start=1):
            session.add(Hospital(id=name, name=name.title()))
            session.flush()
            session.add(new_node(name, flower_node_id=str(number)))
            session.flush()
            service.store_census(session, node_of(name), census(neutrophil=30, lymphocyte=30))
    yield runtime
    runtime.database.dispose()


@contextmanager
def _asking(runtime: Runtime, sites: dict[int, Site]) -> Iterator[None]:
    """Do, beside the command, what worker and ServerApp do."""

    def work() -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with runtime.database.session() as session:
                row: DryRun | None = repository.newest_dry_run(session)
                if row is not None:
                    row.base_sha256 = "0" * 64
                    key = row.id
                    break
            time.sleep(0.05)
        rehearse(runtime, key, MemoryFleet(sites), flower_run_id="1", gather_seconds=0)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def _command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["hematovision-server", "federate", "dry-run", *arguments])
    return run(app)


def test_answers_are_printed_as_a_table(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no = says(2, DryRunReply(takes_part=False, reason=NO).model_dump_json())
    with _asking(runtime, {1: YES, 2: no}):
        assert _command(monkeypatch, "--rounds", "2") == ExitCode.OK
    said = capsys.readouterr().out
    assert NO in said
    assert "1 of 2 would take part, 2 are needed: too few." in said
    assert "How long it would take is not known" in said


def test_answers_as_json(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with _asking(runtime, {1: YES, 2: says(2, DryRunReply(takes_part=True, examples=5).model_dump_json())}):
        assert _command(monkeypatch, "--rounds", "2", "--json") == ExitCode.OK
    lines = capsys.readouterr().out
    told = json.loads(lines[lines.index("{\n") :])
    assert (told["willing"], told["enough"], told["ended"]) == (2, True, True)
    assert [(site["hospital_id"], site["examples"]) for site in told["sites"]] == [("north", 44), ("south", 5)]


def test_it_asks_the_very_plan_that_start_would_launch(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text("views = 3\n")
    options = ("--strategy", "fedadam", "--tau", "0.01", "--recipe", str(file), "--ema", "0.5", "--deadline", "90")
    assert _command(monkeypatch, *options, "--site", "north", "--min-sites", "1", "--seconds", "1", "--json") == 0
    lines = capsys.readouterr().out
    told = json.loads(lines[lines.index("{\n") :])
    plan = told["plan"]
    assert (plan["strategy"], plan["strategy_parameters"], plan["recipe"]) == (
        "fedadam", {"tau": 0.01}, {"views": 3, "ema": 0.5},
    )  # fmt: skip
    assert (plan["round_deadline_seconds"], plan["sites"]) == (90, ["north"])
    assert [site["hospital_id"] for site in told["sites"]] == ["north"]


def test_time_that_is_over_shows_what_is_known(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _command(monkeypatch, "--seconds", "1") == ExitCode.OK
    assert "0 of 2 would take part" in capsys.readouterr().out
