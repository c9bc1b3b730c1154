"""Hospitals and their nodes."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from portal.access import SignedIn
from portal.rendering import is_partial, page
from server.deps import RuntimeDep, SessionDep
from server.hospitals import enrolment
from server.hospitals import service as hospitals
from server.hospitals.schemas import NodeView
from shared.contracts.errors import NotFoundError

router = APIRouter()


@router.get("/nodes.json", name="nodes_json")
def nodes_json(session: SessionDep, who: SignedIn) -> list[NodeView]:
    """The nodes as data."""
    return [node for hospital in hospitals.list_hospitals(session, who) for node in hospital.nodes]


@router.get("/nodes", name="nodes")
def nodes(request: Request, session: SessionDep, who: SignedIn) -> Response:
    """Every hospital this person may see; keeps itself up to date."""
    template = "nodes/list.html" if is_partial(request) else "nodes/page.html"
    return page(request, template, hospitals=hospitals.list_hospitals(session, who))


@router.get("/nodes/{node_id}", name="node")
def node(request: Request, session: SessionDep, who: SignedIn, node_id: str) -> Response:
    """One node: its fingerprint to compare, and what is decided about it."""
    found = next((node for node in nodes_json(session, who) if node.id == node_id), None)
    if found is None:
        raise NotFoundError("There is no such node. Choose one from the list.")
    return page(request, "nodes/node.html", node=found)


@router.post("/nodes/{node_id}/approve", name="node_approve")
def approve(
    session: SessionDep, who: SignedIn, node_id: str, fingerprint: Annotated[str, Form(max_length=100)] = ""
) -> Response:
    """Let a node in; the fingerprint that stood on the page must still be the node's."""
    enrolment.approve(session, principal=who, node_id=node_id, fingerprint=fingerprint or None)
    return RedirectResponse("/nodes", status_code=303)


@router.post("/nodes/{node_id}/reject", name="node_reject")
def reject(session: SessionDep, who: SignedIn, node_id: str) -> Response:
    """Turn a waiting node away."""
    enrolment.reject(session, principal=who, node_id=node_id)
    return RedirectResponse("/nodes", status_code=303)


@router.post("/nodes/{node_id}/revoke", name="node_revoke")
def revoke(session: SessionDep, who: SignedIn, node_id: str) -> Response:
    """Shut an approved node out."""
    enrolment.revoke(session, principal=who, node_id=node_id)
    return RedirectResponse("/nodes", status_code=303)


@router.post("/hospitals", name="kit_make")
def make_kit(
    session: SessionDep,
    runtime: RuntimeDep,
    who: SignedIn,
    hospital_id: Annotated[str, Form(min_length=1, max_length=100)],
    name: Annotated[str, Form(min_length=1, max_length=200)],
    expires_hours: Annotated[int, Form(ge=1, le=720)] = 72,
) -> Response:
    """Make a one-time kit and hand it over as a file: it is shown once and never again."""
    kit = enrolment.enrol(
        session, runtime, actor=who, hospital_id=hospital_id.strip(), name=name.strip(), expires_hours=expires_hours
    )
    return Response(
        kit.model_dump_json(indent=2),
        media_type="application/json",
        headers={"Content-Disposition": f'attachment; filename="kit-{kit.hospital_id}.json"'},
    )
