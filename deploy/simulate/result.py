"""What a simulation measured; the JSON of ``federate simulate --json``."""

from pydantic import BaseModel


class Scale(BaseModel):
    """One number of hospitals. Memory in 10⁶ bytes, resident, at most."""

    hospitals: int
    rounds: int
    updates: int
    """Updates that were taken, over all rounds."""
    seconds_a_round: float
    """Mean over the rounds; of the second round on where there is one and trainers work: the first fills caches."""
    first_round_seconds: float | None = None
    server_mb: float
    """Of the process that aggregates."""
    trainer_mb: float | None = None
    """Of the largest trainer."""
    accuracy: float | None = None
    """Of the candidate over all hospitals' held-out test groups."""
    epsilon: float | None = None
    """Spent of every hospital over all rounds, by noise at the centre; None: none was added."""
    megabytes: float
    """An update, as it travels."""


class Simulation(BaseModel):
    """The whole of it."""

    what: str
    """``training`` or ``updates``."""
    strategy: str
    privacy: str = "none"
    """The measure, and with noise its unit, ε asked for, δ and clip."""
    trainers: int
    """How many trained at once: the device budget; 0: nobody trained."""
    scales: list[Scale]
