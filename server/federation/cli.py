"""``hematovision-server federate``: launch, look at, follow and steer federated runs."""

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlmodel import Session

from server.accounts.schemas import COMMAND_LINE, Principal
from server.commands import HomeOption, JsonOption, emit
from server.db.session import Database
from server.federation import drift, dry_run, schedule_cli, service, steering
from server.federation.cli_plan import planning
from server.federation.cli_text import percent, print_census, print_drift, print_dry_run, print_run
from server.federation.forecast import DryRunView
from server.federation.schemas import RunPlan, RunView
from server.federation.states import RunState
from server.federation.watch import watch as follow
from server.settings import load_settings
from shared.contracts.errors import DependencyMissingError, RunFailedError

app = typer.Typer(help="Launch, follow and steer federated runs.")
app.add_typer(schedule_cli.app, name="schedule")

RunArgument = Annotated[str | None, typer.Argument(help="Run key; the newest run if left out.")]
_ACTOR: Principal = COMMAND_LINE


@app.command()
@planning
def start(
    plan: RunPlan,
    home: HomeOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run until it ends.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Launch a run. What of the recipe is not given is what a launch starts from; options go before the file."""
    database = _database(home)
    with database.session() as session:
        sites = service.census(session, _ACTOR)
        if not as_json:
            print_census(sites)
            print_drift(drift.drift(session, _ACTOR, sites), drift.DAYS)
        run_id = service.start_run(session, _ACTOR, plan)
    if not as_json:
        Console().print(f"Run [bold]{run_id}[/bold] is launched.")
    if wait:
        _follow(database, run_id, as_json=as_json)
    elif as_json:
        emit(_view(database, run_id), as_json=True)


@app.command()
def census(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show what each hospital could train on, and how far apart the hospitals lie."""
    with _database(home).session(read_only=True) as session:
        sites = service.census(session, _ACTOR)
        apart = drift.drift(session, _ACTOR, sites)
    if as_json:
        told = {"census": [site.model_dump(mode="json", by_alias=True) for site in sites]}
        emit({**told, "drift": [site.model_dump(mode="json") for site in apart]}, as_json=True)
        return
    print_census(sites)
    print_drift(apart, drift.DAYS)


@app.command("dry-run")
@planning
def ask_first(
    plan: RunPlan,
    home: HomeOption = None,
    seconds: Annotated[int, typer.Option(min=1, max=3600, help="How long to wait for the answers.")] = 150,
    as_json: JsonOption = False,
) -> None:
    """Ask the hospitals whether they would take part in the run that start would launch; nothing is trained."""
    database = _database(home)
    with database.session() as session:
        dry_run_id = dry_run.start(session, _ACTOR, plan)
    view = _answers(database, dry_run_id, seconds)
    if as_json:
        emit({**view.model_dump(mode="json"), "willing": view.willing, "enough": view.enough}, as_json=True)
    else:
        print_dry_run(view)
    if view.problem:
        raise RunFailedError(view.problem)


@app.command()
def status(run: RunArgument = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show a run: its rounds, hospitals and result."""
    database = _database(home)
    view = _view(database, _run_id(database, run))
    if as_json:
        emit(view, as_json=True)
    else:
        print_run(view)


@app.command()
def watch(run: RunArgument = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Follow a run's log book until it ends; with --json a line an event, then the whole run."""
    database = _database(home)
    _follow(database, _run_id(database, run), as_json=as_json)


@app.command()
def stop(run: RunArgument = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Ask a run to stop."""
    _ask(service.request_stop, run, home, "will stop.", as_json=as_json)


@app.command()
def pause(run: RunArgument = None, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Ask a run to pause once the round under way has ended."""
    _ask(steering.request_pause, run, home, "will pause after the round.", as_json=as_json)


@app.command()
def resume(
    run: RunArgument = None,
    home: HomeOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run until it ends.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let a paused, stopped or failed run go on from its last checkpoint."""
    database = _database(home)
    run_id = _run_id(database, run)
    with database.session() as session:
        steering.resume(session, _ACTOR, run_id)
    _launched(database, run_id, f"Run {run_id} goes on.", wait=wait, as_json=as_json)


@app.command()
def clone(
    run: RunArgument = None,
    home: HomeOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run until it ends.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Launch a run by the plan of an earlier one."""
    database = _database(home)
    with database.session() as session:
        run_id = steering.clone(session, _ACTOR, run or service.latest_run_id(session, _ACTOR))
    _launched(database, run_id, f"Run {run_id} is launched.", wait=wait, as_json=as_json)


@app.command("list")
def list_runs(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the newest runs."""
    with _database(home).session(read_only=True) as session:
        runs = service.list_runs(session, _ACTOR)
    if as_json:
        emit(runs, as_json=True)
        return
    table = Table("run", "state", "rounds", "accuracy", "model", "launched by")
    for run in runs:
        done = f"{run.rounds_done}/{run.rounds}"
        table.add_row(run.id, run.state, done, percent(run.accuracy), run.model_version or "", run.created_by)
    Console().print(table)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    help="Simulate many hospitals on this machine: --hospitals 200, --updates-only; --help tells of all options.",
)
def simulate(context: typer.Context) -> None:
    """Hand over to a process of its own: the hospitals it stands for are the node's software, not the centre's."""
    try:
        found = importlib.util.find_spec("deploy.simulate") is not None
    except ModuleNotFoundError:  # `deploy` is absent itself.
        found = False
    if not found:
        raise DependencyMissingError("The simulation is not installed here: install hematovision whole, node and all.")
    done = subprocess.run([sys.executable, "-m", "deploy.simulate", *context.args], check=False)
    raise typer.Exit(done.returncode)


@app.command("strategies")
def list_strategies(as_json: JsonOption = False) -> None:
    """Tell which strategies there are, what each is for and what it can be told."""
    offered = service.offered_strategies()
    if as_json:
        emit(offered, as_json=True)
        return
    table = Table("strategy", "what it is for", "parameters (default)", "hospitals", show_lines=True)
    for one in offered:
        options = [f"--{entry.name.replace('_', '-')} {entry.default:g}" for entry in one.parameters]
        table.add_row(one.name, one.sentence, "\n".join(options), f"≥ {one.least_sites}")
    Console().print(table)


def _ask(
    what: Callable[[Session, Principal, str], None], run: str | None, home: Path | None, told: str, *, as_json: bool
) -> None:
    database = _database(home)
    run_id = _run_id(database, run)
    with database.session() as session:
        what(session, _ACTOR, run_id)
    emit(_view(database, run_id), as_json=as_json, text=f"Run {run_id} {told}")


def _launched(database: Database, run_id: str, text: str, *, wait: bool, as_json: bool) -> None:
    if not wait:
        emit(_view(database, run_id), as_json=as_json, text=text)
        return
    if not as_json:
        typer.echo(text)
    _follow(database, run_id, as_json=as_json)


def _follow(database: Database, run_id: str, *, as_json: bool) -> None:
    for event in follow(database, run_id):
        typer.echo(event.model_dump_json() if as_json else f"{event.at:%H:%M:%S}  {event.text}")
    view = _view(database, run_id)
    if as_json:
        typer.echo(view.model_dump_json())
    else:
        print_run(view)
    if view.state not in {RunState.COMPLETED, RunState.PAUSED}:
        raise RunFailedError(view.problem or "The run was stopped.")


def _answers(database: Database, dry_run_id: str, seconds: float) -> DryRunView:
    """Return a dry run once it has ended, or as it stands when the time is over."""
    end = time.monotonic() + seconds
    while True:
        with database.session(read_only=True) as session:
            view = dry_run.view(session, _ACTOR, dry_run_id)
        if view.ended or time.monotonic() > end:
            return view
        time.sleep(0.5)


def _database(home: Path | None) -> Database:
    return Database(load_settings(home).effective_database_url)


def _run_id(database: Database, given: str | None) -> str:
    if given:
        return given
    with database.session(read_only=True) as session:
        return service.latest_run_id(session, _ACTOR)


def _view(database: Database, run_id: str) -> RunView:
    with database.session(read_only=True) as session:
        return service.run_view(session, _ACTOR, run_id)
