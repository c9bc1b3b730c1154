"""How far two readings of the same cells agree."""

from pydantic import BaseModel, ConfigDict


class Agreement(BaseModel):
    """Cohen's kappa with its large-sample 95 % interval, and the plain share beside it."""

    model_config = ConfigDict(frozen=True)

    cells: int
    """Named by both."""
    agreed: int
    kappa: float | None
    """None where chance alone explains all agreement there could be: both used one and the same class only."""
    low: float | None = None
    high: float | None = None

    @property
    def share(self) -> float:
        """Share of cells on which they agree."""
        return self.agreed / self.cells if self.cells else 0.0
