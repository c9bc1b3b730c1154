"""States of runs and of hospitals within a round."""

from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands; `completed` only when hospitals really replied."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    EVALUATING = "evaluating"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self in {RunState.COMPLETED, RunState.STOPPED, RunState.FAILED}


class SiteState(StrEnum):
    """What a hospital did in a round."""

    SAMPLED = "sampled"
    REPLIED = "replied"
    REFUSED = "refused"
    MISSING = "missing"
