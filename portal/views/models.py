"""Models: what each is, how good it is where, and which is current."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from portal.access import SignedIn
from portal.rendering import page
from server.deps import SessionDep
from server.registry import service as registry
from server.registry.schemas import ModelView

router = APIRouter()


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
    return page(request, "models/card.html", model=registry.model_view(session, who, version))


@router.post("/models/{version}/promote", name="model_promote")
def promote(
    session: SessionDep, who: SignedIn, version: str, override_reason: Annotated[str, Form(max_length=1000)] = ""
) -> Response:
    """Make a version the network's current model."""
    registry.promote(session, who, version, override_reason=override_reason.strip() or None)
    return RedirectResponse(f"/models/{version}", status_code=303)
