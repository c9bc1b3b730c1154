"""What a site learns about a model on its own cells: honest probabilities, prediction sets and when to distrust.

numpy only: an analysing node needs no torch. The adapter stays on the site and never breaks the signed model.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from shared.contracts.training import CalibrationSummary
from shared.statistics import clopper_pearson
from shared.vision import space as spaces
from shared.vision.colour import SiteView
from shared.vision.known import Known

Floats = NDArray[np.float64]

LEVEL = 0.95
"""Share of cells whose true class the prediction set shall hold."""
LEAST_CELLS = 20
"""Below this many validation cells a conformal quantile says nothing; the default stands in."""
DEFAULT_QUANTILE = 0.9
_TEMPERATURES = (0.25, 8.0)
_TEMPERATURE_PRIOR = 4.0
"""Weight, in cells, of the belief that the temperature is 1: few cells move it little."""
_ENTROPY_LIMIT = 0.6
_CELLS_A_DIMENSION = 4
VOUCHES = 200 / 3
"""Percent of a site's validation cells that the model must read rightly (the lower end of the exact 95 % interval) for
the site's own space to count alone: a stain is not known because there is much of it."""


class FeatureSpace(BaseModel):
    """A Gaussian in the leading principal components of the features, and the spread outside of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, ...]
    components: tuple[tuple[float, ...], ...]
    """Orthonormal rows, each as long as ``mean``."""
    deviations: tuple[float, ...]
    residual: float
    """Root mean square length of what the components leave out."""
    threshold: float = Field(gt=0)
    """Distance at which a cell counts as out of distribution."""

    @cached_property
    def space(self) -> spaces.Space:
        """It, to measure distances in."""
        return spaces.Space(
            np.asarray(self.mean), np.asarray(self.components), np.asarray(self.deviations), self.residual
        )


class Adapter(BaseModel):
    """A site's calibration of one model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: Annotated[float, Field(gt=0)] = 1.0
    conformal_quantile: Annotated[float, Field(ge=0, le=1)] = DEFAULT_QUANTILE
    level: Annotated[float, Field(gt=0, lt=1)] = LEVEL
    space: FeatureSpace | None = None
    view: SiteView = SiteView()
    """How the site's cells are shown to the model; the rest was fitted on cells shown so."""
    cells: int = 0
    """Validation cells it was fitted on; 0 = the model's defaults."""
    right: int | None = None
    """How many of them the model reads rightly; None: not counted, by an older release."""

    @property
    def vouched(self) -> bool:
        """Whether the site has a space of its own, of cells that the model was shown to read."""
        if self.space is None or self.right is None:
            return self.space is not None
        return clopper_pearson(self.right, self.cells)[0] >= VOUCHES

    @property
    def summary(self) -> CalibrationSummary:
        """The part that may leave the site."""
        return CalibrationSummary(temperature=self.temperature, conformal_quantile=self.conformal_quantile)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Result of `apply` for N cells and K classes."""

    probabilities: Floats
    """N × K, rows sum to 1."""
    sets: NDArray[np.bool_]
    """N × K: whether the class is in the prediction set."""
    ood_scores: Floats
    """N: 1.0 = at the threshold."""


def default_adapter(summary: CalibrationSummary) -> Adapter:
    """Return what a hospital without validation data of its own uses."""
    return Adapter(temperature=summary.temperature, conformal_quantile=summary.conformal_quantile)


def fit_adapter(
    logits: NDArray[np.float32],
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    reference: NDArray[np.float32] | None = None,
    level: float = LEVEL,
    view: SiteView | None = None,
) -> Adapter:
    """Fit an adapter on N validation cells (N may be 0).

    ``logits`` N × K, ``features`` N × F, ``labels`` N class positions. ``reference`` (M × F) are features of training
    cells: with them the feature space is fitted there and only its threshold on the validation cells, which a site
    with few of those needs. ``level`` is the share of cells whose true class the prediction sets shall hold; ``view``
    is how all these cells were shown to the model.
    """
    count = len(labels)
    temperature = _fit_temperature(logits.astype(np.float64), labels) if count else 1.0
    quantile = DEFAULT_QUANTILE
    if count >= LEAST_CELLS:
        quantile = _fit_quantile(_softmax(logits.astype(np.float64) / temperature), labels, level)
    return Adapter(
        temperature=temperature,
        conformal_quantile=quantile,
        level=level,
        space=_fit_space(features, reference),
        view=view or SiteView(),
        cells=count,
        right=int((logits.argmax(axis=1) == labels).sum()) if count else None,
    )


def apply(
    adapter: Adapter, logits: NDArray[np.float32], features: NDArray[np.float32], known: Known | None = None
) -> Calibrated:
    """Return probabilities, prediction sets and out-of-distribution scores of N cells (logits N × K, features N × F).

    A set holds the likeliest class and every class whose likelier classes' cumulative probability stays within the
    quantile. ``known``: the laboratories that the model learnt from, see `strangeness` for how they count. Raises
    ValueError where a space or a class count does not fit the model.
    """
    probabilities = _softmax(logits.astype(np.float64) / adapter.temperature)
    sets = _likelier(probabilities) <= adapter.conformal_quantile
    return Calibrated(probabilities, sets, strangeness(adapter, probabilities, features, known))


def strangeness(adapter: Adapter, probabilities: Floats, features: NDArray[np.float32], known: Known | None) -> Floats:
    """Return the out-of-distribution score of N cells, 1.0 at the threshold.

    A site's own space counts alone where the model was shown to read the site's cells (`Adapter.vouched`): what lies
    beyond it is strange here, even if another laboratory would know it. Where the model reads them badly, a cell must
    also be within a laboratory that the model learnt from: the greater of the two scores counts. A site without a
    space of its own scores by the least distance to a known laboratory. Where the model carries none (an old one), the
    entropy of the probabilities is left: a far weaker sign.
    """
    if adapter.space is not None:
        own: Floats = adapter.space.space.distances(features) / adapter.space.threshold
        return own if adapter.vouched or known is None else np.maximum(own, known.scores(features))
    if known is not None:
        return known.scores(features)
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1)
    result: Floats = entropy / np.log(probabilities.shape[1]) / _ENTROPY_LIMIT
    return result


def balanced_loss(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the cross-entropy, averaged over the classes that occur in ``labels`` rather than over cells."""
    scores = logits.astype(np.float64)
    top = scores.max(axis=1)
    losses = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top - scores[np.arange(len(labels)), labels]
    return float(np.mean([losses[labels == position].mean() for position in np.unique(labels)]))


def tempered_loss(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the `balanced_loss` that is left when the temperature is fitted to the same cells."""
    return balanced_loss((logits / _fit_temperature(logits.astype(np.float64), labels)).astype(np.float32), labels)


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result


def _likelier(probabilities: Floats) -> Floats:
    """Return for each class the summed probability of the classes likelier than it (0 for the likeliest)."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    before[:, 0] = 0.0
    result = np.empty_like(before)
    np.put_along_axis(result, order, before, axis=1)
    return result


def _fit_temperature(logits: Floats, labels: NDArray[np.int64]) -> float:
    """Minimise the likelihood loss over the temperature by golden section on its logarithm (Guo et al. 2017)."""

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        top = scaled.max(axis=1)
        normaliser = np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top
        fit = float((normaliser - scaled[np.arange(len(labels)), labels]).sum())
        return fit + _TEMPERATURE_PRIOR * log_temperature**2

    low, high = np.log(_TEMPERATURES[0]), np.log(_TEMPERATURES[1])
    golden = (np.sqrt(5.0) - 1.0) / 2.0
    for _ in range(40):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2.0))


def _fit_quantile(probabilities: Floats, labels: NDArray[np.int64], level: float) -> float:
    """Return the split-conformal quantile of the true classes' scores (Romano et al. 2020, without randomness)."""
    scores = np.sort(_likelier(probabilities)[np.arange(len(labels)), labels])
    rank = int(np.ceil((len(labels) + 1) * level))
    return float(min(1.0, scores[min(rank, len(scores)) - 1]))


def _fit_space(features: NDArray[np.float32], reference: NDArray[np.float32] | None) -> FeatureSpace | None:
    """Fit the space and its threshold: a quantile of the distances of cells that the space was not fitted on."""
    own = features.astype(np.float64)
    fitted = own if reference is None or not len(reference) else reference.astype(np.float64)
    if len(fitted) < LEAST_CELLS:
        return None
    dimensions = len(fitted) // _CELLS_A_DIMENSION
    found = spaces.fit(fitted, dimensions=dimensions)
    if fitted is not own and len(own) >= LEAST_CELLS:
        distances = found.distances(own)
    else:
        distances = spaces.crossed(fitted, dimensions=dimensions)
    return FeatureSpace(
        mean=tuple(np.round(found.mean, 6).tolist()),
        components=tuple(tuple(row) for row in np.round(found.components, 6).tolist()),
        deviations=tuple(found.deviations.tolist()),
        residual=found.residual,
        threshold=spaces.threshold(distances),
    )
