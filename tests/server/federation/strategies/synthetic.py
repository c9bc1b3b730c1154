"""Small rounds without hospitals: what was sent, and updates of known values."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from server.federation.strategies.port import Result, Sent, Strategy, Update
from server.federation.strategies.tensors import Tensors

Array = NDArray[np.float32]


def sent(tensors: Mapping[str, Array], *, number: int = 1, state: Tensors | None = None) -> Sent:
    """Return a round that sent ``tensors``, rounded to fp16 as on the wire."""
    body = bytes(save({name: np.asarray(array, np.float16) for name, array in tensors.items()}))
    exact = {name: np.asarray(array, np.float32) for name, array in tensors.items()}
    return Sent.of(number, body, exact, state)


def update(site: str, tensors: Mapping[str, Array], *, examples: int = 10, boxes: int = 0) -> Update:
    """Return a sound update."""
    return Update(site, {name: np.asarray(array, np.float32) for name, array in tensors.items()}, examples, boxes)


def play(strategy: Strategy, start: Mapping[str, Array], rounds: Sequence[Sequence[Mapping[str, Array]]]) -> Result:
    """Return the last result of rounds whose sites add these differences to what they were sent."""
    result = Result({name: np.asarray(array, np.float32) for name, array in start.items()})
    for number, differences in enumerate(rounds, start=1):
        begun = sent(result.tensors, number=number, state=result.state)
        aggregation = strategy.begin(begun)
        for place, difference in enumerate(differences):
            changed = {name: begun.tensors[name] + array for name, array in difference.items()}
            aggregation.add(update(f"site-{place}", changed, boxes=1))
        aggregation.close()
        result = aggregation.result()
    return result
