"""``hematovision-demo``: the whole platform on this machine."""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client_node.datasets.synthetic import make_synthetic
from deploy.demo.commands import Command
from deploy.demo.hospital import DemoHospital
from deploy.demo.loop import Loop, write_atomically
from deploy.demo.memory import PeakMemory
from deploy.demo.partition import assign, read_labels
from deploy.demo.people import Person
from deploy.demo.platform import Platform
from deploy.demo.result import DemoResult, HospitalResult
from deploy.demo.smears import set_aside
from deploy.demo.stages import join_hospitals, prepare_cases, start_nodes
from shared.cli import run
from shared.contracts.errors import ConfigError, UsageError
from shared.processes import Supervisor, free_port, require_port

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_console = Console(stderr=True, highlight=False)


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option(help="Folder with a labels.csv; synthetic smears without it.")] = None,
    work: Annotated[Path | None, typer.Option(help="Where everything is kept; a temporary folder without it.")] = None,
    hospitals: Annotated[int, typer.Option(min=2, max=12, help="How many hospitals.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Rounds of the federated run.")] = 3,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The portal's port; else a free one.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Run the loop once, write the JSON, end.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Where --once writes its figures.")] = None,
) -> None:
    """Run object store, broker, centre and hospitals on loopback; serve until Ctrl-C, or go through the loop once."""
    if json_file is not None and not once:
        raise UsageError("--json goes with --once.")
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise ConfigError(f"There is no folder {json_file.parent} for --json: make it first.")
    if port is not None:
        require_port(port)
    rows_of = data and read_labels(data)  # before anything starts: a wrong folder is told at once
    with PeakMemory() as memory, _work_folder(work, keep=once) as folder, Supervisor() as supervisor:
        supervisor.handle_signals()
        started = time.monotonic()

        def say(line: str) -> None:
            _console.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim]  {line}")

        if data is None:
            say("drawing synthetic smears: three stains, three scanners")
            data = folder / "synthetic"
            make_synthetic(data, sites=min(hospitals, 3))
            rows_of = read_labels(data)
        synthetic = (data / "SYNTHETIC").exists()
        platform = Platform(folder, supervisor, say, port or free_port(), synthetic)
        partition = assign(rows_of or [], hospitals)
        for part in partition:
            set_aside(part, data)
        node = Command("client_node.cli", platform.env)
        members = [DemoHospital(part, folder / "nodes" / part.id, node) for part in partition]
        loop = Loop(platform, members)
        _serve_or_loop(loop, data, rounds=rounds, once=once, json_file=json_file, memory=memory, synthetic=synthetic)


def _serve_or_loop(
    loop: Loop, data: Path, *, rounds: int, once: bool, json_file: Path | None, memory: PeakMemory, synthetic: bool
) -> None:
    platform = loop.platform
    with loop.stage("services"):
        platform.start()
    coordinator_login = platform.login("coordinator")
    with Person(platform.url, username=coordinator_login.username, password=coordinator_login.password) as coordinator:
        join_hospitals(loop, coordinator, data)
        start_nodes(loop, coordinator)
        if not once:
            _print_logins(platform)
        federation, checks = prepare_cases(loop, coordinator, rounds=rounds)
        if not once:
            _serve(platform)
            return
        login = platform.login("hematologist")
        with Person(platform.url, username=login.username, password=login.password) as reader:
            with loop.stage("exchange"):
                loop.exchange(reader)
            with loop.stage("reading and sign-out"):
                loop.read(reader)
            with loop.stage("report and return"):
                counts, report = loop.come_home(reader)
        with loop.stage("next round with feedback"):
            feedback = loop.learn_from_feedback(coordinator)
    result = DemoResult(
        hospitals=[
            HospitalResult(id=h.id, site=h.data.site, train_images=h.train_cells(), smears=len(h.smears))
            for h in loop.hospitals
        ],
        federation=federation,
        cases=counts,
        flags_checked=checks,
        report=report,
        feedback=feedback,
        seconds={**loop.seconds, "total": round(sum(loop.seconds.values()), 1)},
        peak_rss_mb=round(memory.peak_mb, 1),
        synthetic=synthetic,
    )
    if json_file is not None:
        write_atomically(json_file, result.model_dump_json(indent=2) + "\n")
    platform.say(f"the loop is closed in {result.seconds['total']:.0f} s, {result.peak_rss_mb:.0f} MB at most")


def _serve(platform: Platform) -> None:
    _print_logins(platform)
    _console.print("Serving; Ctrl-C ends everything.")
    try:
        while True:
            platform.keep()
            time.sleep(1)
    except SystemExit:  # the supervisor's way of passing a signal on; here it is the way to end
        platform.say("ending everything")


def _print_logins(platform: Platform) -> None:
    _console.print(f"\n  Portal  [bold]{platform.url}[/bold]\n")
    for login in platform.logins.values():
        _console.print(f"  {login.role.replace('_', ' '):13} {login.username:13} {login.password}")
    _console.print()


@contextmanager
def _work_folder(given: Path | None, *, keep: bool) -> Iterator[Path]:
    """Yield an empty work folder: the one given, which stays, or a temporary one, removed unless a report is wanted."""
    if given is None:
        folder = Path(tempfile.mkdtemp(prefix="hematovision-"))
        try:
            yield folder
        finally:
            if keep:
                _console.print(f"Everything is in {folder}")
            else:
                shutil.rmtree(folder, ignore_errors=True)
        return
    folder = given.expanduser().resolve()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"{given} is not empty. Name an empty or new folder with --work: a demonstration starts afresh."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        raise ConfigError(f"The folder {given} cannot be made: name another one with --work.") from None
    yield folder


def main() -> None:
    """Entry point of ``hematovision-demo``."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()
