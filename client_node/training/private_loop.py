"""Local training with DP-SGD (Abadi et al. 2016): of each unit's gradient only a clipped, noised sum is ever used.

Every unit is drawn by itself with the same probability (Poisson sampling, as the accountant assumes). Its gradient is
the mean over its cells and over several looks at each (De et al. 2022), by `torch.func`: the model stays in evaluation
mode, in which batch normalisation with its pretrained statistics treats each cell alone, so that a unit's gradient
depends on no other. Clipping, noise and step are Opacus'.

Nothing here looks at the site's labels as a whole: no class counts, no classes that are absent, no training loss, no
choice of an epoch.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from client_node.training.accounting import Noisy
from client_node.training.cache import Between
from client_node.training.loop import Labels
from client_node.training.sources import Source
from shared.contracts.training import Recipe
from shared.vision.model import CellModel

Unit = NDArray[np.int64]
"""Positions of the cells of one image or patient."""
Entropy = Callable[[], int]

LOOKS: Final = 2
"""Looks at a cell whose gradients are averaged before clipping."""
_CHUNK: Final = 64
"""Looks whose gradients are in memory at once."""
_MOMENTUM: Final = 0.9
_HEAD: Final = "head."


def _system_entropy() -> int:
    return secrets.randbits(63)


@dataclass(frozen=True, slots=True)
class _Problem:
    """The parameters that learn, by name, and all that stays."""

    network: nn.Module
    learning: Mapping[str, nn.Parameter]
    still: Mapping[str, Tensor]

    def gradients(self, maps: Tensor, labels: Tensor, smoothing: float) -> dict[str, Tensor]:
        """Return each look's gradient by parameter: N × its shape."""

        def loss(learning: Mapping[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
            logits = functional_call(self.network, {**self.still, **learning}, (one[None],))
            return functional.cross_entropy(logits, label[None], label_smoothing=smoothing)

        now = {name: value.detach() for name, value in self.learning.items()}
        found: dict[str, Tensor] = vmap(grad(loss), (None, 0, 0))(now, maps, labels)
        return found


class _Classifier(nn.Module):
    """From the trunk's maps to logits."""

    def __init__(self, model: CellModel) -> None:
        super().__init__()
        self.tail = model.tail
        self.head = model.head

    def forward(self, maps: Tensor) -> Tensor:
        logits: Tensor = self.head(self.tail(maps).mean(dim=(2, 3)))
        return logits


def learns(model: CellModel) -> dict[str, nn.Parameter]:
    """Return what learns under noise: the head, and the scales and shifts of the tail's normalisations.

    Noise grows with the number of values that learn, and these are two in a hundred of them (Bu et al. 2022).
    """
    named = dict(_Classifier(model).named_parameters())
    return {name: value for name, value in named.items() if name.startswith(_HEAD) or value.ndim == 1}


def train_privately(
    model: CellModel,
    source: Source,
    labels: Labels,
    units: Sequence[Unit],
    recipe: Recipe,
    noise: Noisy,
    *,
    clip: float,
    between: Between,
    entropy: Entropy = _system_entropy,
) -> None:
    """Train ``model`` in place on the cells of ``units``, as long and with as much noise as ``noise`` says.

    ``source`` has N cells, of the N class positions in ``labels``. ``between`` is called before each chunk.
    ``entropy`` seeds the sampling and the noise anew before each step. The default is the system's: whoever knew the
    seed could take the noise off again, so the recipe's has no part in it, and a private round cannot be repeated bit
    by bit.
    """
    problem = _problem(model)
    optimiser = _optimiser(problem.learning, recipe, noise, clip=clip, units=len(units))
    average = [value.detach().clone() for value in problem.learning.values()]
    try:
        for number in range(1, noise.steps + 1):
            optimiser.generator.manual_seed(entropy())
            random = np.random.default_rng(entropy())
            taken = random.random(len(units)) < noise.sample_rate
            drawn = [unit for unit, is_taken in zip(units, taken, strict=True) if is_taken]
            chunks = list(_chunks(drawn)) or [[]]  # drawing nobody is a step too
            for left, chunk in zip(reversed(range(len(chunks))), chunks, strict=True):
                between()
                _fill(problem, source, labels, chunk, recipe.label_smoothing, random)
                optimiser.signal_skip_step(do_skip=left > 0)
                optimiser.step()
                optimiser.zero_grad()
            _follow(average, problem.learning.values(), recipe.ema, number)
        with torch.no_grad():
            for kept, value in zip(average, problem.learning.values(), strict=True):
                value.copy_(kept)
    finally:
        for value in problem.learning.values():  # the model stays in memory, what Opacus hung on it need not
            for name in ("grad_sample", "summed_grad"):
                if hasattr(value, name):
                    delattr(value, name)


def _problem(model: CellModel) -> _Problem:
    network, learning = _Classifier(model), learns(model)
    still = {name: value.detach() for name, value in network.named_parameters() if name not in learning}
    return _Problem(network, learning, {**still, **dict(network.named_buffers())})


def _optimiser(
    learning: Mapping[str, nn.Parameter], recipe: Recipe, noise: Noisy, *, clip: float, units: int
) -> DPOptimizer:
    head = [value for name, value in learning.items() if name.startswith(_HEAD)]
    tail = [value for name, value in learning.items() if not name.startswith(_HEAD)]
    groups = [{"params": head, "lr": recipe.head_learning_rate}, {"params": tail, "lr": recipe.learning_rate}]
    return DPOptimizer(
        torch.optim.SGD([group for group in groups if group["params"]], momentum=_MOMENTUM),
        noise_multiplier=noise.noise_multiplier,
        max_grad_norm=clip,
        expected_batch_size=noise.sample_rate * units,
        generator=torch.Generator(head[0].device),
        secure_mode=True,
    )


def _follow(average: Sequence[Tensor], now: Iterable[Tensor], decay: float, number: int) -> None:
    """Move the weights' average on; a young one forgets faster."""
    weight = 1.0 - min(decay, number / (number + 10.0)) if decay else 1.0
    with torch.no_grad():
        for kept, value in zip(average, now, strict=True):
            kept.lerp_(value, weight)


def _chunks(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    """Yield the units, so many at a time as have `_CHUNK` looks together, at least one."""
    chunk: list[Unit] = []
    for unit in units:
        if chunk and (sum(map(len, chunk)) + len(unit)) * LOOKS > _CHUNK:
            yield chunk
            chunk = []
        chunk.append(unit)
    if chunk:
        yield chunk


def _fill(
    problem: _Problem,
    source: Source,
    labels: Labels,
    units: Sequence[Unit],
    smoothing: float,
    random: np.random.Generator,
) -> None:
    """Put each unit's mean gradient where Opacus' optimiser looks for it."""
    for value in problem.learning.values():
        value.grad_sample = torch.zeros((len(units), *value.shape), device=value.device)  # type: ignore[attr-defined]
    if not units:
        return
    sizes = [len(unit) for unit in units]
    cells = np.repeat(np.concatenate(units), LOOKS)
    owners = np.repeat(np.repeat(np.arange(len(units)), sizes), LOOKS)
    shares = 1.0 / (LOOKS * np.asarray(sizes, np.float32)[owners])
    for start in range(0, len(cells), _CHUNK):
        part = slice(start, start + _CHUNK)
        maps = source.draw(cells[part], random)
        wanted, owner, share = (
            torch.from_numpy(values[part]).to(maps.device) for values in (labels[cells], owners, shares)
        )
        for name, found in problem.gradients(maps, wanted, smoothing).items():
            weighted = found * share.view(-1, *[1] * (found.ndim - 1))
            problem.learning[name].grad_sample.index_add_(0, owner, weighted)  # type: ignore[attr-defined]
