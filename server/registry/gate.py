"""Whether a candidate may be promoted: no hospital may lose by it, in accuracy or in any class that it has enough of.

Hospitals send counts and shares, never which cell was read how, so a class is compared by intervals: its recall has
fallen when it fell by more than the hospital's tolerance *and* lies below the exact 95 % interval of the current
model's recall on as many cells. Under `LEAST_SUPPORT` cells nothing is concluded at one hospital; such falls are told
as notes, and are judged over all hospitals together. See docs/gate.md.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from server.hospitals.service import MOST_TOLERANCE
from server.registry.schemas import GateFinding, GateResult
from shared.contracts.ontology import CellClass
from shared.contracts.training import EvaluateReply, SiteMetrics
from shared.statistics import clopper_pearson

TOLERANCE: Final = MOST_TOLERANCE
"""What of its accuracy, and of a class's recall, a hospital may lose before the gate blocks; its own may be less."""
LEAST_SUPPORT: Final = 10
"""Cells of a class that a hospital must have before its recall there can block."""
EVERYWHERE: Final = ""
"""In place of a hospital's id: all hospitals together."""
_ROUNDING: Final = 1e-9


def judge(
    evaluations: Mapping[str, EvaluateReply],
    tolerances: Mapping[str, float] | None = None,
    *,
    trained: Collection[str] = (),
) -> GateResult:
    """Compare the candidate with the current model at every hospital, on that hospital's own held-out groups.

    Both as the hospital runs them, each with what it keeps of its own. ``tolerances``: hospital id → its own, where it
    is stricter than `TOLERANCE`. A hospital that runs no model yet cannot lose, and a single cell may always be lost.
    A candidate that nobody could evaluate on any cell does not pass, nor one that a hospital of ``trained``, which it
    learnt from, did not evaluate: what it does there is not known.
    """
    findings: list[GateFinding] = []
    notes: list[GateFinding] = []
    for hospital, reply in sorted(evaluations.items()):
        tolerance = min(TOLERANCE, (tolerances or {}).get(hospital, TOLERANCE))
        findings += _accuracy(hospital, reply, tolerance)
        if reply.current is not None:
            blocking, small = _recalls(hospital, reply.current, reply.as_run, tolerance)
            findings += blocking
            notes += small
    findings += [_unheard(hospital) for hospital in sorted(set(trained) - set(evaluations))]
    findings += _everywhere(evaluations.values(), {finding.cls for finding in findings})
    return GateResult(passed=bool(evaluations) and not findings, findings=findings, notes=notes)


def _accuracy(hospital: str, reply: EvaluateReply, tolerance: float) -> Iterable[GateFinding]:
    after = reply.as_run
    if after.n == 0:
        text = "The hospital has no held-out cells to evaluate the candidate on."
        yield GateFinding(hospital_id=hospital, kind="cells", text=text)
        return
    before = reply.current
    if before is not None and before.accuracy - after.accuracy > max(tolerance, 1 / after.n) + _ROUNDING:
        yield GateFinding(
            hospital_id=hospital,
            kind="accuracy",
            before=before.accuracy,
            after=after.accuracy,
            n=after.n,
            allowed=tolerance,
            text=f"Accuracy falls from {before.accuracy:.1%} to {after.accuracy:.1%} on {after.n} held-out cells"
            f" (at most {_points(tolerance)} may be lost).",
        )


def _unheard(hospital: str) -> GateFinding:
    text = "The hospital trained and did not evaluate: what the candidate does there is not known."
    return GateFinding(hospital_id=hospital, kind="unheard", text=text)


def _recalls(
    hospital: str, before: SiteMetrics, after: SiteMetrics, tolerance: float
) -> tuple[list[GateFinding], list[GateFinding]]:
    """Return what blocks, and falls among too few cells."""
    blocking, small = [], []
    for cls in sorted(before.recall, key=lambda one: one.order):
        n, was, now = before.support.get(cls, 0), before.recall[cls], after.recall.get(cls, 0.0)
        if not n or was - now <= tolerance + _ROUNDING:
            continue
        if n >= LEAST_SUPPORT and _fallen(was, now, n):
            blocking.append(_recall(hospital, cls, was, now, n, tolerance))
        elif n < LEAST_SUPPORT:
            small.append(_recall(hospital, cls, was, now, n, tolerance, why="; too few cells to conclude from"))
    return blocking, small


def _everywhere(replies: Iterable[EvaluateReply], told: set[CellClass | None]) -> list[GateFinding]:
    """Return the classes that fall over all hospitals together, though at none of them alone."""
    counts: dict[CellClass, list[float]] = {}
    for reply in replies:
        if reply.current is None:
            continue
        for cls, was in reply.current.recall.items():
            n = reply.current.support.get(cls, 0)
            sums = counts.setdefault(cls, [0, 0.0, 0.0])
            for place, value in enumerate((n, n * was, n * reply.as_run.recall.get(cls, 0.0))):
                sums[place] += value
    found = []
    for cls, (total, right_before, right_after) in sorted(counts.items(), key=lambda item: item[0].order):
        n = int(total)
        if cls in told or n < LEAST_SUPPORT:
            continue
        was, now = right_before / n, right_after / n
        if was - now > TOLERANCE + _ROUNDING and _fallen(was, now, n):
            found.append(_recall(EVERYWHERE, cls, was, now, n, TOLERANCE))
    return found


def _fallen(was: float, now: float, n: int) -> bool:
    """Whether a recall of ``now`` lies below the exact 95 % interval of ``was`` on n cells."""
    low, _ = clopper_pearson(round(was * n), n)
    return 100 * now < low


def _recall(
    hospital: str, cls: CellClass, was: float, now: float, n: int, tolerance: float, *, why: str = ""
) -> GateFinding:
    text = (
        f"Recall of {cls.info.name} falls from {was:.1%} to {now:.1%} on {n} held-out cells"
        f" (at most {_points(tolerance)} may be lost{why})."
    )
    return GateFinding(
        hospital_id=hospital, kind="recall", cls=cls, before=was, after=now, n=n, allowed=tolerance, text=text
    )


def _points(share: float) -> str:
    return f"{share * 100:g} points"
