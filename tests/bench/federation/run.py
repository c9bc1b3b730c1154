"""``make bench-federation``: what learning together is worth and costs; writes results and ``docs/federation.md``.

Resumable as the model's bench is: every training and section is kept below ``build/bench-federation`` with the facts
that it depends on. Defaults are chosen on validation groups; nothing is chosen by a test group.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.bench.federation import (
    attacks,
    defaults,
    laboratories,
    memory,
    privacy,
    skew,
    traffic,
    work,
)
from tests.bench.federation.front import FRONT
from tests.bench.model.bench import Bench
from tests.bench.model.collect import collected
from tests.bench.model.machine import device
from tests.bench.model.options import bench_of, parser_of, wanted
from tests.bench.model.page import page
from tests.bench.model.say import say
from tests.bench.model.section import Section
from tests.bench.model.series import measure_all

ROOT: Final = Path(__file__).resolve().parents[3]
WORK: Final = ROOT / "build" / "bench-federation"
DOCS: Final = ROOT / "docs"
SECTIONS: Final[tuple[Section, ...]] = (
    skew.SECTION, laboratories.SECTION, traffic.SECTION, attacks.SECTION, memory.SECTION, privacy.SECTION,
    defaults.SECTION, work.SECTION,
)  # fmt: skip
"""In the order of the page."""


def measure(bench: Bench, sections: Sequence[Section], *, again: frozenset[str], docs: Path) -> list[str]:
    """Measure the sections and write after each what there is; see `measure_all`."""
    return measure_all(bench, sections, again=again, then=lambda _section, _measured: compose(bench, docs))


def compose(bench: Bench, docs: Path) -> None:
    """Write results, page and plots from the sections that are there."""
    found = collected(SECTIONS, bench, images=docs / "images")
    text = page(found.parts, machine=device(), seconds=found.seconds, quick=bench.quick, front=FRONT)
    (docs / "federation.md").write_text(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench and write what it measured."""
    quick = "at most 60 minutes on 2 cores: fewer seeds and rounds"
    parser = parser_of(__doc__, SECTIONS, data=ROOT.parent / "shared" / "data", quick=quick)
    parser.add_argument("--page", action="store_true", help="measure nothing: write the page from what there is")
    options = parser.parse_args(arguments)
    bench = bench_of(options, WORK)
    if bench is None:
        return 2
    measured = [] if options.page else wanted(options, SECTIONS)
    failed = measure(bench, measured, again=frozenset(options.only or ()), docs=DOCS)
    if not measured:
        compose(bench, DOCS)
    say(f"wrote {WORK / 'results.json'} and {DOCS / 'federation.md'}")
    if failed:
        say(f"not measured, for the errors above: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
