"""``python -m tests.run``: every test in two stages, then what was skipped and why.

Both run on two workers. In the fast stage one begins at the front and one in the middle, and who is done takes half of
what is left: a file's tests mostly stay with its fixtures. What starts whole systems, browsers or kills processes runs
after it, file by file, the longest first (`tests/conftest.py`): such tests wait for processes, timeouts and pages most
of their time. Further arguments go to pytest in both stages.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

ROOT = Path(__file__).parents[1]
SLOW = "e2e or browser or chaos"
NO_TESTS = 5
INTERRUPTED = 2


@dataclass(frozen=True)
class Stage:
    """One run of pytest."""

    title: str
    options: tuple[str, ...]


STAGES = (
    Stage("fast: units, contracts and real servers", ("-m", f"not ({SLOW})", "-n", "2", "--dist", "worksteal")),
    Stage(
        "slow: end to end, browser, chaos",
        ("-m", SLOW, "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"),
    ),
)


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of the tests: this tree first, one thread a process, the real smears where they are.

    Whatever they leave, killed processes too, is below ``folder``.
    """
    env = dict(os.environ)
    env["TMPDIR"] = str(folder)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH", "")]))
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    env["OMP_NUM_THREADS"] = "1"
    env.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    env.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    smears = ROOT.parent / "shared" / "data"
    if "HEMATOVISION_DATA" not in env and smears.is_dir():
        env["HEMATOVISION_DATA"] = str(smears)
    return env


def run_stage(stage: Stage, report: Path, arguments: list[str]) -> int:
    """Run one stage, writing its JUnit report, and return pytest's exit code."""
    # A short path: sockets of real servers lie below it, and their names end at some hundred characters.
    kept = f"--basetemp={report.with_suffix('')}"
    command = [sys.executable, "-m", "pytest", *stage.options, kept, f"--junitxml={report}", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=environment(report.parent)) as pytest:
        while True:
            try:
                return pytest.wait()
            except KeyboardInterrupt:
                continue  # pytest got it too, and ends its servers before it ends


def skipped(report: Path) -> dict[str, list[str]]:
    """Return reason → tests for everything a report says was skipped or expected to fail."""
    found: dict[str, list[str]] = defaultdict(list)
    if not report.exists():
        return found
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest has just written it
        for mark in case.findall("skipped"):
            kind = "expected to fail: " if mark.get("type") == "pytest.xfail" else ""
            reason = kind + (mark.get("message") or "no reason given")
            found[reason].append(f"{case.get('classname', '')}::{case.get('name', '')}".removeprefix("::"))
    return found


def worst(codes: list[int]) -> int:
    """Return the worst exit code; a stage without tests is fine as long as another has some."""
    meant = [code if code >= 0 else 128 - code for code in codes if code != NO_TESTS]
    return max(meant, default=NO_TESTS)


def show_skips(console: Console, reasons: dict[str, list[str]]) -> None:
    """Print what did not run: nothing is hidden."""
    total = sum(len(tests) for tests in reasons.values())
    if not total:
        console.print("Nothing was skipped.")
        return
    console.print(f"[bold]{total} skipped:[/bold]")
    for reason, tests in sorted(reasons.items()):
        more = f" and {len(tests) - 3} more" if len(tests) > 3 else ""
        console.print(f"  {len(tests)} × {escape(reason)}\n      {escape(', '.join(tests[:3]))}{more}", soft_wrap=True)


def main(arguments: list[str]) -> int:
    """Run both stages and return the worst exit code."""
    console = Console(stderr=False, highlight=False)
    codes: list[int] = []
    reasons: dict[str, list[str]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="hv-tests-", ignore_cleanup_errors=True) as folder:
        for number, stage in enumerate(STAGES, start=1):
            console.rule(f"stage {number} of {len(STAGES)}: {stage.title}")
            report = Path(folder) / f"{number}.xml"
            codes.append(run_stage(stage, report, arguments))
            for reason, tests in skipped(report).items():
                reasons[reason] += tests
            if codes[-1] == INTERRUPTED:
                break
    console.rule("summary")
    for stage, code in zip(STAGES, codes, strict=False):
        word = {0: "passed", NO_TESTS: "no tests"}.get(code, f"FAILED (pytest exit {code})")
        console.print(f"{stage.title}: {word}")
    show_skips(console, reasons)
    return worst(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
