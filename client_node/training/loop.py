"""Local training of the tail and head on cached maps: what one hospital does in one round."""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from client_node.training.cache import Between, Maps
from shared.contracts.training import Recipe
from shared.vision.model import CellModel

Labels = NDArray[np.int64]

BALANCE: Final = 0.7
"""Exponent of the class-balanced sampling: 0 = as the site's cells are, 1 = every class equally often."""
ABSENT_PENALTY: Final = 4.0
"""Subtracted, in the loss only, from the logits of classes that the site has no cell of (restricted softmax; Li &
Zhan 2021): a hospital that never sees a class then hardly teaches the others to forget it."""
ABSENT_SHARE: Final = 0.3
"""How much of their change the head's rows of such classes keep. AdamW scales small gradients up, so that the penalty
alone does not hold them back; at 0 the site's own cells drift into classes it never sees."""
STEPS_AN_EPOCH: Final = 36
"""Least steps an epoch: a small hospital's epoch would otherwise be over before it has learnt anything."""
_WARM_UP: Final = 0.1
_CLIP: Final = 1.0
_CHUNK: Final = 128


def predict(model: CellModel, maps: Maps, *, between: Between) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (logits, features) of N cells from their maps (N × C × H × W float16)."""
    logits, features = [], []
    for start in range(0, len(maps), _CHUNK):
        between()
        with torch.inference_mode():
            chunk = model.features(torch.from_numpy(np.ascontiguousarray(maps[start : start + _CHUNK])).float())
            logits.append(model.head(chunk).numpy())
            features.append(chunk.numpy())
    if not logits:
        width = model.entry.feature_size
        return np.zeros((0, model.head.out_features), np.float32), np.zeros((0, width), np.float32)
    return np.concatenate(logits), np.concatenate(features)


def train(model: CellModel, maps: Maps, labels: Labels, recipe: Recipe, *, seed: int, between: Between) -> float:
    """Train ``model``'s tail and head in place; return the mean loss.

    ``maps`` are N × views × C × H × W float16, ``labels`` N class positions. AdamW with warm-up and a cosine over the
    round, sampling balanced by class, label smoothing, the maps turned and mirrored at random, and the proximal
    term of FedProx (Li et al. 2020) where the recipe has one. ``between`` is called before each step.
    """
    random = np.random.default_rng(seed)
    counts = np.bincount(labels, minlength=len(recipe.classes))
    shares = counts[labels].astype(np.float64) ** -BALANCE
    shares /= shares.sum()
    steps = recipe.local_epochs * max(STEPS_AN_EPOCH, math.ceil(len(labels) / recipe.batch_size))
    loss_of = _loss(torch.from_numpy(counts > 0), recipe.label_smoothing)
    head = [value.detach().clone() for value in model.head.parameters()]
    anchor = [value.detach().clone() for value in _trainable(model)] if recipe.proximal_mu else []
    optimiser = _optimiser(model, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _cosine(steps))
    total = 0.0
    for _ in range(steps):
        between()
        chosen = random.choice(len(labels), recipe.batch_size, p=shares)
        looks = random.integers(0, maps.shape[1], recipe.batch_size)
        batch = _turned(torch.from_numpy(maps[chosen, looks]).float(), int(random.integers(0, 8)))
        loss = loss_of(model.head(model.features(batch)), torch.from_numpy(labels[chosen]))
        total += float(loss.detach())
        if anchor:
            pairs = zip(_trainable(model), anchor, strict=True)
            loss = loss + recipe.proximal_mu / 2.0 * torch.stack([((a - b) ** 2).sum() for a, b in pairs]).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        nn.utils.clip_grad_norm_(_trainable(model), _CLIP)
        optimiser.step()
        schedule.step()
    absent = torch.from_numpy(counts == 0)
    with torch.no_grad():
        for value, before in zip(model.head.parameters(), head, strict=True):
            value[absent] = torch.lerp(before[absent], value[absent], ABSENT_SHARE)
    return total / steps


def _trainable(model: CellModel) -> list[nn.Parameter]:
    return [*model.tail.parameters(), *model.head.parameters()]


def _optimiser(model: CellModel, recipe: Recipe) -> torch.optim.Optimizer:
    groups = [
        {"params": list(model.tail.parameters()), "lr": recipe.learning_rate},
        {"params": list(model.head.parameters()), "lr": recipe.head_learning_rate},
    ]
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)


def _cosine(steps: int) -> Callable[[int], float]:
    warm = max(1, round(steps * _WARM_UP))
    return lambda step: min(1.0, (step + 1) / warm) * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def _turned(maps: Tensor, which: int) -> Tensor:
    """Return one of the eight symmetries of the square."""
    if which & 1:
        maps = maps.flip(2)
    if which & 2:
        maps = maps.flip(3)
    return maps.transpose(2, 3) if which & 4 else maps


def _loss(present: Tensor, smoothing: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the cross-entropy whose smoothing goes to the present classes alone."""
    penalty = torch.where(present, 0.0, -ABSENT_PENALTY)
    spread = torch.where(present, smoothing / float(present.sum()), 0.0)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        goal = spread.repeat(len(labels), 1)
        goal[torch.arange(len(labels)), labels] += 1.0 - smoothing
        return -(goal * functional.log_softmax(logits + penalty, dim=1)).sum(dim=1).mean()

    return loss
