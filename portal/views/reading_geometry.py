"""Marking cells in a field: add, split, merge. The services open their own transactions: images are cut in between."""

from typing import Annotated

from fastapi import APIRouter, Form
from pydantic import Field

from portal.access import SignedIn
from portal.views.reading_actions import Key
from server.deps import CommittingRoute, RuntimeDep
from server.reviews import geometry
from server.reviews.schemas import ChangeResult, NewBox
from shared.contracts.errors import UsageError
from shared.contracts.ontology import CellClass

router = APIRouter(route_class=CommittingRoute)
MarkedId = Annotated[str, Form(pattern=r"^r[0-9a-f]{12}$")]
Side = Annotated[int, Field(ge=0, le=1_000_000)]
Sides = Annotated[list[Side], Form(min_length=4, max_length=8)]


@router.post("/cases/{case_id}/cells/new", name="case_cell_add")
def add(
    runtime: RuntimeDep,
    who: SignedIn,
    case_id: str,
    new_id: MarkedId,
    field: Annotated[int, Form(ge=0)],
    box: Sides,
    label: Annotated[CellClass, Form()],
    idempotency_key: Key,
) -> ChangeResult:
    """Mark a cell that was missed. ``box``: x0, y0, x1, y1 in pixels of the field."""
    place = _places([new_id], box)[0]
    return geometry.add(runtime, who, case_id, field=field, place=place, label=label, idempotency_key=idempotency_key)


@router.post("/cases/{case_id}/cells/split", name="case_cell_split")
def split(
    runtime: RuntimeDep,
    who: SignedIn,
    case_id: str,
    cell_id: Annotated[str, Form(max_length=100)],
    new_id: Annotated[list[MarkedId], Form(min_length=2, max_length=2)],
    box: Sides,
    idempotency_key: Key,
) -> ChangeResult:
    """Put two boxes in place of one. ``box``: the first one's four sides, then the second one's."""
    first, second = _places(new_id, box)
    return geometry.split(
        runtime, who, case_id, cell_id=cell_id, places=(first, second), idempotency_key=idempotency_key
    )


@router.post("/cases/{case_id}/cells/merge", name="case_cell_merge")
def merge(
    runtime: RuntimeDep,
    who: SignedIn,
    case_id: str,
    cell_id: Annotated[list[str], Form(min_length=2, max_length=20)],
    new_id: MarkedId,
    idempotency_key: Key,
) -> ChangeResult:
    """Put one box around several."""
    return geometry.merge(runtime, who, case_id, cell_ids=cell_id, new_id=new_id, idempotency_key=idempotency_key)


def _places(ids: list[str], sides: list[int]) -> list[NewBox]:
    if len(sides) != 4 * len(ids):
        raise UsageError("Draw the box again.")
    rows = [sides[start : start + 4] for start in range(0, len(sides), 4)]
    return [NewBox(cell_id=cell, box=(x0, y0, x1, y1)) for cell, (x0, y0, x1, y1) in zip(ids, rows, strict=True)]
