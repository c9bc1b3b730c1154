"""The reading room: one case on one screen."""

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from portal.access import SignedIn
from portal.rendering import page
from server.accounts.schemas import Principal
from server.cases import service as cases
from server.cases.lifecycle import READABLE
from server.cases.pictures import OVERLAP, TILE, TilePlace
from server.cases.schemas import CaseView
from server.deps import RuntimeDep, SessionDep
from server.reviews import service as reviews
from server.reviews.schemas import ChangeView
from shared.contracts.ontology import CLASS_INFO, CORE_FIVE, CellClass

router = APIRouter()

KEY_CLASSES: Final = (
    *CORE_FIVE,
    CellClass.IMMATURE_GRANULOCYTE,
    CellClass.VARIANT_LYMPHOCYTE,
    CellClass.BLAST,
    CellClass.ERYTHROBLAST,
)
"""Keys 1 to 9, the same in every case: fingers learn them."""


@router.get("/cases/{case_id}.json", name="case_json")
def case_json(session: SessionDep, who: SignedIn, case_id: str) -> CaseView:
    """The case as data."""
    return cases.case_view(session, who, case_id)


@router.get("/cases/{case_id}", name="case")
def case_page(request: Request, session: SessionDep, who: SignedIn, case_id: str) -> Response:
    """The reading room."""
    case = cases.case_view(session, who, case_id)
    mine = case.claimed_by_id == who.user_id and case.state in READABLE
    return page(
        request,
        "reading/room.html",
        case=case,
        mine=mine,
        readable=case.state in READABLE,
        impression=reviews.impression(session, who, case_id),
        key_classes=KEY_CLASSES,
        data=room_data(case, who, mine=mine),
    )


@router.get("/cases/{case_id}/history", name="case_history")
def case_history(session: SessionDep, who: SignedIn, case_id: str) -> list[ChangeView]:
    """Every change of a class, newest first."""
    return reviews.history(session, who, case_id)


@router.get("/cases/{case_id}/blobs/{name}", name="case_blob")
def case_blob(session: SessionDep, runtime: RuntimeDep, who: SignedIn, case_id: str, name: str) -> Response:
    """One image, decrypted in memory; the browser may keep it for the length of a reading."""
    content, media_type = cases.blob(session, runtime, who, case_id, name)
    return Response(content, media_type=media_type, headers={"Cache-Control": "private, max-age=1800"})


@router.get("/cases/{case_id}/fields/{index}/tiles/{level}_{column}_{row}.jpg", name="case_tile")
def case_tile(
    session: SessionDep, runtime: RuntimeDep, who: SignedIn, case_id: str, index: int, level: int, column: int, row: int
) -> Response:
    """A tile of a field, cut on demand from the image decrypted in memory."""
    place = TilePlace(level=level, column=column, row=row)
    content = cases.field_tile(session, runtime, who, case_id, index, place)
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=1800"})


def room_data(case: CaseView, who: Principal, *, mine: bool) -> dict[str, Any]:  # Any: JSON for the page's script
    """Return what the reading room's script works on."""
    return {
        "tiles": {"size": TILE, "overlap": OVERLAP},
        "case": case.model_dump(mode="json"),
        "mine": mine,
        "me": who.display_name,
        "keys": [cls.value for cls in KEY_CLASSES],
        "classes": {
            cls.value: {"name": info.name, "mark": info.mark, "counts": info.counts} for cls, info in CLASS_INFO.items()
        },
    }
