"""What a trial of a model says; read by the torch-free agent, written by the trial's own process."""

from pydantic import BaseModel, ConfigDict

from shared.contracts.training import OwnPart


class Trial(BaseModel):
    """A model on the site's own validation cells, beside the model in use; both on the very same cells."""

    model_config = ConfigDict(frozen=True)

    n: int
    accuracy: float | None
    current_accuracy: float | None
    classes: int
    """How many classes the model tells apart."""
    fitted: bool
    """Whether the site's own calibration was fitted."""
    parts: tuple[OwnPart, ...] = ()
    """What the model that would run has of the site's own."""
    lacks_own_normalisation: bool = False
    """Whether the recipe gives each site its own normalisation and this one has none, or cannot make its network."""

    @property
    def no_better_than_chance(self) -> bool:
        """Whether guessing would do as well."""
        return self.accuracy is not None and self.accuracy <= 1 / self.classes

    def falls_by_more_than(self, tolerance: float) -> bool:
        """Whether the accuracy falls by more than ``tolerance``; a single cell may always be lost."""
        if self.accuracy is None or self.current_accuracy is None:
            return False
        return self.current_accuracy - self.accuracy > max(tolerance, 1 / self.n) + 1e-9
