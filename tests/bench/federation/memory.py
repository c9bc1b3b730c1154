"""What the ServerApp holds: synthetic updates of 20 MB, from 10 and from 200 hospitals."""

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


def measure(bench: Bench) -> Measured:
    """Aggregate them, each number in a process of its own."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="hematovision-bench-") as folder:
        for name in _strategies(quick=bench.quick):
            kind = OFFERED[name]
            load = Load(kind(), _MEGABYTES, 1, Path(folder))
            many = 200 if kind.streams else 50
            say(f"memory: {name}, 10 and {many} hospitals")
            few, all_of_them = (aggregated(load, count, told=lambda _done: None) for count in (10, many))
            for scale in (few, all_of_them):
                words = f"{kind.title}, {scale.hospitals} hospitals"
                rows.append(row(f"{words}: ServerApp memory, MB", scale.server_mb, None, None, 1, goal=None))
                rows.append(row(f"{words}: seconds to aggregate", scale.seconds_a_round, None, None, 1, goal=None))
            grown = all_of_them.server_mb / few.server_mb
            goal = _FLAT if kind.streams else None
            rows.append(
                row(f"{kind.title}: memory, {many} ÷ 10 hospitals", grown, None, None, 1, goal=goal, at_most=True)
            )
    return Measured(rows)


SECTION: Final = Section(
    name="memory",
    title="The centre's memory",
    measure=measure,
    version=1,
    seconds=(150, 600),
    also=lambda bench: list(_strategies(quick=bench.quick)),
    method=(
        "`federate simulate --updates-only`: updates of 20 MB are sealed, checked, verified and added one by one, made "
        "as they are taken; resident memory of the process that aggregates, imports and all, at most. Robust "
        "strategies compare updates side by side on disk."
    ),
)
