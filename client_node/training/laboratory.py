"""What a hospital tells of its laboratory as a whole, so that a model can warn of stains that it has not learnt."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from client_node.policy import load_policy
from client_node.training.cache import Between
from client_node.training.site import allowed_cells, allowed_fields
from shared.contracts.errors import DataInvalidError
from shared.contracts.ontology import CellClass
from shared.contracts.training import KnownLaboratory
from shared.vision import gamut
from shared.vision.images import load_image
from shared.vision.known import known_space
from shared.vision.preprocessing import Pixels

Floats = NDArray[np.float32]

_MOST_IMAGES = 120

log = structlog.get_logger(__name__)


def told_laboratory(
    home: Path, classes: tuple[CellClass, ...], features: Floats, held_out: Floats, *, between: Between
) -> KnownLaboratory | None:
    """Return the summary of a site that may leave it; see `shared.vision.known` and `shared.vision.gamut`.

    ``features`` (M × F) are of training cells, ``held_out`` (N × F) of validation cells. None where the hospital's
    policy keeps it (``[training] tell_laboratory``), or where there are too few cells to tell of them as a whole.
    """
    if not load_policy(home).training.tell_laboratory:
        return None
    try:
        space = known_space(features, held_out)
    except ValueError as error:
        log.info("training.laboratory_not_told", reason=str(error))
        return None
    return KnownLaboratory(space=space, gamut=gamut.fit(_images(home, classes, between)))


def _images(home: Path, classes: tuple[CellClass, ...], between: Between) -> Iterator[Pixels]:
    """Yield some of the images that the site trains with, each once; their names are hashes: any of them."""
    paths = {field.path for field in allowed_fields(home, "train")}
    paths |= {cell.path for cell in allowed_cells(home, "train", classes)}
    for path in sorted(paths)[:_MOST_IMAGES]:
        between()
        with suppress(DataInvalidError):
            yield load_image(path)
