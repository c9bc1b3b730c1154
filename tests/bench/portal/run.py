"""``make bench-portal``: how fast the portal is; writes results and ``docs/portal-speed.md``.

Every section's result is kept below ``build/bench-portal`` as it is measured, so that one section can be measured anew
(``--only``) and the page still has all of them. Figures are of a machine that does nothing else.
"""

import argparse
import json
import subprocess
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from playwright.sync_api import Error as BrowserError

from shared.contracts.errors import HematovisionError
from tests.bench.model.say import say
from tests.bench.portal import keys, opening, page, queries, readers, scripts
from tests.bench.portal.section import Measured, Options, Section

ROOT: Final = Path(__file__).resolve().parents[3]
WORK: Final = ROOT / "build" / "bench-portal"
PAGE: Final = ROOT / "docs" / "portal-speed.md"
SECTIONS: Final[tuple[Section, ...]] = (
    opening.SECTION, keys.SECTION, *readers.SECTIONS, scripts.SECTION, queries.SECTION,
)  # fmt: skip
"""In the order of the page."""
FAILURES: Final = (
    HematovisionError, RuntimeError, OSError, ValueError, AssertionError, BrowserError, subprocess.SubprocessError,
)  # fmt: skip


def measure(options: Options, sections: Sequence[Section]) -> list[str]:
    """Measure the sections one after the other and keep each; return the names of those that failed."""
    failed = []
    left = sum(section.seconds[0 if options.quick else 1] for section in sections)
    for section in sections:
        say(f"== {section.title}; about {left / 60:.0f} minutes left")
        begun = time.monotonic()
        try:
            found = section.measure(options)
        except FAILURES:
            traceback.print_exc()
            failed.append(section.name)
        else:
            kept(options, section).write_text(json.dumps(asdict(found), ensure_ascii=False))
        left -= section.seconds[0 if options.quick else 1]
        say(f"== done in {time.monotonic() - begun:.0f} s")
    return failed


def kept(options: Options, section: Section) -> Path:
    """Return where a section's result is kept."""
    return options.work / f"{section.name}{'-quick' if options.quick else ''}.json"


def compose(options: Options, to: Path) -> None:
    """Write results and page from the sections that are there; a quick run's stand in for those of a whole one."""
    found: dict[str, Measured] = {}
    quick: set[str] = set()
    for section in SECTIONS:
        for one in (options, replace(options, quick=True)):
            if section.name not in found and kept(one, section).exists():
                found[section.name] = Measured(**json.loads(kept(one, section).read_text()))
                quick |= {section.name} if one.quick else set()
    (options.work / "results.json").write_text(page.results(SECTIONS, found))
    to.write_text(page.written(SECTIONS, found, options, on=page.machine(), quick=quick))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench and write what it measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about five minutes: fewer repetitions, 20 readers")
    names = [one.name for one in SECTIONS]
    parser.add_argument("--only", nargs="+", metavar="SECTION", choices=names, help="measure these, and no others")
    parser.add_argument("--page", action="store_true", help="measure nothing: write the page from what there is")
    parser.add_argument("--readers", type=int, help="how many work at once")
    parser.add_argument("--seconds", type=int, help="for how long")
    parser.add_argument("--to", type=Path, default=PAGE, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, default=WORK, help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    options = options_of(told)
    options.work.mkdir(parents=True, exist_ok=True)
    failed = [] if told.page else measure(options, [one for one in SECTIONS if one.name in (told.only or names)])
    compose(options, told.to)
    say(f"wrote {options.work / 'results.json'} and {told.to}")
    if failed:
        say(f"not measured, for the errors above: {', '.join(failed)}")
    return 1 if failed else 0


def options_of(told: argparse.Namespace) -> Options:
    """Return how much is measured."""
    usual = (
        Options(told.work, quick=True, runs=4, keys=15, readers=20, seconds=40) if told.quick else Options(told.work)
    )
    return Options(
        usual.work, usual.quick, usual.runs, usual.keys, told.readers or usual.readers, told.seconds or usual.seconds
    )


if __name__ == "__main__":
    raise SystemExit(main())
