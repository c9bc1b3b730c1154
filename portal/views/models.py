"""Models: what each is, how good it is where, and which is current."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from sqlmodel import Session
from starlette.responses import RedirectResponse, Response

from portal.access import SignedIn
from portal.rendering import page
from server.accounts.schemas import Principal
from server.deps import CommittingRoute, SessionDep
from server.registry import service as registry
from server.registry.schemas import ModelView
from server.registry.states import ModelState

router = APIRouter(route_class=CommittingRoute)


def model_before(session: Session, who: Principal, shown: ModelView) -> str | None:
    """Return the version that a roll-back would bring back: the newest older one that was in use once."""
    if shown.state is not ModelState.CURRENT:
        return None
    older = (model for model in registry.list_models(session, who) if model.created_at < shown.created_at)
    return next((model.version for model in older if model.state is ModelState.RETIRED and model.promoted_at), None)


@router.get("/models", name="models")
def models(request: Request, session: SessionDep, who: SignedIn) -> Response:
    """Every version, newest first."""
    return page(request, "models/list.html", models=registry.list_models(session, who))


@router.post("/models/rollback", name="model_rollback")
def rollback(session: SessionDep, who: SignedIn, reason: Annotated[str, Form(max_length=1000)] = "") -> Response:
    """Go back to the model before."""
    version = registry.rollback(session, who, reason=reason)
    return RedirectResponse(f"/models/{version}", status_code=303)


@router.get("/models/{version}.json", name="model_json")
def model_json(session: SessionDep, who: SignedIn, version: str) -> ModelView:
    """A model as data."""
    return registry.model_view(session, who, version)


@router.get("/models/{version}", name="model")
def model(request: Request, session: SessionDep, who: SignedIn, version: str) -> Response:
    """A model's card."""
    shown = registry.model_view(session, who, version)
    names = {row.hospital_id: row.hospital_name for row in shown.matrix}
    return page(
        request,
        "models/card.html",
        model=shown,
        names=names,
        lineage=registry.lineage(session, who, version),
        before=model_before(session, who, shown),
    )


@router.post("/models/{version}/promote", name="model_promote")
def promote(
    session: SessionDep, who: SignedIn, version: str, override_reason: Annotated[str, Form(max_length=1000)] = ""
) -> Response:
    """Make a version the network's current model."""
    registry.promote(session, who, version, override_reason=override_reason.strip() or None)
    return RedirectResponse(f"/models/{version}", status_code=303)
