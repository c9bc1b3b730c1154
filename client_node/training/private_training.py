"""A train request whose round is private: planned, charged before it is trained, answered, and sent again if lost."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from secrets import token_hex

import numpy as np
import structlog
from numpy.typing import NDArray

from client_node.datasets.labelled import LabelledCell
from client_node.policy import load_policy
from client_node.training import privacy as private
from client_node.training.kept_update import KeptUpdate
from client_node.training.manifest import write_manifest
from client_node.training.model_store import Tensors
from client_node.training.private_loop import train_privately
from client_node.training.site import positions
from client_node.training.sources import Source
from shared.contracts.errors import PolicyRefusedError
from shared.contracts.training import SiteMetrics, TrainReply, TrainRequest
from shared.vision.model import CellModel

log = structlog.get_logger(__name__)


class PrivateTraining:
    """What is done for ``request``, with the ``tensors`` that came with it, only because it asks for privacy."""

    def __init__(self, home: Path, request: TrainRequest, tensors: Mapping[str, NDArray[np.generic]]) -> None:
        self._home = home
        self._request = request
        self._tensors = tensors

    def answered(self) -> tuple[TrainReply, Tensors] | None:
        """Return what a private round that was charged has answered to this very request already."""
        request = self._request
        if not private.is_private(request.privacy) or not private.is_charged(self._home, request):
            return None
        kept = KeptUpdate(self._home, request, self._tensors).found()
        if kept is not None:
            private.release(self._home, request)  # it may have been killed before it wrote that down
            log.info("training.private_round_sent_again", run_key=request.run_key, round=request.round)
        return kept

    def planned(self, cells: Sequence[LabelledCell]) -> private.PrivateRound | None:
        """Return how a round on ``cells`` is trained; None where the request asks for no privacy.

        Raises:
            UsageError: what it asks cannot be kept.
            PolicyRefusedError: the run would go beyond the hospital's budget; written down as a refusal.
        """
        policy = load_policy(self._home)
        try:
            return private.planned(self._home, policy, self._request, cells)
        except PolicyRefusedError as error:  # what else is refused, the relay writes down
            policy.record_refusal(self._request, error)
            raise

    def train(
        self,
        model: CellModel,
        cells: Sequence[LabelledCell],
        source: Source,
        planned: private.PrivateRound,
        *,
        between: Callable[[], None],
    ) -> None:
        """Charge and train the round. The finder, which would learn without noise, stays as it was received.

        Raises:
            NoSpaceError: the charge could not be written, and so nothing was trained.
        """
        request = self._request
        private.charge(self._home, load_policy(self._home), request, planned)
        train_privately(
            model,
            source,
            positions(cells, request.recipe.classes),
            planned.units,
            request.recipe.in_round(request.round, request.rounds),
            planned.noise,
            clip=planned.clip,
            between=between,
        )

    def answer(
        self,
        cells: Sequence[LabelledCell],
        planned: private.PrivateRound,
        received: SiteMetrics,
        update: Tensors,
        *,
        begin: float,
    ) -> TrainReply:
        """Return what is told of a round that was trained: coarse, and without a loss; kept, should it be lost.

        ``received``: the metrics of the model as it came; ``begin``: when the round began, by the monotonic clock.
        """
        request = self._request
        manifest, _ = write_manifest(self._home / "training" / "manifests", request, cells, salt=token_hex(32))
        reply = TrainReply(
            examples=private.coarse(len(cells)),
            train_loss=None,
            received=received,
            seconds=round(time.monotonic() - begin),
            manifest_sha256=manifest,
            privacy=planned.told,
        )
        epsilon = planned.spent.epsilon
        log.info("training.private_round_done", run_key=request.run_key, round=request.round, spent=epsilon)
        KeptUpdate(self._home, request, self._tensors).keep(reply, update)
        private.release(self._home, request)
        return reply
