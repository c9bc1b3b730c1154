"""A round in which the site's normalisation is its own (FedBN; Li et al. 2021).

The round begins with what the site kept of the round before in place of what came. What it sends back of these tensors
is what it has learnt: their average is what an unseen hospital gets, and no hospital that keeps its own trains with it.
"""

from collections.abc import Callable
from pathlib import Path

import structlog
import torch

from client_node.models.normalisation import OwnNormalisation
from shared.contracts.errors import ModelInvalidError
from shared.contracts.privacy import PrivacyKind
from shared.contracts.training import TrainRequest
from shared.vision.model import CellModel
from shared.vision.normalisation import normalisation_of, wear

log = structlog.get_logger(__name__)


class LocalNormalisation:
    """The site's normalisation in one round; does nothing where the recipe does not ask for it."""

    def __init__(self, home: Path, request: TrainRequest) -> None:
        recipe = request.recipe
        self._request = request
        self._noised = request.privacy is not None and request.privacy.kind is not PrivacyKind.NONE
        self._kept = OwnNormalisation(home, recipe, request.base_sha256) if recipe.local_normalisation else None

    def put_on(self, model: CellModel, loss: Callable[[], float]) -> None:
        """Give a model that was received the site's normalisation, if the site has one.

        In its first round of a run that is what another run has left, if ``loss`` (of the model on the site's training
        cells) is less with it: that run may have led elsewhere. A round with differential privacy begins only with what
        a round of its own run has left that was trained, and accounted for, in the same way: what it learns leaves, and
        anything else was learnt without this run's noise.
        """
        if self._kept is None:
            return
        request = self._request
        mine = self._kept.before(request.run_key, request.round, noised=self._noised)
        other = self._kept.of_others(request.run_key) if mine is None and not self._noised else None
        own = mine or other
        if own is None:
            return
        received, before = normalisation_of(model), loss() if other else 0.0
        try:
            wear(model, {name: torch.from_numpy(array) for name, array in own.items()})
        except ModelInvalidError as error:
            log.warning("training.normalisation_unfit", reason=error.message)
            return
        if other and loss() >= before:
            wear(model, received)

    def keep(self, model: CellModel) -> None:
        """Keep what the round has learnt; raises `NoSpaceError` where the disk is full."""
        if self._kept is not None:
            found = {name: value.cpu().numpy() for name, value in normalisation_of(model).items()}
            self._kept.keep(self._request.run_key, self._request.round, found, noised=self._noised)
