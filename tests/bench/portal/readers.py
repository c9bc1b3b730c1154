"""Fifty readers who work at once, on either database."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Final

from portal.static_files import STATIC
from tests.bench.model.rows import Row
from tests.bench.model.say import say
from tests.bench.portal.centre import Kind, Served, centre
from tests.bench.portal.section import Measured, Options, Section, figure, most
from tests.bench.portal.smears import smear
from tests.factories import PASSWORD
from tests.portal.drawn import send_case

LOAD: Final = Path(__file__).with_name("load.py")
CELLS: Final = 60
FIELDS: Final = 2
PROCESSES: Final = 2
"""Of the portal: one a core."""
A_CASE_SECONDS: Final = 40
"""What a reader takes for a case, about: so many are sent that nobody runs out."""
ARRIVING: Final = 2
"""Readers who sign in within a second, until all have."""


def measure(options: Options, kind: Kind) -> Measured:
    """Send cases, let the readers work, and return what they waited."""
    times, cases = played(options, kind)
    by_name: dict[str, list[float]] = defaultdict(list)
    for name, milliseconds, _ in times:
        by_name[name].append(milliseconds)
    wrong = [f"{name}: {what}" for name, _, what in times if what]
    named = [
        milliseconds
        for name, values in by_name.items()
        if not name.startswith(("image", "static"))
        for milliseconds in values
    ]
    rows: list[Row] = [
        most(f"{kind}: every request, ms (p95)", [milliseconds for _, milliseconds, _ in times], goal=250),
        most(f"{kind}: pages and posts alone, ms (p95)", named, goal=250),
        figure(f"{kind}: errors", len(wrong), goal=0, n=len(times)),
        *(most(f"{kind}: {name}, ms (p95)", by_name[name], goal=None) for name in sorted(by_name)),
    ]
    signed, pace = len(by_name["post: sign"]), len(times) / lasting(options)
    notes = [f"{options.readers} readers, {signed} of {cases} cases signed, {pace:.0f} requests a second."]
    if wrong:
        notes.append(f"What went wrong first: {wrong[0]}.")
    return Measured(rows, notes)


def played(options: Options, kind: Kind) -> tuple[list[tuple[str, float, str]], int]:
    """Return name, milliseconds and fault of every request, and how many cases there were."""
    seconds = lasting(options)
    each = 1 + -(-seconds // A_CASE_SECONDS)
    with centre(options.work, kind, readers=options.readers, processes=PROCESSES) as served:
        plan = planned(served, options.readers, each)
        files = {name: options.work / f"{name}-{kind.lower()}.json" for name in ("plan", "times")}
        files["plan"].write_text(json.dumps(plan))
        say(f"{kind}: {options.readers} readers for {seconds} s")
        command = [
            sys.executable, "-m", "locust", "--headless", "--only-summary", "--locustfile", str(LOAD),
            "--host", served.address, "--users", str(options.readers), "--spawn-rate", str(ARRIVING),
            "--run-time", f"{seconds}s", "--stop-timeout", "20",
        ]  # fmt: skip
        environment = {**os.environ, "HV_PLAN": str(files["plan"]), "HV_TIMES": str(files["times"])}
        log = options.work / f"locust-{kind.lower()}.log"
        with log.open("w") as out:
            # It ends with 1 where a request failed: that is a figure here.
            subprocess.run(command, env=environment, stdout=out, stderr=out, check=False, timeout=seconds + 120)
        if not files["times"].exists():
            raise RuntimeError(f"The readers did not work; see {log}.")
        return json.loads(files["times"].read_text()), options.readers * each


def lasting(options: Options) -> int:
    """Return for how many seconds there is load: until all have signed in, and as long as they then work."""
    return options.readers // ARRIVING + options.seconds


def planned(served: Served, readers: int, each: int) -> dict[str, object]:
    """Send every reader's cases; return what the readers are told."""
    say(f"sending {readers * each} cases")
    cases = {
        f"reader-{number}": [send_case(served.network, "a", smear(CELLS, FIELDS)) for _ in range(each)]
        for number in range(readers)
    }
    modules = sorted((STATIC / "js" / "reading").glob("*.js"))
    return {
        "cases": cases,
        "password": PASSWORD,
        "scripts": [f"/js/reading/{module.name}" for module in modules],
    }


def _section(kind: Kind) -> Section:
    return Section(
        f"readers-{kind.lower()}",
        f"Many readers at once, on {kind}",
        f"The portal as {PROCESSES} processes, SeaweedFS and {kind}, each a real server on this machine; locust beside "
        "them. Each reader signs in (two a second do), opens the worklist, opens a case of "
        f"{CELLS} cells with every image, claims it, sets 14 cells at a person's pace (0.6 to 2.4 s), takes some back, "
        "and signs; then the next. Scripts are fetched once each, as by a browser.",
        partial(measure, kind=kind),
        (120, 420),
    )


SECTIONS: Final = (_section("SQLite"), _section("PostgreSQL"))
