"""What a site learns about a model on its own cells: honest probabilities, prediction sets and when to distrust.

numpy only: an analysing node needs no torch. The adapter stays on the site and never breaks the signed model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from shared.contracts.training import CalibrationSummary
from shared.statistics import clopper_pearson
from shared.vision import conformal
from shared.vision import space as spaces
from shared.vision.colour import SiteView
from shared.vision.conformal import DEFAULT_QUANTILE, LEVEL
from shared.vision.known import Known
from shared.vision.site_head import SiteHead

Floats = NDArray[np.float64]

LEAST_CELLS = 20
"""Cells without which a site has no space of its own."""
_TEMPERATURES = (0.25, 8.0)
_TEMPERATURE_PRIOR = 4.0
"""Weight, in cells, of the belief that the temperature is 1: few cells move it little."""
_ENTROPY_LIMIT = 0.6
_CELLS_A_DIMENSION = 4
VOUCHES = 200 / 3
"""Percent of a site's validation cells that the model must read rightly (the lower end of the exact 95 % interval) for
the site's own space to count alone: a stain is not known because there is much of it."""


class FeatureSpace(BaseModel):
    """Where the site's cells lie among the model's features; see `shared.vision.space`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, ...]
    components: tuple[tuple[float, ...], ...]
    """Orthonormal rows, each as long as ``mean``."""
    deviations: tuple[float, ...]
    residual: float
    """Length of what the components leave out."""
    share: float | None = None
    """Its share of the whole length; None: fitted by an older release, which did not look at it."""
    threshold: float = Field(gt=0)
    """Distance at which a cell counts as out of distribution."""

    @cached_property
    def space(self) -> spaces.Space:
        """It, to measure distances in."""
        return spaces.Space(
            np.asarray(self.mean), np.asarray(self.components), np.asarray(self.deviations), self.residual, self.share
        )


class Adapter(BaseModel):
    """A site's calibration of one model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: Annotated[float, Field(gt=0)] = 1.0
    conformal_quantile: Annotated[float, Field(ge=0, le=1)] = DEFAULT_QUANTILE
    level: Annotated[float, Field(gt=0, lt=1)] = LEVEL
    """Share of cells whose true class the sets are made to hold."""
    promised: Annotated[float, Field(gt=0, lt=1)] | None = None
    """That share as far as the site's own cells vouch for it; None: they do not, or an older release fitted it."""
    quantiles: tuple[tuple[float, float], ...] = ()
    """Of other levels, (level, quantile), as far as the cells vouch for them."""
    space: FeatureSpace | None = None
    view: SiteView = SiteView()
    """How the site's cells are shown to the model; the rest was fitted on cells shown so."""
    head: SiteHead | None = None
    """How the site's own labels correct the shared head; None where that reads the site's cells as well."""
    finder: bool | None = None
    """Whether the model's finder does as well as plain proposals on the site's marked fields; None: it has too few."""
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
        return CalibrationSummary(
            temperature=self.temperature, conformal_quantile=self.conformal_quantile, quantiles=self.quantiles
        )

    @property
    def promise(self) -> str:
        """How often sets hold the true class, and who vouches for it, in words."""
        made = f"sets are made to hold {_percent(self.level)} of true classes"
        if self.promised is None:
            return f"{made}, by what other laboratories found: no cell of this site vouches for it"
        if self.promised < self.level:
            short = f"this site's {self.cells} cells vouch for {_percent(self.promised)}"
            return f"{made}; {short}, the rest is what other laboratories found"
        return f"{made}, and this site's {self.cells} cells vouch for it"


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Result of `apply` for N cells and K classes."""

    probabilities: Floats
    """N × K, rows sum to 1."""
    sets: NDArray[np.bool_]
    """N × K: whether the class is in the prediction set."""
    ood_scores: Floats
    """N: 1.0 = at the threshold."""


def default_adapter(summary: CalibrationSummary, *, level: float = LEVEL) -> Adapter:
    """Return what a hospital without validation data of its own uses: the medians that the model's card tells."""
    borrowed = conformal.borrow(summary, level)
    return Adapter(temperature=summary.temperature, conformal_quantile=borrowed, level=level)


def fit_adapter(
    logits: NDArray[np.float32],
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    reference: NDArray[np.float32] | None = None,
    groups: Sequence[str] = (),
    level: float = LEVEL,
    told: CalibrationSummary | None = None,
    view: SiteView | None = None,
    head: SiteHead | None = None,
) -> Adapter:
    """Fit an adapter on N validation cells (N may be 0).

    Args:
        logits: N × K.
        features: N × F.
        labels: N class positions.
        reference: M × F, features of training cells: with them the feature space is fitted there and only its
            threshold on the validation cells, which a site with few of those needs.
        groups: N names; cells of one group are near duplicates and are never torn apart.
        level: share of cells whose true class the prediction sets shall hold.
        told: what the model's card says of other laboratories; it helps out where the cells are too few.
        view: how all these cells were shown to the model. Where it was chosen on `conformal.halves` of them, the
            quantile is of cells that nothing was chosen on.
        head: the site's correction of the shared head, of other cells than these; ``logits`` are those of the shared
            head all the same.
    """
    count = len(labels)
    if head is not None and count:
        logits = head.applied(logits, features)
    card = told or CalibrationSummary(temperature=1.0, conformal_quantile=DEFAULT_QUANTILE)
    temperature, found = 1.0, np.zeros(0)
    if count:
        temperature, found = _unseen_scores(logits.astype(np.float64), labels, groups, level)
    quantile = conformal.fit(found, level, conformal.borrow(card, level))
    return Adapter(
        temperature=temperature,
        conformal_quantile=quantile.value,
        level=level,
        promised=quantile.vouched,
        quantiles=conformal.told(found),
        space=_fit_space(features, reference),
        view=view or SiteView(),
        head=head,
        cells=count,
        right=int((logits.argmax(axis=1) == labels).sum()) if count else None,
    )


def apply(
    adapter: Adapter, logits: NDArray[np.float32], features: NDArray[np.float32], known: Known | None = None
) -> Calibrated:
    """Return probabilities, prediction sets and out-of-distribution scores of N cells (logits N × K, features N × F).

    A set holds the likeliest class and every class whose likelier classes' cumulative probability stays within the
    quantile. ``known``: the laboratories that the model learnt from, see `strangeness` for how they count. Raises
    ValueError where a space, a head or a class count does not fit the model.
    """
    if adapter.head is not None:
        logits = adapter.head.applied(logits, features)
    probabilities = _softmax(logits.astype(np.float64) / adapter.temperature)
    sets = conformal.likelier(probabilities) <= adapter.conformal_quantile
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


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


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


def _unseen_scores(
    logits: Floats, labels: NDArray[np.int64], groups: Sequence[str], level: float
) -> tuple[float, Floats]:
    """Return the temperature, and the scores of cells by temperatures that were fitted on others.

    Enough cells are halved: one half gives the temperature, the other the scores. Of fewer, each has its score by the
    temperature of the other folds, and all together give the temperature that is used.
    """
    mask = conformal.halves(groups, level)
    if mask is not None:
        temperature = _fit_temperature(logits[mask], labels[mask])
        return temperature, conformal.scores(_softmax(logits[~mask] / temperature), labels[~mask])
    found = np.zeros(len(labels))
    for fold in conformal.folds(len(labels), groups):
        other = _fit_temperature(logits[~fold], labels[~fold])
        found[fold] = conformal.scores(_softmax(logits[fold] / other), labels[fold])
    return _fit_temperature(logits, labels), found


def _fit_space(features: NDArray[np.float32], reference: NDArray[np.float32] | None) -> FeatureSpace | None:
    """Fit the space and its threshold: a quantile of the distances of cells that the space was not fitted on."""
    own = features.astype(np.float64)
    fitted = own if reference is None or not len(reference) else reference.astype(np.float64)
    if len(fitted) < LEAST_CELLS:
        return None
    dimensions = len(fitted) // _CELLS_A_DIMENSION
    found = spaces.fit(fitted, dimensions=dimensions)
    if fitted is not own and len(own) >= LEAST_CELLS:
        signs = found.parts(own)
    else:
        signs = spaces.crossed(fitted, dimensions=dimensions)
    found, threshold = spaces.bounded(found, signs)
    if not threshold > 0:  # all cells have the same features: the network tells nothing of them
        return None
    return FeatureSpace(
        mean=tuple(np.round(found.mean, 6).tolist()),
        components=tuple(tuple(row) for row in np.round(found.components, 6).tolist()),
        deviations=tuple(found.deviations.tolist()),
        residual=found.residual,
        share=found.share,
        threshold=threshold,
    )
