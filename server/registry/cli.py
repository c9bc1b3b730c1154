"""``hematovision-server model``: list, promote and roll back model versions."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from server.accounts.schemas import COMMAND_LINE, Principal
from server.commands import HomeOption, JsonOption, emit
from server.db.session import Database
from server.registry import service
from server.settings import load_settings

app = typer.Typer(help="Model versions: list, promote, roll back.")

_ACTOR: Principal = COMMAND_LINE


@app.command("list")
def list_models(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the model versions, newest first."""
    with _database(home).session(read_only=True) as session:
        models = service.list_models(session, _ACTOR)
    if as_json:
        emit(models, as_json=True)
        return
    # The whole version, however narrow the terminal: `promote` asks for it.
    table = Table(Column("version", no_wrap=True), "state", "gate", "accuracy by hospital", "sha256")
    for model in models:
        accuracies = "\n".join(f"{row.hospital_id} {row.candidate.accuracy:.1%}" for row in model.matrix)
        passed = "passed" if model.gate.passed else "blocked"
        table.add_row(model.version, model.state, passed, accuracies, model.sha256[:12])
    Console().print(table)


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="Model version.")],
    home: HomeOption = None,
    override: Annotated[str | None, typer.Option(help="Reason to promote although the gate blocks; audited.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version the network's current model."""
    database = _database(home)
    with database.session() as session:
        service.promote(session, _ACTOR, version, override_reason=override)
    _print(database, version, as_json=as_json)


@app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Why; audited.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to the model that was current before."""
    database = _database(home)
    with database.session() as session:
        version = service.rollback(session, _ACTOR, reason=reason)
    _print(database, version, as_json=as_json)


def _print(database: Database, version: str, *, as_json: bool) -> None:
    with database.session(read_only=True) as session:
        view = service.model_view(session, _ACTOR, version)
    emit(view, as_json=as_json, text=f"{version} is the current model.")


def _database(home: Path | None) -> Database:
    return Database(load_settings(home).effective_database_url)
