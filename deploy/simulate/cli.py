"""``hematovision-server federate simulate``: what a federation of so many hospitals would ask of the centre."""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from deploy.services.object_store import start_object_store
from deploy.simulate.partition import Sharing
from deploy.simulate.result import Scale, Simulation
from deploy.simulate.training import Hospitals, imported, simulate
from deploy.simulate.updates import Load, measure
from server.federation import compatibility
from server.federation import privacy as private
from server.federation.privacy import Measure, RunPrivacy
from server.federation.recipe import SMALL
from server.federation.schemas import RunPlan
from server.federation.strategies.registry import Parameters, StrategyName, parse
from shared.cli import JsonOption, emit, run
from shared.contracts.errors import ConfigError, UsageError
from shared.logging import configure_logging
from shared.processes import Supervisor
from shared.progress import progress

LADDER: Final = (10, 50, 200)
"""One number of hospitals is measured beside these smaller ones, so that growth shows."""
_SIDE, _FROZEN = SMALL["input_size"], SMALL["frozen_stages"]
_MOST_TRAINING, _MOST_UPDATES = 500, 2000
_MEASURES: Final = (Measure.NONE, Measure.CENTRAL_DP)
"""What the centre does itself; the others are the hospitals' part, and are launched with hospitals."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def simulated(
    hospitals: Annotated[
        str, typer.Option(help="How many; of one number smaller ones are measured too, of a list just these.")
    ] = "10",
    data: Annotated[Path | None, typer.Option(help="Labelled images, as `hematovision-node import` takes.")] = None,
    catalogue: Annotated[Path | None, typer.Option(help="Or a node's home that has imported some.")] = None,
    sharing: Annotated[Sharing, typer.Option(help="How cells are shared out.")] = Sharing.DIRICHLET,
    alpha: Annotated[float, typer.Option(min=0.01, max=1000, help="Of the Dirichlet distribution.")] = 0.5,
    trainers: Annotated[int, typer.Option(min=1, max=64, help="How many train at once: the device budget.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, max=100)] = 2,
    local_epochs: Annotated[int, typer.Option(min=1, max=50, help="Passes over a hospital's cells, a round.")] = 1,
    input_size: Annotated[int, typer.Option(min=32, max=512, help="Side in pixels of what the network sees.")] = _SIDE,
    frozen_stages: Annotated[int, typer.Option(min=0, max=64, help="Of the network; the later ones learn.")] = _FROZEN,
    strategy: Annotated[StrategyName, typer.Option(help="As for start.")] = StrategyName.FEDAVG,
    privacy: Annotated[
        Measure, typer.Option(help="none, or central-dp: noise at the centre, from 20 hospitals on.")
    ] = Measure.NONE,
    epsilon: Annotated[float | None, typer.Option(help="Of the whole run, as for start [8].")] = None,
    delta: Annotated[float | None, typer.Option(help="Of the whole run, as for start [1e-5].")] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of a hospital's update, as for start [1].")] = None,
    deadline: Annotated[int, typer.Option(min=30, max=86400, help="Seconds a round may take.")] = 86400,
    seed: Annotated[int, typer.Option(min=0, help="Of who gets which cells, and of training.")] = 0,
    updates_only: Annotated[
        bool, typer.Option("--updates-only", help="Nobody trains: aggregate synthetic updates (up to 2,000).")
    ] = False,
    update_mb: Annotated[float, typer.Option(min=0.01, max=256, help="Megabytes of such an update.")] = 20.0,
    work: Annotated[Path | None, typer.Option(help="Where everything is kept; else a temporary folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the same trainer, rounds and strategy as a federation does, on this machine and without Flower between."""
    hidden = private.choose(privacy, epsilon=epsilon, delta=delta, clip=clip)
    parameters: dict[str, float | str] = {"norm_limit": 0.0} if hidden.measure is Measure.CENTRAL_DP else {}
    chosen = parse(strategy, parameters)
    numbers = _numbers(hospitals, _MOST_UPDATES if updates_only else _MOST_TRAINING, _least(hidden))
    _check(chosen, hidden, numbers, rounds)
    if updates_only and (data or catalogue or hidden.kinds):
        raise UsageError("--updates-only takes no images and adds no noise: leave --data, --catalogue, --privacy out.")
    with _work_folder(work) as folder:
        if updates_only:
            scales = _aggregated(Load(chosen, update_mb, rounds, folder / "spool"), numbers)
        else:
            whose = Hospitals(imported_once(data, catalogue, folder), sharing, alpha, seed)
            plan = RunPlan(
                rounds=rounds,
                local_epochs=local_epochs,
                recipe={"input_size": input_size, "frozen_stages": frozen_stages, "seed": seed},
                round_deadline_seconds=deadline,
                strategy=strategy,
                strategy_parameters=parameters,
                privacy=hidden,
            )
            scales = _trained(plan, whose, numbers, trainers, folder)
    found = Simulation(
        what="updates" if updates_only else "training",
        strategy=strategy,
        privacy=hidden.text,
        trainers=0 if updates_only else trainers,
        scales=scales,
    )
    if as_json:
        emit(found, as_json=True)
    else:
        _print(found, chosen)


def imported_once(data: Path | None, catalogue: Path | None, folder: Path) -> Path:
    """Return the catalogue to share out; see `training.imported`."""
    if data is not None and catalogue is not None:
        raise UsageError("Give --data or --catalogue, not both.")
    doing = "reading the catalogue" if catalogue else "importing images" if data else "drawing synthetic smears"
    with progress(f"simulate: {doing}"):
        return imported(data, catalogue, work=folder)


def _trained(plan: RunPlan, whose: Hospitals, numbers: Sequence[int], trainers: int, folder: Path) -> list[Scale]:
    scales = []
    with Supervisor() as supervisor:
        supervisor.handle_signals()
        store = start_object_store(folder, supervisor)
        for count in numbers:
            with progress(f"simulate: {count} hospitals", count * (plan.rounds + 1)) as report:
                scale, _ = simulate(plan, whose, count, budget=trainers, store=store, work=folder, report=report)
            scales.append(scale)
    return scales


def _aggregated(load: Load, numbers: Sequence[int]) -> list[Scale]:
    scales = []
    for count in numbers:
        with progress(f"simulate: {count} updates of {load.megabytes:g} MB", count * load.rounds) as report:
            scales.append(measure(load, count, told=report))
    return scales


def _least(hidden: RunPrivacy) -> int:
    """Return the least number of hospitals that is worth a measurement beside the one asked for."""
    return max([2, *(compatibility.LEAST_SITES[kind][0] for kind in hidden.kinds if kind in compatibility.LEAST_SITES)])


def _check(chosen: Parameters, hidden: RunPrivacy, numbers: Sequence[int], rounds: int) -> None:
    """Refuse before anything is read what a launch would refuse with these numbers of hospitals."""
    if hidden.measure not in _MEASURES:
        raise UsageError(f"A simulation adds noise at the centre or none: choose {' or '.join(_MEASURES)}.")
    fewest = min(numbers)
    if chosen.least_sites > fewest:
        raise UsageError(f"{chosen.title} needs {chosen.least_sites} hospitals; ask for that many or more.")
    compatibility.check(chosen, min_sites=fewest, hospitals=fewest, privacy=hidden.kinds)
    private.check(hidden, rounds)


def _numbers(text: str, most: int, least: int) -> list[int]:
    """Return the numbers of hospitals to measure, ascending; one alone is given smaller ones from ``least`` on."""
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise UsageError(f"--hospitals takes a number, or several with commas: not {text!r}.") from None
    if numbers[0] < 2 or numbers[-1] > most:
        raise UsageError(f"--hospitals takes numbers from 2 to {most} here, not {text}.")
    return numbers if len(numbers) > 1 else [*(step for step in LADDER if least <= step < numbers[0]), *numbers]


def _print(found: Simulation, chosen: Parameters) -> None:
    table = Table("hospitals", "server memory MB", "seconds a round", "first round s", "MB an update", "updates taken")
    trained = found.what == "training"
    noised = any(scale.epsilon is not None for scale in found.scales)
    for name in (*(("trainer memory MB", "accuracy") if trained else ()), *(("ε spent",) if noised else ())):
        table.add_column(name)
    for scale in found.scales:
        cells = [
            str(scale.hospitals),
            f"{scale.server_mb:.0f}",
            f"{scale.seconds_a_round:.1f}",
            "" if scale.first_round_seconds is None else f"{scale.first_round_seconds:.1f}",
            f"{scale.megabytes:.2f}",
            f"{scale.updates} of {scale.hospitals * scale.rounds}",
        ]
        if trained:
            cells += [f"{scale.trainer_mb or 0:.0f}", "" if scale.accuracy is None else f"{scale.accuracy:.1%}"]
        if noised:
            cells.append("" if scale.epsilon is None else f"{scale.epsilon:.2f}")
        table.add_row(*cells)
    console = Console()
    console.print(table)
    held = "holds one update at a time" if chosen.streams else "holds the updates on disk, side by side"
    console.print(f"{chosen.title} {held}. Memory is resident, at most; trainers are processes of their own.")
    if noised:
        console.print(f"Privacy: {found.privacy}. The accuracy is the noised model's.", highlight=False)


@contextmanager
def _work_folder(given: Path | None) -> Iterator[Path]:
    """Yield the work folder: the one given, which stays, or a temporary one."""
    if given is None:
        folder = Path(tempfile.mkdtemp(prefix="hematovision-simulation-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    if given.exists() and (not given.is_dir() or any(given.iterdir())):
        raise ConfigError(f"{given} is not an empty folder: a simulation starts afresh. Name another with --work.")
    given.mkdir(parents=True, exist_ok=True)
    yield given.resolve()


def main() -> None:
    """Entry point; see `server.federation.cli.simulate`."""
    configure_logging("simulate", level="ERROR")
    sys.argv[0] = "hematovision-server federate simulate"  # what help and errors call it
    sys.exit(run(app))
