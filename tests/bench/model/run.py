"""``make bench-model``: trains and measures the classifier; writes results and ``docs/model-quality.md``.

Resumable: every model, fold and section is kept below ``build/bench-model`` with the facts that it depends on, and
taken from there as long as they hold; page and results are written anew after every section. Nothing is chosen by a
test group.
"""

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
from tests.bench.model.options import bench_of, parser_of, wanted
from tests.bench.model.page import page
from tests.bench.model.say import say
from tests.bench.model.section import Section
from tests.bench.model.series import measure_all

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
    quick = "at most 45 minutes on 2 cores: fewer epochs and models"
    options = parser_of(__doc__, SECTIONS, data=ROOT.parent / "shared" / "data", quick=quick).parse_args(arguments)
    bench = bench_of(options, WORK)
    if bench is None:
        return 2
    failed = measure(bench, wanted(options, SECTIONS), again=frozenset(options.only or ()), docs=DOCS)
    say(f"wrote {WORK / 'results.json'}, {WORK / 'model'} and {DOCS / 'model-quality.md'}")
    if failed:
        say(f"not measured, for the errors above: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
