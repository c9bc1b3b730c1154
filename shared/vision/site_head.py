"""What a site adds to the shared head from its own labelled cells: the part of a model that never leaves the hospital.

A laboratory that the model has never seen is read badly less because its features say nothing than because the shared
head cuts them in the wrong places. A site's head moves those cuts: ``scale · logits + Z · weights + bias``, where Z are
the features in the site's own mean and spread. It is drawn towards the shared head (Li et al. 2021, Ditto, for the head
alone), is kept only where held-out cells say that it helps, and says nothing of classes the site has never labelled.
numpy and SciPy only: an analysing node needs no torch.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.optimize import minimize

Floats = NDArray[np.float64]
Inputs = NDArray[np.float32]
Labels = NDArray[np.int64]

LEAST_CELLS: Final = 20
PULLS: Final = (0.01, 0.1, 1.0)
"""How strongly a head may be drawn towards the shared one; chosen by cross-fitting."""
CLEARLY: Final = 0.9
"""Share of the shared head's loss that a site's head must stay below: few cells tell little."""
_BIAS_PULL: Final = 0.1
_SCALE_PULL: Final = 1.0
_FOLDS: Final = 5
_STEPS: Final = 200
_LEAST_SPREAD: Final = 1e-3


class SiteHead(BaseModel):
    """A site's correction of K logits by F features."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: int = Field(ge=2, le=64)
    features: int = Field(ge=1, le=4096)
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    numbers: str
    """Base64 of little-endian fp32, row by row: mean and spread of the features (F each), weights (F × K), bias (K)."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if len(b64decode(self.numbers, validate=True)) != 4 * (self.features * (2 + self.classes) + self.classes):
            raise ValueError("the numbers are not as many as the head needs")
        return self

    @cached_property
    def _parts(self) -> tuple[Floats, Floats, Floats, Floats]:
        flat = np.frombuffer(b64decode(self.numbers), "<f4").astype(np.float64)
        mean, spread, weights, bias = np.split(
            flat, np.cumsum([self.features, self.features, self.features * self.classes])
        )
        return mean, spread, weights.reshape(self.features, self.classes), bias

    def applied(self, logits: Inputs, features: Inputs) -> Inputs:
        """Return the site's logits (N × K) of N cells from the shared head's and the features (N × F).

        Raises:
            ValueError: the head was made for another model.
        """
        if logits.shape[1] != self.classes or features.shape[1] != self.features:
            raise ValueError("the site's head does not fit the model")
        mean, spread, weights, bias = self._parts
        return np.asarray(self.scale * logits + (features - mean) / spread @ weights + bias, np.float32)


def better(head: SiteHead, logits: Inputs, features: Inputs, labels: Labels) -> bool:
    """Return whether a head does clearly better than the shared one on N cells that it was not fitted on."""
    return bool(len(labels)) and _loss(head.applied(logits, features), labels) < CLEARLY * _loss(logits, labels)


def chosen_head(logits: Inputs, features: Inputs, labels: Labels, groups: Sequence[str] = ()) -> SiteHead | None:
    """Return the site's head, or None where the shared one does as well on cells that no head was fitted on.

    Args:
        logits: N × K of the site's labelled cells; none of them may be a cell that the result is judged by later.
        features: N × F.
        labels: N class positions.
        groups: N names; cells of one group are near duplicates and are never torn apart.
    """
    folds = _folds(len(labels), groups)
    if len(labels) < LEAST_CELLS or len(np.unique(labels)) < 2 or len(folds) < 2:
        return None
    shared = _loss(logits, labels)
    losses = {pull: _loss(_crossed(logits, features, labels, folds, pull), labels) for pull in PULLS}
    best = min(losses, key=lambda pull: losses[pull])
    return fit(logits, features, labels, pull=best) if losses[best] < CLEARLY * shared else None


def fit(logits: Inputs, features: Inputs, labels: Labels, *, pull: float) -> SiteHead:
    """Return the head of least class-balanced cross-entropy on N cells, drawn towards the shared one by ``pull``.

    The loss is over the classes that occur; of the others neither weights nor bias move. The sum over cells is
    weighed against ``pull`` times the squared weights, so that more cells move the head further.
    """
    mean, spread = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64) + _LEAST_SPREAD
    spread = spread * np.sqrt(features.shape[1])  # a cell's Z then has length one, whatever the network's width
    present = np.unique(labels)
    problem = _Problem(
        (features - mean) / spread, logits[:, present].astype(np.float64), np.searchsorted(present, labels), pull
    )
    found = minimize(problem, problem.start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x
    scale, moved, bias = problem.parts(found)
    weights, shift = np.zeros((features.shape[1], logits.shape[1])), np.zeros(logits.shape[1])
    weights[:, present], shift[present] = moved, bias
    numbers = np.concatenate([mean, spread, weights.ravel(), shift]).astype("<f4")
    return SiteHead(
        classes=logits.shape[1],
        features=features.shape[1],
        scale=float(scale),
        numbers=b64encode(numbers.tobytes()).decode(),
    )


class _Problem:
    """Loss and gradient of a head on N cells: the logarithm of the scale, the weights and the bias in one vector."""

    def __init__(self, points: Floats, logits: Floats, labels: Labels, pull: float) -> None:
        self._points, self._logits, self._labels, self._pull = points, logits, labels, pull
        counts = np.bincount(labels, minlength=logits.shape[1])
        self._share = (len(labels) / len(counts) / counts)[labels]
        self._wanted = np.eye(len(counts))[labels]
        self.start = np.zeros(1 + (points.shape[1] + 1) * logits.shape[1])

    def parts(self, vector: Floats) -> tuple[float, Floats, Floats]:
        """Return (scale, weights F × C, bias C) of a vector."""
        count = self._logits.shape[1]
        return float(np.exp(vector[0])), vector[1:-count].reshape(-1, count), vector[-count:]

    def __call__(self, vector: Floats) -> tuple[float, Floats]:
        scale, weights, bias = self.parts(vector)
        scores = scale * self._logits + self._points @ weights + bias
        chances = _log_softmax(scores)
        loss = -(self._share * chances[np.arange(len(scores)), self._labels]).sum()
        loss += self._pull * (weights**2).sum() + _BIAS_PULL * (bias**2).sum() + _SCALE_PULL * vector[0] ** 2
        error = self._share[:, None] * (np.exp(chances) - self._wanted)
        slope = np.concatenate([
            [(error * self._logits).sum() * scale + 2 * _SCALE_PULL * vector[0]],
            (self._points.T @ error + 2 * self._pull * weights).ravel(),
            error.sum(axis=0) + 2 * _BIAS_PULL * bias,
        ])  # fmt: skip
        return float(loss), slope


def _crossed(logits: Inputs, features: Inputs, labels: Labels, folds: list[NDArray[np.bool_]], pull: float) -> Inputs:
    """Return the logits of each cell by a head that was fitted without it."""
    found = np.array(logits)
    for fold in folds:
        head = fit(logits[~fold], features[~fold], labels[~fold], pull=pull)
        found[fold] = head.applied(logits[fold], features[fold])
    return found


def _folds(count: int, groups: Sequence[str]) -> list[NDArray[np.bool_]]:
    """Return masks of at most `_FOLDS` parts that keep groups whole, the largest groups spread first."""
    names = list(groups) or [str(number) for number in range(count)]
    sizes = {name: names.count(name) for name in dict.fromkeys(names)}
    filled, place = [0] * _FOLDS, dict[str, int]()
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        place[name] = int(np.argmin(filled))
        filled[place[name]] += sizes[name]
    parts = np.array([place[name] for name in names])
    return [parts == number for number in range(_FOLDS) if (parts == number).any()]


def _loss(logits: Inputs, labels: Labels) -> float:
    """Return the cross-entropy, averaged over the classes that occur rather than over cells."""
    losses = -_log_softmax(logits.astype(np.float64))[np.arange(len(labels)), labels]
    return float(np.mean([losses[labels == position].mean() for position in np.unique(labels)]))


def _log_softmax(scores: Floats) -> Floats:
    moved = scores - scores.max(axis=1, keepdims=True)
    result: Floats = moved - np.log(np.exp(moved).sum(axis=1, keepdims=True))
    return result
