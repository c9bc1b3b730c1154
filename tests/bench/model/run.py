"""``make bench-model``: trains and measures the classifier; writes results and ``docs/model-quality.md``.

Resumable: every model, fold and section is kept below ``build/bench-model`` with the facts that it depends on, and
taken from there as long as they hold; page and results are written anew after every section. Nothing is chosen by a
test group.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.bench.model import (
    ablation,
    backbones,
    baselines,
    drawing,
    federated,
    finding,
    folds,
    known,
    lab,
    ood,
    overlays,
    shifts,
    speed,
    teaching,
    unknown,
)
from tests.bench.model.bench import Bench
from tests.bench.model.collect import collected
from tests.bench.model.machine import device
from tests.bench.model.page import page
from tests.bench.model.say import say
from tests.bench.model.section import Section
from tests.bench.model.series import measure_all
from tests.bench.model.steps import Steps

ROOT: Final = Path(__file__).resolve().parents[3]
WORK: Final = ROOT / "build" / "bench-model"
DOCS: Final = ROOT / "docs"
SECTIONS: Final[tuple[Section, ...]] = (
    known.SECTION, unknown.SECTION, ood.SECTION, folds.SECTION, finding.SECTION, federated.SECTION, ablation.SECTION,
    shifts.SECTION, overlays.SECTION, teaching.SECTION, baselines.SECTION, speed.SECTION, drawing.SECTION,
    backbones.SECTION, lab.HEATMAP, lab.WARMUP, lab.PRUNING,
)  # fmt: skip
"""In the order of the page; the figures that matter most are measured first."""


def measure(bench: Bench, sections: Sequence[Section], *, again: frozenset[str], docs: Path) -> list[str]:
    """Measure the sections and write after each what there is; see `measure_all`."""

    def then(section: Section, measured: bool) -> None:
        compose(bench, docs)
        if measured and "both" in section.models:
            drawing.kept_model(bench)

    return measure_all(bench, sections, again=again, then=then)


def compose(bench: Bench, docs: Path) -> None:
    """Write results, page and pictures from the sections that are there."""
    found = collected(SECTIONS, bench, images=docs / "images")
    drawn = drawing.published(bench.work / "pictures", docs / "images")
    text = page(found.parts, machine=device(), seconds=found.seconds, quick=bench.quick, pictures=drawn)
    (docs / "model-quality.md").write_text(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench and write what it measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help="at most 45 minutes on 2 cores: fewer epochs and models")
    parser.add_argument("--only", nargs="+", metavar="SECTION", choices=[one.name for one in SECTIONS],
                        help="measure these anew, and no others")  # fmt: skip
    options = parser.parse_args(arguments)
    if not (options.data / "labels.csv").is_file():
        sys.stderr.write(f"There is no labels.csv in {options.data}: name the real smears' folder with --data.\n")
        return 2
    bench = Bench(options.data.resolve(), WORK, options.quick, Steps())
    wanted = [one for one in SECTIONS if not (one.whole_only and bench.quick)]
    if options.only:
        wanted = [one for one in wanted if one.name in options.only]
    failed = measure(bench, wanted, again=frozenset(options.only or ()), docs=DOCS)
    say(f"wrote {WORK / 'results.json'}, {WORK / 'model'} and {DOCS / 'model-quality.md'}")
    if failed:
        say(f"not measured, for the errors above: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
