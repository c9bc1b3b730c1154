"""How good the images are that each node sends: over its latest cases, from what the cases themselves tell."""

from collections import defaultdict
from statistics import median
from typing import Final

from pydantic import BaseModel
from sqlmodel import Session

from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.cases import repository
from shared.contracts.analysis import Quality

LATEST: Final = 30
"""Cases of a node that are looked at."""


class FieldQuality(BaseModel):
    """The images of a node's latest cases."""

    cases: int
    focus: float
    """Median over the cases of the variance of the Laplacian."""
    brightness: float
    """Median grey level of the background, 0-255."""
    strange_stain: float
    """Median share of cells beyond the trained stain."""
    warned: int
    """Cases with a warning about their images."""
    focus_by_case: list[float]
    """Of each case, the oldest first."""


def by_node(session: Session, principal: Principal) -> dict[str, FieldQuality]:
    """Return node → quality of its latest cases; hospital IT sees its own hospital's nodes only."""
    scope = (principal.hospital_id or "") if principal.role is Role.HOSPITAL_IT else None
    of_node: dict[str, list[Quality]] = defaultdict(list)
    for node_id, quality in repository.latest_qualities(session, scope=scope, each=LATEST):
        of_node[node_id].append(Quality.model_validate(quality))
    return {node_id: _of(newest_first) for node_id, newest_first in of_node.items()}


def _of(newest_first: list[Quality]) -> FieldQuality:
    return FieldQuality(
        cases=len(newest_first),
        focus=median(one.focus for one in newest_first),
        brightness=median(one.brightness for one in newest_first),
        strange_stain=median(one.ood_fraction for one in newest_first),
        warned=sum(bool(one.warnings) for one in newest_first),
        focus_by_case=[one.focus for one in reversed(newest_first)],
    )
