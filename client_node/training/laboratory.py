"""What a hospital tells of its laboratory as a whole, so that a model can warn of stains that it has not learnt."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from client_node.analysis import ranges
from client_node.policy import load_policy
from client_node.training.cache import Between
from client_node.training.site import allowed_cells, allowed_fields
from shared.contracts.errors import DataInvalidError
from shared.contracts.laboratory import KnownLaboratory
from shared.contracts.ontology import CellClass
from shared.vision import gamut
from shared.vision.images import load_image
from shared.vision.known import known_space
from shared.vision.preprocessing import Pixels

Floats = NDArray[np.float32]

_MOST_IMAGES = 80

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
    cells = allowed_cells(home, "train", classes, purpose="evaluate")
    fields = {one.path for one in allowed_fields(home, "train", purpose="evaluate")} | {
        one.path for one in cells if one.box is not None
    }
    single = {one.path for one in cells if one.box is None}
    both = _images([*sorted(fields)[:_MOST_IMAGES], *sorted(single)[:_MOST_IMAGES]], between)
    return KnownLaboratory(
        space=space,
        gamut=gamut.fit(both),
        dye_of_fields=_dye(fields, between),
        dye_of_cells=_dye(single, between),
    )


def _dye(paths: Iterable[Path], between: Between) -> tuple[float, float] | None:
    found = ranges.fit(map(ranges.look, _images(sorted(paths)[:_MOST_IMAGES], between)))
    return None if found is None else found.dye


def _images(paths: Iterable[Path], between: Between) -> Iterator[Pixels]:
    """Yield the images that can be read; their names are hashes, so that the first ones are any of them."""
    for path in paths:
        between()
        with suppress(DataInvalidError):
            yield load_image(path)
