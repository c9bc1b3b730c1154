"""What the ServerApp holds: synthetic updates of 20 MB, from 10 and from 200 hospitals, or a thousand."""

import tempfile
from pathlib import Path
from typing import Final

from deploy.simulate.updates import Load
from deploy.simulate.updates import measure as aggregated
from server.federation.strategies.registry import OFFERED, StrategyName
from tests.bench.model.bench import Bench
from tests.bench.model.rows import Row, row
from tests.bench.model.say import say
from tests.bench.model.section import Measured, Section

_MEGABYTES: Final = 20.0
_FLAT: Final = 1.1
"""So much more at the most is flat: an allocator is no accountant."""


def _strategies(*, quick: bool) -> tuple[StrategyName, ...]:
    return (StrategyName.FEDAVG,) if quick else (StrategyName.FEDAVG, StrategyName.FEDADAM, StrategyName.TRIMMED_MEAN)


def _hospitals(name: StrategyName, *, quick: bool) -> tuple[int, ...]:
    """Return for how many hospitals it is measured: the first is what the others are held against."""
    if not OFFERED[name].streams:
        return (10, 50)
    return (10, 200) if quick or name is not StrategyName.FEDAVG else (10, 200, 1000)


def measure(bench: Bench) -> Measured:
    """Aggregate them, each number in a process of its own."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="hematovision-bench-") as folder:
        for name in _strategies(quick=bench.quick):
            kind = OFFERED[name]
            load = Load(kind(), _MEGABYTES, 1, Path(folder))
            counts = _hospitals(name, quick=bench.quick)
            say(f"memory: {name}, {', '.join(map(str, counts))} hospitals")
            scales = [aggregated(load, count, told=lambda _done: None) for count in counts]
            for scale in scales:
                words = f"{kind.title}, {scale.hospitals} hospitals"
                rows.append(row(f"{words}: ServerApp memory, MB", scale.server_mb, None, None, 1, goal=None))
                rows.append(row(f"{words}: seconds to aggregate", scale.seconds_a_round, None, None, 1, goal=None))
            goal = _FLAT if kind.streams else None
            for scale in scales[1:]:
                grown = scale.server_mb / scales[0].server_mb
                words = f"{kind.title}: memory, {scale.hospitals} ÷ {counts[0]} hospitals"
                rows.append(row(words, grown, None, None, 1, goal=goal, at_most=True))
    return Measured(rows)


SECTION: Final = Section(
    name="memory",
    title="The centre's memory",
    measure=measure,
    version=2,
    seconds=(150, 750),
    also=lambda bench: list(_strategies(quick=bench.quick)),
    method=(
        "`federate simulate --updates-only`: updates of 20 MB are sealed, checked, verified and added one by one, made "
        "as they are taken; resident memory of the process that aggregates, imports and all, at most. Robust "
        "strategies compare updates side by side on disk."
    ),
)
