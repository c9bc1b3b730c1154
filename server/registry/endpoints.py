"""What nodes ask the registry."""

from fastapi import APIRouter, Response

from server.deps import CommittingRoute, RuntimeDep, SessionDep
from server.hospitals.auth import CurrentNode
from server.registry import service
from server.registry.artefacts import artefact_key
from shared.contracts.errors import NotFoundError, UsageError
from shared.contracts.model_card import SignedModelCard
from shared.contracts.report import ModelDecision

router = APIRouter(prefix="/api/node/v1/models", tags=["models"], route_class=CommittingRoute)


@router.get("/current")
def current_model(session: SessionDep, _: CurrentNode) -> SignedModelCard:
    """Return the signed card of the current model."""
    card = service.current(session)
    if card is None:
        raise NotFoundError("No model has been promoted yet.")
    return card


@router.get("/{version}/artefacts/{name}")
def artefact(version: str, name: str, session: SessionDep, runtime: RuntimeDep, _: CurrentNode) -> Response:
    """Return a file of a promoted version."""
    service.check_downloadable(session, version, name)
    return Response(runtime.store.get(artefact_key(version, name)), media_type="application/octet-stream")


@router.post("/{version}/decision", status_code=204)
def decide(version: str, decision: ModelDecision, session: SessionDep, node: CurrentNode) -> None:
    """Keep what the node did with a version."""
    if decision.version != version:
        raise UsageError("The decision names another version than the address.")
    service.record_decision(session, node, decision)
