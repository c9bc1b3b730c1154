"""Hospitals and their nodes."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Request
from pydantic import BaseModel, ValidationError
from starlette.responses import RedirectResponse, Response

from portal.access import SignedIn
from portal.rendering import is_partial, page
from server.cases import comparing, field_quality, worklist
from server.cases.lifecycle import DEFAULT_TARGETS
from server.deps import CommittingRoute, RuntimeDep, SessionDep
from server.hospitals import bedside, enrolment
from server.hospitals import service as hospitals
from server.hospitals.bedside import Contact, Interval
from server.hospitals.schemas import NodeView
from server.registry import service as registry
from shared.contracts.case import Priority
from shared.contracts.errors import NotFoundError, UsageError

router = APIRouter(route_class=CommittingRoute)


class LimitsForm(BaseModel):
    """Reference intervals as they come from the page: numbers, or nothing."""

    wbc_10e9_l_low: str = ""
    wbc_10e9_l_high: str = ""
    hb_g_l_female_low: str = ""
    hb_g_l_female_high: str = ""
    hb_g_l_male_low: str = ""
    hb_g_l_male_high: str = ""
    plt_10e9_l_low: str = ""
    plt_10e9_l_high: str = ""
    mcv_fl_low: str = ""
    mcv_fl_high: str = ""


@router.get("/nodes.json", name="nodes_json")
def nodes_json(session: SessionDep, who: SignedIn) -> list[NodeView]:
    """The nodes as data."""
    return [node for hospital in hospitals.list_hospitals(session, who) for node in hospital.nodes]


@router.get("/nodes", name="nodes")
def nodes(request: Request, session: SessionDep, who: SignedIn) -> Response:
    """Every hospital this person may see; keeps itself up to date."""
    template = "nodes/list.html" if is_partial(request) else "nodes/page.html"
    found = hospitals.list_hospitals(session, who)
    return page(
        request,
        template,
        hospitals=found,
        decisions=registry.last_decisions(session, who),
        qualities=field_quality.by_node(session, who),
    )


@router.get("/nodes/{node_id}", name="node")
def node(request: Request, session: SessionDep, who: SignedIn, node_id: str) -> Response:
    """One node: its fingerprint to compare, and what is decided about it."""
    every = hospitals.list_hospitals(session, who)
    found = next(((node, hospital) for hospital in every for node in hospital.nodes if node.id == node_id), None)
    if found is None:
        raise NotFoundError("There is no such node. Choose one from the list.")
    shown, hospital = found
    decision = registry.last_decisions(session, who).get(node_id)
    most = hospitals.MOST_TOLERANCE
    return page(
        request,
        "nodes/node.html",
        node=shown,
        hospital=hospital,
        decision=decision,
        quality=field_quality.by_node(session, who).get(node_id),
        most=most,
        shares_references=comparing.shares_references(session, hospital.id),
        contact=bedside.contact_of(session, hospital.id),
        limits=_limit_rows(session, hospital.id),
        targets=worklist.targets(session, hospital.id),
        network_targets={one: round(target.total_seconds() / 60) for one, target in DEFAULT_TARGETS.items()},
    )


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


@router.post("/hospitals/{hospital_id}/tolerance", name="hospital_tolerance")
def tolerance(
    session: SessionDep, who: SignedIn, hospital_id: str, points: Annotated[str, Form(max_length=10)] = ""
) -> Response:
    """Keep what a hospital may lose by a model, in percent points; empty: what the network allows."""
    try:
        share = float(points) / 100 if points.strip() else None
    except ValueError as error:
        raise UsageError("Give a number of percent points, or nothing.") from error
    hospitals.set_tolerance(session, who, hospital_id, share)
    return RedirectResponse("/nodes", status_code=303)


@router.post("/hospitals/{hospital_id}/targets", name="hospital_targets")
def set_targets(
    session: SessionDep,
    who: SignedIn,
    hospital_id: str,
    stat: Annotated[str, Form(max_length=10)] = "",
    urgent: Annotated[str, Form(max_length=10)] = "",
    routine: Annotated[str, Form(max_length=10)] = "",
) -> Response:
    """Keep within how many minutes a hospital's cases are to be read; an empty one: the network's target."""
    told = {Priority.STAT: stat, Priority.URGENT: urgent, Priority.ROUTINE: routine}
    try:
        minutes = {priority: int(text) if text.strip() else None for priority, text in told.items()}
    except ValueError as error:
        raise UsageError("Give whole minutes, or nothing.") from error
    worklist.set_targets(session, who, hospital_id, minutes)
    return RedirectResponse("/nodes", status_code=303)


@router.post("/hospitals/{hospital_id}/references", name="hospital_references")
def references(
    session: SessionDep, who: SignedIn, hospital_id: str, shares: Annotated[bool, Form()] = False
) -> Response:
    """Keep whether the hospital's signed cells may stand beside other hospitals' as references."""
    comparing.share_references(session, who, hospital_id, shares=shares)
    return RedirectResponse("/nodes", status_code=303)


@router.post("/hospitals/{hospital_id}/contact", name="hospital_contact")
def contact(
    session: SessionDep,
    who: SignedIn,
    hospital_id: str,
    name: Annotated[str, Form(max_length=200)] = "",
    phone: Annotated[str, Form(max_length=100)] = "",
    hours: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Keep whom a reader phones at the hospital; all empty: nobody is named."""
    try:
        named = Contact(name=name, phone=phone, hours=hours)
    except ValidationError as error:
        if error.errors()[0]["loc"] == ("phone",):
            raise UsageError("Write the telephone number in digits, as it is dialled from abroad.") from None
        raise UsageError("Name and hours have one line of at most 120 letters each.") from None
    bedside.set_contact(session, who, hospital_id, named)
    return RedirectResponse("/nodes", status_code=303)


@router.post("/hospitals/{hospital_id}/blood-limits", name="hospital_limits")
def blood_limits(session: SessionDep, who: SignedIn, hospital_id: str, form: Annotated[LimitsForm, Form()]) -> Response:
    """Keep the hospital's reference intervals; a pair left empty goes by the default."""
    own: dict[str, Interval] = {}
    for name, words, _, _ in LIMITS:
        low, high = (str(getattr(form, f"{name}_{end}")).strip() for end in ("low", "high"))
        if not low and not high:
            continue
        try:
            own[name] = Interval.model_validate({"low": low, "high": high})
        except ValidationError:
            raise UsageError(f"{words}: give both limits as numbers, the lower one first, or neither.") from None
    bedside.set_limits(session, who, hospital_id, own)
    return RedirectResponse("/nodes", status_code=303)


LIMITS: Final = (
    ("wbc_10e9_l", "White cells", "×10⁹/l", 0.1),
    ("hb_g_l_female", "Haemoglobin, women", "g/l", 1),
    ("hb_g_l_male", "Haemoglobin, men", "g/l", 1),
    ("plt_10e9_l", "Platelets", "×10⁹/l", 1),
    ("mcv_fl", "Mean cell volume", "fl", 0.1),
)
"""Field of `Limits`, name, unit and step."""


def _limit_rows(session: SessionDep, hospital_id: str) -> list[dict[str, Any]]:  # Any: a row of the form
    limits, own = bedside.limits_of(session, hospital_id), bedside.own_limits(session, hospital_id)
    return [
        {
            "field": field,
            "name": name,
            "unit": unit,
            "step": step,
            "interval": getattr(limits, field),
            "own": field in own,
        }
        for field, name, unit, step in LIMITS
    ]  # fmt: skip


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
