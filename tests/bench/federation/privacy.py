"""What privacy costs: the section is there, its rows come with a trainer that can promise some."""

from typing import Final

from tests.bench.model.bench import Bench
from tests.bench.model.rows import Row
from tests.bench.model.section import Measured, Section

_NONE: Final = "The trainer refuses every request that promises noise: there is nothing to measure yet."


def privacy_rows(bench: Bench) -> list[Row]:
    """Return the rows of image-level DP at ε = 8, δ = 1e-5; none as long as the trainer refuses to promise any."""
    return []


def _measure(bench: Bench) -> Measured:
    rows = privacy_rows(bench)
    return Measured(rows, [] if rows else [_NONE])


SECTION: Final = Section(
    name="privacy",
    title="Privacy",
    measure=_measure,
    version=1,
    seconds=(1, 1),
    method="Image-level differential privacy in the trainer, against the same run without.",
)
