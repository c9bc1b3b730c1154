"""How far the hospitals lie apart before a launch: in their classes, and in what the model makes of their cells."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from sqlmodel import Session

import server.insights.service as insights
from server.accounts.schemas import Principal
from server.federation import repository, service
from server.federation.schemas import SiteCensus, SiteDrift
from shared.contracts.ontology import CellClass
from shared.contracts.training import Census

DAYS: Final = 56
"""What counts as recent: eight weeks."""
_LEAST_OTHERS: Final = 2
"""A hospital's own staff are held against so many others or more: against one, the distance would tell of that one."""


def drift(session: Session, principal: Principal, sites: Sequence[SiteCensus]) -> list[SiteDrift]:
    """Return how far each of ``sites`` lies from the others; ``sites`` is what `service.census` showed this person.

    The classes of hospitals that this person does not see are counted among the others, never told.

    Raises:
        ForbiddenError: not for this role.
    """
    service.require_viewer(principal)
    counted = {record.hospital_id: Census.model_validate(record.census) for record in repository.censuses(session)}
    apart = distances(counted)
    if principal.hospital_id is not None and sum(far is not None for far in apart.values()) <= _LEAST_OTHERS:
        apart = {}
    recent = insights.unlike_training(session, principal, days=DAYS)
    return [
        SiteDrift(
            hospital_id=site.hospital_id,
            hospital_name=site.hospital_name,
            mix=apart.get(site.hospital_id),
            recent=[one for one in recent if one.hospital_id == site.hospital_id],
        )
        for site in sites
    ]


def distances(counted: Mapping[str, Census]) -> dict[str, float | None]:
    """Return, per hospital, how far its mix of classes is from that of all others together.

    It is the total variation distance ½ Σ |p − q| of the shares p and q of the classes in the cells to train on: the
    share of its cells that would have to be of another class. 0: the same mix; 1: no class in common; None: it, or the
    others, have no such cell. Where some hospital labels a class only as a whole (neutrophil), its subclasses are
    counted into it, as when they are trained.
    """
    held = {row.cls for census in counted.values() for row in census.rows if row.train}
    cells = {hospital: _cells(census, held) for hospital, census in counted.items()}
    whole: Counter[CellClass] = Counter()
    for own in cells.values():
        whole.update(own)
    return {hospital: _apart(own, whole - own) for hospital, own in cells.items()}


def _cells(census: Census, held: set[CellClass]) -> Counter[CellClass]:
    found: Counter[CellClass] = Counter()
    for row in census.rows:
        parent = row.cls.info.parent
        found[parent if parent in held and parent is not None else row.cls] += row.train
    return found


def _apart(one: Counter[CellClass], other: Counter[CellClass]) -> float | None:
    ones, others = one.total(), other.total()
    if not ones or not others:
        return None
    return sum(abs(one[cls] / ones - other[cls] / others) for cls in one.keys() | other.keys()) / 2
