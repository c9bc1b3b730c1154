"""What the command line of a bench can be told, and what of it is measured then."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.model.bench import Bench
from tests.bench.model.section import Section
from tests.bench.model.steps import Steps


def parser_of(about: str | None, sections: Sequence[Section], *, data: Path, quick: str) -> argparse.ArgumentParser:
    """Return the options; ``data``: where the real smears usually lie, ``quick``: what that option means here."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--only", nargs="+", metavar="SECTION", choices=[one.name for one in sections],
                        help="measure these anew, and no others")  # fmt: skip
    return parser


def bench_of(options: argparse.Namespace, work: Path) -> Bench | None:
    """Return the bench that measures as ``options`` say; None, with a line on stderr, where there are no smears."""
    if not (options.data / "labels.csv").is_file():
        sys.stderr.write(f"There is no labels.csv in {options.data}: name the real smears' folder with --data.\n")
        return None
    return Bench(options.data.resolve(), work, options.quick, Steps())


def wanted(options: argparse.Namespace, sections: Sequence[Section]) -> list[Section]:
    """Return the sections to be measured: those named, else all but what a quick bench leaves out."""
    left = [one for one in sections if not (one.whole_only and options.quick)]
    return [one for one in left if one.name in options.only] if options.only else left
