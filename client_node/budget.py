"""What private training has spent of the hospital's budget: one entry for each round, written before it is trained.

Only the trainer writes here; it alone can add ε up (`client_node.training.accounting`), so each entry also says what
all entries until then come to. Import-light: commands read it.
"""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from client_node.home import NodeHome
from shared.contracts.errors import ConfigError
from shared.contracts.privacy import Delta, PrivacyUnit
from shared.contracts.training import Identifier


class Charge(BaseModel):
    """One round of private training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    run_key: Identifier
    round: int
    unit: PrivacyUnit
    noise_multiplier: float
    sample_rate: float
    steps: int
    centre_noise_multiplier: float
    """Of the one mean over the features that comes before the steps."""
    run_epsilon: float
    """What the run has spent with this round, at its own δ."""
    run_delta: Delta
    released: bool = False
    """Whether the round's update may have left. One that has not may be trained again for the same charge."""


class Budget(BaseModel):
    """The file `privacy.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    charges: tuple[Charge, ...] = ()
    epsilon: float = 0.0
    """What all charges come to together, for an image that took part in every one of them."""
    delta: Delta | None = None
    """At this δ: the policy's when the last charge was made. None: nothing was charged yet."""

    def text(self) -> str:
        """Return what is spent in one sentence."""
        if self.delta is None:
            return "No private training was done here yet."
        runs = len({charge.run_key for charge in self.charges})
        return (
            f"Private training has spent ε {self.epsilon:.2f} (at δ = {self.delta:g}) in {len(self.charges)}"
            f" {'round' if len(self.charges) == 1 else 'rounds'} of {runs} {'run' if runs == 1 else 'runs'}."
        )

    def of_run(self, run_key: str) -> tuple[Charge, ...]:
        """Return a run's charges."""
        return tuple(charge for charge in self.charges if charge.run_key == run_key)


def read_budget(home: NodeHome | Path) -> Budget:
    """Return what is spent; nothing where no private round was ever trained.

    Raises:
        ConfigError: the file is damaged, and so nobody knows what is spent.
    """
    try:
        return Budget.model_validate_json(NodeHome(home).budget.read_bytes())
    except FileNotFoundError:
        return Budget()
    except (OSError, ValidationError):
        raise ConfigError(
            "privacy.json in the node's home cannot be read, so nothing is trained with differential privacy: restore"
            " it from a backup."
        ) from None
