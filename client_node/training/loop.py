"""Local training: what one hospital does in one round."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from client_node.datasets.labelled import LabelledCell
from client_node.training.cache import Between
from client_node.training.sources import Source
from shared.contracts.training import Balance, Recipe
from shared.vision.device import grad_scaler, mixed_precision
from shared.vision.model import CellModel

Labels = NDArray[np.int64]
Validate = Callable[[CellModel], float]
"""Returns the loss on cells that did not teach: less is better."""

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
HELD_OUT: Final = 8
"""One of so many groups says when to stop, where the recipe has patience."""
LEAST_HELD: Final = 16
FOCUS: Final = 2.0
"""Exponent of the focal loss."""
_WARM_UP: Final = 0.1
_CLIP: Final = 1.0
_CHUNK: Final = 64


def apart(cells: Sequence[LabelledCell]) -> tuple[list[LabelledCell], list[LabelledCell]]:
    """Return the training cells that teach, and those that say when to stop: whole groups, the same in every round.

    Validation cells must not say it: they vouch for the prediction sets later. Where too few would be held out to say
    anything, all teach, and no round stops early.
    """
    held = {cell.group for cell in cells if int(sha256(cell.group.encode()).hexdigest()[:8], 16) % HELD_OUT == 0}
    watched = [cell for cell in cells if cell.group in held]
    if len(watched) < LEAST_HELD or len({cell.cls for cell in watched}) < 2:
        return list(cells), []
    return [cell for cell in cells if cell.group not in held], watched


def predict(model: CellModel, source: Source, *, between: Between) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (logits N × K, features N × F) of a source's cells, as analysis sees them."""
    logits, features = [], []
    for start in range(0, len(source), _CHUNK):
        between()
        with torch.inference_mode():
            chunk = model.features(source.plain(start, start + _CHUNK))
            logits.append(model.head(chunk).float().cpu().numpy())
            features.append(chunk.float().cpu().numpy())
    if not logits:
        width = model.entry.feature_size
        return np.zeros((0, model.head.out_features), np.float32), np.zeros((0, width), np.float32)
    return np.concatenate(logits), np.concatenate(features)


def train(
    model: CellModel,
    source: Source,
    labels: Labels,
    recipe: Recipe,
    *,
    seed: int,
    between: Between,
    validate: Validate | None = None,
) -> float:
    """Train ``model``'s tail and head in place on ``source``, whose N class positions are ``labels``; return the loss.

    AdamW with warm-up and a cosine over the round, what the recipe says about rare classes, label smoothing, a moving
    average of the weights, first the head alone, and the proximal term of FedProx (Li et al. 2020) where the recipe
    has them. With ``validate`` and the recipe's ``patience`` the best epoch's weights are the result. ``between`` is
    called before each step. The same seed gives the same weights on the same machine.
    """
    random = np.random.default_rng(seed)
    counts = np.bincount(labels, minlength=len(recipe.classes))
    shares = _shares(labels, counts, recipe.balance)
    epoch = max(STEPS_AN_EPOCH, math.ceil(len(labels) / recipe.batch_size))
    device = next(model.parameters()).device
    loss_of = _Loss(counts, recipe, device)
    head = [value.detach().clone() for value in model.head.parameters()]
    anchor = [value.detach().clone() for value in _trainable(model)] if recipe.proximal_mu else []
    optimiser = _optimiser(model, recipe)
    stepper = Stepper(
        _trainable(model),
        optimiser,
        grad_scaler(device),
        steps=recipe.local_epochs * epoch,
        head_steps=recipe.head_epochs * epoch,
    )
    average = _Average(model, recipe.ema)
    best = _Best(recipe.patience) if validate is not None and recipe.patience else None
    total, done = 0.0, 0
    for _ in range(recipe.local_epochs):
        for _ in range(epoch):
            between()
            chosen = random.choice(len(labels), recipe.batch_size, p=shares)
            batch = source.draw(chosen, random)
            with mixed_precision(batch.device):
                logits = model.head(model.features(batch))
            loss = loss_of(logits.float(), labels[chosen])
            total, done = total + float(loss.detach()), done + 1
            if anchor:
                pairs = zip(_trainable(model), anchor, strict=True)
                loss = loss + recipe.proximal_mu / 2.0 * torch.stack([((a - b) ** 2).sum() for a, b in pairs]).sum()
            stepper.step(loss)
            average.update()
        if best is not None and validate is not None:
            with average.applied():
                if best.over(validate(model), model):
                    break
    average.apply()
    if best is not None:
        best.restore(model)
    absent = torch.from_numpy(counts == 0).to(device)
    with torch.no_grad():
        for value, before in zip(model.head.parameters(), head, strict=True):
            value[absent] = torch.lerp(before[absent], value[absent], ABSENT_SHARE)
    return total / done


def _trainable(model: CellModel) -> list[nn.Parameter]:
    return [*model.tail.parameters(), *model.head.parameters()]


def _shares(labels: Labels, counts: NDArray[np.int64], balance: Balance) -> NDArray[np.float64]:
    exponent = BALANCE if balance is Balance.SAMPLER else 0.0
    shares = counts[labels].astype(np.float64) ** -exponent
    result: NDArray[np.float64] = shares / shares.sum()
    return result


def _optimiser(model: CellModel, recipe: Recipe) -> torch.optim.Optimizer:
    groups = [
        {"params": list(model.tail.parameters()), "lr": recipe.learning_rate},
        {"params": list(model.head.parameters()), "lr": recipe.head_learning_rate},
    ]
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)


class Stepper:
    """The optimiser's steps: clipped, after warm-up on a cosine, the tail still while only the head learns.

    ``optimiser`` has the tail's parameters as its first group and the head's as its second. A step whose scaled
    gradients overflow float16 is left out, and the next ones are scaled less.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        optimiser: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        *,
        steps: int,
        head_steps: int,
    ) -> None:
        self._parameters = parameters
        self._optimiser = optimiser
        self._scaler = scaler
        whole = _cosine(steps)
        later = _cosine(max(1, steps - head_steps))
        tail = (lambda step: later(step - head_steps) if step >= head_steps else 0.0) if head_steps else whole
        self._schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, [tail, whole])

    def step(self, loss: Tensor) -> None:
        """Make one step down ``loss``."""
        self._optimiser.zero_grad()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        self._scaler.unscale_(self._optimiser)  # what is clipped are the gradients themselves
        nn.utils.clip_grad_norm_(self._parameters, _CLIP)
        scale = self._scaler.get_scale()
        self._scaler.step(self._optimiser)
        self._scaler.update()
        if self._scaler.get_scale() >= scale:
            self._schedule.step()


def _cosine(steps: int) -> Callable[[int], float]:
    warm = max(1, round(steps * _WARM_UP))
    return lambda step: min(1.0, (step + 1) / warm) * 0.5 * (1.0 + math.cos(math.pi * min(step, steps) / steps))


class _Average:
    """The moving average of the weights; young averages forget faster, so that the start does not weigh on them."""

    def __init__(self, model: CellModel, decay: float) -> None:
        self._decay = decay
        self._parameters = _trainable(model)
        self._values = [value.detach().clone() for value in self._parameters] if decay else []
        self._steps = 0

    def update(self) -> None:
        if self._values:
            self._steps += 1
            weight = 1.0 - min(self._decay, self._steps / (self._steps + 10.0))
            with torch.no_grad():
                for value, now in zip(self._values, self._parameters, strict=True):
                    value.lerp_(now, weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with the average in place of its weights, for a while."""
        kept = [value.detach().clone() for value in self._parameters] if self._values else []
        self.apply()
        try:
            yield
        finally:
            _copy(kept, self._parameters)

    def apply(self) -> None:
        _copy(self._values, self._parameters)


def _copy(source: list[Tensor], target: list[nn.Parameter]) -> None:
    with torch.no_grad():
        for value, slot in zip(source, target, strict=False):  # no values: nothing to copy
            slot.copy_(value)


class _Best:
    """The weights of the epoch that did best."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._least = math.inf
        self._waited = 0
        self._values: list[Tensor] = []

    def over(self, loss: float, model: CellModel) -> bool:
        """Take note of an epoch; return whether to stop."""
        if loss < self._least:
            self._least, self._waited = loss, 0
            self._values = [value.detach().clone() for value in _trainable(model)]
        else:
            self._waited += 1
        return self._waited >= self._patience

    def restore(self, model: CellModel) -> None:
        _copy(self._values, _trainable(model))


class _Loss:
    """Cross-entropy whose smoothing goes to the present classes alone, with the recipe's measure for rare classes."""

    def __init__(self, counts: NDArray[np.int64], recipe: Recipe, device: torch.device) -> None:
        present = counts > 0
        shift = np.where(present, 0.0, -ABSENT_PENALTY)
        if recipe.balance is Balance.LOGIT:
            shift = shift + np.log(np.maximum(counts, 1) / counts.sum())
        spread = np.where(present, recipe.label_smoothing / present.sum(), 0.0)
        self._shift = torch.from_numpy(shift).float().to(device)
        self._spread = torch.from_numpy(spread).float().to(device)
        self._sure = 1.0 - recipe.label_smoothing
        self._focal = recipe.balance is Balance.FOCAL
        self._device = device

    def __call__(self, logits: Tensor, labels: Labels) -> Tensor:
        wanted = torch.from_numpy(labels).to(self._device)
        rows = torch.arange(len(labels), device=self._device)
        goal = self._spread.repeat(len(labels), 1)
        goal[rows, wanted] += self._sure
        chances = functional.log_softmax(logits + self._shift, dim=1)
        losses = -(goal * chances).sum(dim=1)
        if self._focal:
            losses = losses * (1.0 - chances[rows, wanted].exp()) ** FOCUS
        return losses.mean()
