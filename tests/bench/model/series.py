"""Sections of a bench measured one after the other."""

import subprocess
import traceback
from collections.abc import Callable, Sequence
from typing import Final

from shared.contracts.errors import HematovisionError
from tests.bench.model.bench import Bench
from tests.bench.model.plan import Plan
from tests.bench.model.section import Section

FAILURES: Final = (HematovisionError, RuntimeError, OSError, ValueError, subprocess.CalledProcessError)


def measure_all(
    bench: Bench, sections: Sequence[Section], *, again: frozenset[str], then: Callable[[Section, bool], None]
) -> list[str]:
    """Measure the sections, those named in ``again`` in any case; ``then`` hears of each whether it was measured.

    One that fails does not keep the others from being measured; return the names of those.
    """
    plan, failed = Plan(bench, sections), []
    for section in sections:
        begun = plan.begin(section)
        try:
            section.run(bench, again=section.name in again)
        except FAILURES:
            traceback.print_exc()
            failed.append(section.name)
        plan.done(section, begun)
        then(section, section.name not in failed)
    return failed
