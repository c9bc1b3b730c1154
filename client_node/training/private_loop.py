"""Local training with DP-SGD (Abadi et al. 2016): of each unit's gradient only a clipped, noised sum is ever used.

The head alone learns, on the features of the tail as it was received: noise grows with the number of values that learn,
and good features count for more than many of them (Tramèr & Boneh 2021). Every unit is drawn by itself with the same
probability (Poisson sampling, as the accountant assumes); its gradient is the mean over its cells and several looks at
each (De et al. 2022), taken by `torch.func`. Clipping, noise and averaging are Opacus'.

The features are first centred at a noised mean, which the accountant counts like a step: their common part would else
fill the clipping bound. Nothing here looks at the site's labels as a whole: no class counts, no absent classes, no
training loss, no choice of an epoch.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer
from torch import Tensor
from torch.func import grad, vmap
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

CENTRE: Final = Noisy(noise_multiplier=8.0, sample_rate=1.0, steps=1)
"""What the mean of the features spends: little beside the steps."""
_MOST_LOOKS: Final = 4
_MEMORY: Final = 256 * 1024 * 1024
"""Bytes that the features of all looks may take; one look at each cell there always is."""
CHUNK: Final = 128
"""Looks that go through the tail, or whose gradients are in memory, at once."""
_MOMENTUM: Final = 0.9
_UNIT_RATE: Final = 10.0
"""The recipe's rate of the head is one for AdamW; here a step is so many times that, in units of the clipping bound."""
_MOST_FEATURE: Final = 60_000.0
"""Below what half precision holds."""


def _system_entropy() -> int:
    return secrets.randbits(63)


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
    """Train ``model``'s head in place on the cells of ``units``, as long and with as much noise as ``noise`` says.

    ``source`` has N cells, of the N class positions in ``labels``. Spends `CENTRE` and ``noise``. ``between`` is called
    before each batch. ``entropy`` seeds sampling and noise anew before each step. The default is the system's: whoever
    knew the seed could take the noise off again, so that the recipe's has no part in it, and a private round cannot be
    repeated bit by bit.
    """
    seen = _features(model, source, entropy, between)
    centre = _centre(seen, units, entropy())
    head, optimiser = model.head, _optimiser(model, recipe, noise, clip=clip, units=len(units))
    shift = centre.to(head.weight.device)
    with torch.no_grad():
        head.bias.add_(head.weight @ shift)  # the same function of centred features
    parameters = (head.weight, head.bias)
    average = [value.detach().clone() for value in parameters]
    try:
        for number in range(1, noise.steps + 1):
            between()
            optimiser.generator.manual_seed(entropy())
            taken = np.random.default_rng(entropy()).random(len(units)) < noise.sample_rate
            drawn = [unit for unit, is_taken in zip(units, taken, strict=True) if is_taken]
            chunks = list(_chunks(drawn, seen.shape[1])) or [[]]  # drawing nobody is a step too
            for left, chunk in zip(reversed(range(len(chunks))), chunks, strict=True):
                _fill(model, seen, centre, labels, chunk, recipe.label_smoothing)
                optimiser.signal_skip_step(do_skip=left > 0)
                optimiser.step()
                optimiser.zero_grad()
            _follow(average, parameters, recipe.ema, number)
        with torch.no_grad():
            for kept, value in zip(average, parameters, strict=True):
                value.copy_(kept)
            head.bias.sub_(head.weight @ shift)
    finally:
        for value in parameters:  # the model stays in memory, what Opacus hung on it need not
            for name in ("grad_sample", "summed_grad"):
                if hasattr(value, name):
                    delattr(value, name)


def _features(model: CellModel, source: Source, entropy: Entropy, between: Between) -> Tensor:
    """Return the tail's features of several looks at each cell: N × looks × F, half precision, all finite.

    A centre could send a tail that overflows for one image alone: a number that is not finite cannot be clipped, and
    the round would fail only where that image takes part.
    """
    width, random = model.entry.feature_size, np.random.default_rng(entropy())
    looks = max(1, min(_MOST_LOOKS, _MEMORY // (2 * width * max(1, len(source)))))
    seen = torch.empty((len(source), looks, width), dtype=torch.float16)
    for start in range(0, len(source), CHUNK // looks):
        between()
        cells = np.arange(start, min(start + CHUNK // looks, len(source)))
        with torch.inference_mode():
            found = model.features(source.draw(np.repeat(cells, looks), random))
        bounded = found.float().nan_to_num(nan=0.0).clamp(-_MOST_FEATURE, _MOST_FEATURE)
        seen[cells] = bounded.reshape(len(cells), looks, width).cpu().half()
    return seen


def _centre(seen: Tensor, units: Sequence[Unit], seed: int) -> Tensor:
    """Return the mean feature over units, noised as `CENTRE` says, and shrunk as far as the noise explains it."""
    width = seen.shape[2]
    bound = width**0.5
    means = torch.stack([seen[unit].float().mean(dim=(0, 1)) for unit in units])
    total = (means * (bound / means.norm(dim=1, keepdim=True).clamp(min=1e-6)).clamp(max=1.0)).sum(dim=0)
    generator = torch.Generator().manual_seed(seed)
    deviation = CENTRE.noise_multiplier * bound / len(units)
    noised = total / len(units) + deviation * torch.randn(width, generator=generator)
    share = 1.0 - deviation**2 * width / float(noised.square().sum())  # James & Stein 1961
    centre: Tensor = noised * max(0.0, share)
    return centre


def _optimiser(model: CellModel, recipe: Recipe, noise: Noisy, *, clip: float, units: int) -> DPOptimizer:
    parameters = [model.head.weight, model.head.bias]
    rate = recipe.head_learning_rate * _UNIT_RATE / clip
    return DPOptimizer(
        torch.optim.SGD(parameters, lr=rate, momentum=_MOMENTUM),
        noise_multiplier=noise.noise_multiplier,
        max_grad_norm=clip,
        expected_batch_size=noise.sample_rate * units,
        generator=torch.Generator(parameters[0].device),
        secure_mode=True,
    )


def _chunks(units: Sequence[Unit], looks: int) -> Iterator[list[Unit]]:
    """Yield the units, so many at a time as have `CHUNK` looks together, at least one."""
    chunk: list[Unit] = []
    for unit in units:
        if chunk and (sum(map(len, chunk)) + len(unit)) * looks > CHUNK:
            yield chunk
            chunk = []
        chunk.append(unit)
    if chunk:
        yield chunk


def _fill(
    model: CellModel, seen: Tensor, centre: Tensor, labels: Labels, units: Sequence[Unit], smoothing: float
) -> None:
    """Put each unit's mean gradient where Opacus' optimiser looks for it; what is not finite of a look counts as 0."""
    weight, bias = model.head.weight, model.head.bias
    for value in (weight, bias):
        value.grad_sample = torch.zeros((len(units), *value.shape), device=value.device)  # type: ignore[attr-defined]
    if not units:
        return
    looks, sizes = seen.shape[1], [len(unit) for unit in units]
    cells = np.concatenate(units)
    owners = torch.from_numpy(np.repeat(np.arange(len(units)), sizes)).repeat_interleave(looks)
    wanted = torch.from_numpy(labels[cells]).repeat_interleave(looks)
    shares = 1.0 / (looks * torch.tensor(sizes)[owners])
    for start in range(0, len(wanted), CHUNK):
        part = slice(start, start + CHUNK)
        rows = torch.arange(len(wanted))[part]
        inputs = seen[torch.from_numpy(cells)[rows // looks], rows % looks].float() - centre
        on = weight.device
        found = gradients(weight, bias, inputs.to(on), wanted[part].to(on), smoothing)
        for value, raw in zip((weight, bias), found, strict=True):
            each = raw.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
            weighted = each * shares[part].to(on).view(-1, *[1] * (each.ndim - 1))
            value.grad_sample.index_add_(0, owners[part].to(on), weighted)  # type: ignore[attr-defined]


def gradients(weight: Tensor, bias: Tensor, inputs: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return each look's gradient by weight (N × K × F) and bias (N × K)."""

    def loss(weight: Tensor, bias: Tensor, one: Tensor, label: Tensor) -> Tensor:
        return functional.cross_entropy(functional.linear(one, weight, bias), label, label_smoothing=smoothing)

    of = vmap(grad(loss, argnums=(0, 1)), (None, None, 0, 0))
    found: tuple[Tensor, Tensor] = of(weight.detach(), bias.detach(), inputs, labels)
    return found


def _follow(average: Sequence[Tensor], now: Iterable[Tensor], decay: float, number: int) -> None:
    """Move the weights' average on; a young one forgets faster."""
    weight = 1.0 - min(decay, number / (number + 10.0)) if decay else 1.0
    with torch.no_grad():
        for kept, value in zip(average, now, strict=True):
            kept.lerp_(value, weight)
