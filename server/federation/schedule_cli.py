"""``hematovision-server federate schedule``: runs that are launched at a time of the week."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from server.accounts.schemas import COMMAND_LINE
from server.commands import HomeOption, JsonOption, emit
from server.db.session import Database
from server.federation import schedule, service, steering
from server.federation.schedule import When
from server.settings import load_settings
from shared.contracts.errors import UsageError

app = typer.Typer(help="Runs that are launched at a time of the week.")


@app.command()
def add(
    like: Annotated[str | None, typer.Option(help="Run whose plan to use; the newest run if left out.")] = None,
    day: Annotated[str, typer.Option(help="Monday … Sunday, or daily.")] = "Sunday",
    at: Annotated[str, typer.Option(help="HH:MM, in UTC.")] = "02:00",
    site: Annotated[
        list[str] | None, typer.Option(help="Hospital to ask, by its id; once for each. Else those that the run asked.")
    ] = None,
    least_labels: Annotated[
        int,
        typer.Option(
            min=0, help="Launch only with so many new labels since the last completed run: imported, or from reports."
        ),
    ] = 0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Launch a run like an earlier one at its time; classes are those that the censuses hold then."""
    when = _when(day, at, least_labels)
    with Database(load_settings(home).effective_database_url).session() as session:
        run_id = like or service.latest_run_id(session, COMMAND_LINE)
        plan = steering.plan_of(session, COMMAND_LINE, run_id).model_copy(update={"classes": None})
        if site:
            plan = plan.model_copy(update={"sites": site})
        key = schedule.add(session, COMMAND_LINE, plan, when)
        shown = next(view for view in schedule.view(session, COMMAND_LINE) if view.id == key)
    emit(shown, as_json=as_json, text=f"Schedule {key}: {shown.when}; next on {shown.next_at:%Y-%m-%d %H:%M} UTC.")


@app.command("list")
def list_schedules(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the schedules and what came of each the last time."""
    with Database(load_settings(home).effective_database_url).session(read_only=True) as session:
        schedules = schedule.view(session, COMMAND_LINE)
    if as_json:
        emit(schedules, as_json=True)
        return
    table = Table("schedule", "when", "new labels", "rounds", "strategy", "the last time")
    for one in schedules:
        labels = f"≥ {one.least_labels}" if one.least_labels else ""
        plan = (str(one.plan.rounds), one.plan.strategy) if one.plan else ("?", schedule.UNREADABLE)
        table.add_row(one.id, one.when, labels, *plan, one.outcome)
    Console().print(table)


@app.command()
def remove(
    schedule_id: Annotated[str, typer.Argument(metavar="SCHEDULE", help="Its key.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget a schedule; runs that it launched stay."""
    with Database(load_settings(home).effective_database_url).session() as session:
        schedule.remove(session, COMMAND_LINE, schedule_id)
    emit({"removed": schedule_id}, as_json=as_json, text=f"Schedule {schedule_id} is removed.")


def _when(day: str, at: str, least_labels: int) -> When:
    days = {name.lower(): number for number, name in enumerate(schedule.WEEKDAYS)}
    weekday = None if day.lower() == "daily" else days.get(day.lower(), -1)
    hour, _, minute = at.partition(":")
    try:
        return When(weekday=weekday, hour=int(hour), minute=int(minute or "0"), least_labels=least_labels)
    except ValueError as error:
        raise UsageError("Give --day as Monday … Sunday or daily, and --at as HH:MM.") from error
