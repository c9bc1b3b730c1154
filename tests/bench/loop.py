"""Measures the loop of the demonstration on real smears; writes ``build/demo/results.json`` and ``docs/demo.md``."""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

from deploy.demo.loop import write_atomically
from deploy.demo.result import DemoResult
from shared.statistics import clopper_pearson

ROOT = Path(__file__).resolve().parents[2]
SECONDS_GOAL, MEMORY_GOAL_MB, PBC_GOAL, BCCD_GOAL = 480, 8000, 0.85, 0.60
Row = dict[str, str | float | int | bool | None]


def _row(measure: str, value: float, *, goal: float, atmost: bool, n: int | None = None) -> Row:
    low = high = None
    if n:
        low, high = (round(limit / 100, 4) for limit in clopper_pearson(round(value * n), n))
    holds = value <= goal if atmost else value >= goal
    return {"measure": measure, "value": value, "low": low, "high": high, "n": n, "goal": goal, "holds": holds}


def rows_of(result: DemoResult, sites: dict[str, str]) -> list[Row]:
    """Turn the demonstration's JSON into rows of a bench; ``sites``: hospital → the laboratory its images are from."""
    rows = [
        _row("loop, all stages (s)", result.seconds["total"], goal=SECONDS_GOAL, atmost=True),
        _row("resident memory, whole process tree (MB)", result.peak_rss_mb, goal=MEMORY_GOAL_MB, atmost=True),
    ]
    for site in sorted(set(sites.values())):
        parts = [result.federation.per_site[hospital] for hospital, name in sites.items() if name == site]
        n = sum(part.n for part in parts)
        accuracy = math.fsum(part.accuracy * part.n for part in parts) / n
        goal = BCCD_GOAL if site == "bccd" else PBC_GOAL
        rows.append(_row(f"accuracy on held-out test groups, {site}", accuracy, goal=goal, atmost=False, n=n))
    return rows


def page(rows: list[Row], result: DemoResult) -> str:
    """Return the Markdown page of the bench."""
    lines = [
        "# The loop on one machine, measured",
        "",
        "`make bench` runs the demonstration once on real smears, on 2 cores without a GPU, and writes this page.",
        "Accuracy is of the federated model after the last round, on test groups that no hospital trained on or",
        "tuned with, with exact 95 % intervals. One run; these machines are noisy.",
        "",
        "| measure | value | 95 % interval | n | goal | holds |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        interval = f"{row['low']:.3f}–{row['high']:.3f}" if row["low"] is not None else ""
        value = f"{row['value']:.3f}" if row["n"] else f"{row['value']:.0f}"
        holds = "yes" if row["holds"] else "no"
        lines.append(f"| {row['measure']} | {value} | {interval} | {row['n'] or ''} | {row['goal']} | {holds} |")
    lines += ["", "| stage | seconds |", "|---|---|"]
    lines += [f"| {stage} | {seconds:.0f} |" for stage, seconds in result.seconds.items()]
    lines += ["", "| round | replied | MB up | MB down | seconds | loss | accuracy |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r.round} | {r.replied} of {r.sampled} | {r.bytes_up / 1e6:.1f} | {r.bytes_down / 1e6:.1f} "
        f"| {r.seconds:.0f} | {r.loss:.3f} | {r.accuracy:.3f} |"
        for r in result.federation.rounds
    ]
    lines += [
        "",
        "Loss and accuracy of a round are those of the model it *received*, on the sites' validation groups.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the demonstration with progress shown and write what it measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    build = ROOT / "build" / "demo"
    build.mkdir(parents=True, exist_ok=True)
    out = build / "out.json"
    command = [sys.executable, "-m", "deploy.demo.cli", "--once", "--data", str(options.data)]
    done = subprocess.run([*command, "--rounds", str(options.rounds), "--json", str(out)], check=False)
    if done.returncode:
        return done.returncode
    result = DemoResult.model_validate_json(out.read_text())
    sites = {hospital.id: hospital.site for hospital in result.hospitals}
    rows = rows_of(result, sites)
    write_atomically(build / "results.json", json.dumps(rows, indent=2) + "\n")
    write_atomically(ROOT / "docs" / "demo.md", page(rows, result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
