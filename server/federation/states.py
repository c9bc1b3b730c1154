"""States of runs and of hospitals within a round."""

from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands; `completed` only when hospitals really replied."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    EVALUATING = "evaluating"
    PAUSED = "paused"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        """Whether nothing more will happen, unless somebody resumes it."""
        return self in {RunState.COMPLETED, RunState.STOPPED, RunState.FAILED}

    @property
    def active(self) -> bool:
        """Whether something happens, or will without anybody's doing: at most one run is."""
        return not self.over and self is not RunState.PAUSED

    @property
    def resumable(self) -> bool:
        """Whether it can go on from its last checkpoint when somebody asks for it."""
        return self in {RunState.PAUSED, RunState.STOPPED, RunState.FAILED}


class SiteState(StrEnum):
    """What a hospital did in a round."""

    SAMPLED = "sampled"
    REPLIED = "replied"
    REFUSED = "refused"
    MISSING = "missing"
