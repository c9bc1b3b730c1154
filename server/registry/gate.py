"""Whether a candidate may be promoted: no hospital may lose by it."""

from collections.abc import Mapping

from server.registry.schemas import GateFinding, GateResult
from shared.contracts.training import EvaluateReply

TOLERANCE = 0.02
"""How much accuracy a hospital may lose against its current model before the gate blocks."""


def judge(evaluations: Mapping[str, EvaluateReply]) -> GateResult:
    """Compare the candidate with the current model at every hospital, on that hospital's own held-out groups.

    Both as the hospital runs them: each with what it keeps of its own.
    A hospital that runs no model yet cannot lose. A candidate that nobody could evaluate on any cell does not pass.
    """
    findings = [
        GateFinding(
            hospital_id=hospital,
            text=f"Accuracy falls from {reply.current.accuracy:.1%} to {reply.as_run.accuracy:.1%}"
            f" on {reply.as_run.n} held-out cells (at most {TOLERANCE:.0%} may be lost).",
        )
        for hospital, reply in sorted(evaluations.items())
        if reply.current is not None and reply.current.accuracy - reply.as_run.accuracy > TOLERANCE
    ]
    findings += [
        GateFinding(hospital_id=hospital, text="The hospital has no held-out cells to evaluate the candidate on.")
        for hospital, reply in sorted(evaluations.items())
        if reply.candidate.n == 0
    ]
    return GateResult(passed=bool(evaluations) and not findings, findings=findings)
