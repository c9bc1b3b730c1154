"""What a hospital tells of its laboratory as a whole, so that a model can warn of stains that it has not learnt."""

from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from client_node.policy import load_policy
from shared.contracts.training import KnownLaboratory
from shared.vision.known import known_space

Floats = NDArray[np.float32]

log = structlog.get_logger(__name__)


def told_laboratory(home: Path, features: Floats, held_out: Floats) -> KnownLaboratory | None:
    """Return the summary of a site's cells that may leave it; see `shared.vision.known` for what is in it.

    ``features`` (M × F) are of training cells, ``held_out`` (N × F) of validation cells. None where the hospital's
    policy keeps it (``[training] tell_laboratory``), or where there are too few cells to tell of them as a whole.
    """
    if not load_policy(home).training.tell_laboratory:
        return None
    try:
        return KnownLaboratory(space=known_space(features, held_out))
    except ValueError as error:
        log.info("training.laboratory_not_told", reason=str(error))
        return None
