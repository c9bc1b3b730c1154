"""Shows progress on the way."""

import sys
import time

from client_node.training.loop import STEPS_AN_EPOCH
from shared.contracts.training import Recipe

_OFTEN = 50


def say(text: str) -> None:
    """Show a line."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


class Progress:
    """Says every so many steps how far a training is."""

    def __init__(self, name: str, recipe: Recipe, count: int) -> None:
        self._name = name
        self._steps = recipe.local_epochs * max(STEPS_AN_EPOCH, -(-count // recipe.batch_size))
        self._done = 0
        self._begin = time.monotonic()

    def __call__(self) -> None:
        self._done += 1
        if self._done % _OFTEN == 0:
            spent = time.monotonic() - self._begin
            left = spent / self._done * (self._steps - self._done)
            say(f"{self._name}: step {self._done} of {self._steps}, about {left:.0f} s left")
