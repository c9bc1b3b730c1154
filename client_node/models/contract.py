"""What a trial of a model says; read by the torch-free agent, written by the trial's own process."""

from pydantic import BaseModel, ConfigDict


class Trial(BaseModel):
    """A model on the site's own validation cells, beside the model in use."""

    model_config = ConfigDict(frozen=True)

    n: int
    accuracy: float | None
    current_accuracy: float | None
    fitted: bool
    """Whether the site's own calibration was fitted."""
