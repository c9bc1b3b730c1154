"""What the laboratories of a run look like to its model, checked: each is input from outside and vouches elsewhere."""

import statistics
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

import numpy as np
import structlog

from shared.contracts.laboratory import MOST_LABORATORIES, KnownLaboratories, KnownLaboratory, KnownSpace
from shared.vision.known import space_of

MOST_REACH: Final = 3.0
"""A laboratory whose cells reach so many times as far as is usual would take any stain for known, everywhere."""
MOST_COLOURS: Final = 300
"""Of 768 bins of colour; real laboratories know about 100 to 150."""
MOST_SPREAD: Final = 4.0
"""Of a laboratory's strongest dye over its weakest."""

log = structlog.get_logger(__name__)


def known_laboratories(told: Iterable[KnownLaboratory | None], *, features: int) -> KnownLaboratories:
    """Return what a model of so many ``features`` shall carry.

    Left out are spaces of another model, those that are not finite, and those that reach far beyond the others. The
    order says nothing about whose they are, and where they are too many, chance leaves some out.
    """
    sound = [one for one in told if one is not None and _sound(one, features)]
    reaches = {one: _reach(one.space) for one in sound if one.space is not None}
    usual = statistics.median_low(reaches.values()) if reaches else 0.0
    kept = [one for one in sound if reaches.get(one, 0.0) <= MOST_REACH * usual]
    if len(kept) < len(sound):
        log.warning("registry.laboratory_left_out", count=len(sound) - len(kept), reason="reaches too far")
    mixed = sorted(kept, key=lambda one: sha256(one.model_dump_json().encode()).digest())
    return KnownLaboratories(laboratories=tuple(mixed[:MOST_LABORATORIES]))


def _sound(one: KnownLaboratory, features: int) -> bool:
    if one.gamut is not None and int(one.gamut.bins, 16).bit_count() > MOST_COLOURS:
        log.warning("registry.laboratory_left_out", count=1, reason="knows too many colours")
        return False
    if any(not low <= high <= MOST_SPREAD * low for low, high in filter(None, (one.dye_of_fields, one.dye_of_cells))):
        log.warning("registry.laboratory_left_out", count=1, reason="any strength of dye would do")
        return False
    if one.space is None:
        return True
    try:
        space_of(one.space)
    except ValueError as error:
        log.warning("registry.laboratory_left_out", count=1, reason=str(error))
        return False
    if one.space.size != features:
        log.warning("registry.laboratory_left_out", count=1, reason="of another model")
        return False
    return True


def _reach(space: KnownSpace) -> float:
    """Return how far from the mean a cell may lie and still be known, as a root mean square."""
    return space.threshold * float(np.sqrt(np.square(space.deviations).sum() + space.residual**2))
