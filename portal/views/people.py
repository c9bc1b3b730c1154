"""Accounts: who may sign in and as what, invitations, and what is done about one person."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from sqlmodel import Session
from starlette.responses import JSONResponse, RedirectResponse, Response

from portal.access import SignedIn
from portal.rendering import page, wants_json
from server.accounts import invitations, second_factor, sessions
from server.accounts import people as accounts_people
from server.accounts import service as accounts
from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.deps import CommittingRoute, RuntimeDep, SessionDep
from server.hospitals import service as hospitals

router = APIRouter(route_class=CommittingRoute)


@router.get("/people", name="people")
def people(request: Request, session: SessionDep, who: SignedIn) -> Response:
    """Who has an account, and who is invited."""
    return page(
        request,
        "people/list.html",
        people=accounts_people.list_users(session, who),
        invited=invitations.waiting(session, who),
        hospitals=_hospitals(session, who),
        roles=_roles(who),
    )


@router.post("/people", name="person_add")
def add(
    session: SessionDep,
    who: SignedIn,
    username: Annotated[str, Form(max_length=50)],
    display_name: Annotated[str, Form(max_length=200)],
    role: Annotated[Role, Form()],
    password: Annotated[str, Form(max_length=1000)],
    hospital_id: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    """Add somebody."""
    accounts.create_user(
        session,
        actor=who,
        username=username,
        display_name=display_name,
        role=role,
        password=password,
        hospital_id=hospital_id or None,
    )
    return RedirectResponse("/people", status_code=303)


@router.post("/people/invitations", name="invite")
def invite(
    request: Request,
    session: SessionDep,
    runtime: RuntimeDep,
    who: SignedIn,
    display_name: Annotated[str, Form(max_length=200)],
    role: Annotated[Role, Form()],
    hospital_id: Annotated[str, Form(max_length=100)] = "",
    email: Annotated[str, Form(max_length=254)] = "",
) -> Response:
    """Invite somebody; the link is shown this once."""
    token, invited = invitations.invite(
        session, actor=who, display_name=display_name, role=role, hospital_id=hospital_id or None, email=email
    )
    base = runtime.settings.portal_url or str(request.base_url)
    link = f"{base.rstrip('/')}{invitations.PATH}{token}"
    if wants_json(request):
        return JSONResponse({"link": link})
    return page(request, "people/invited.html", link=link, invited=invited)


@router.post("/people/invitations/{invitation_id}/revoke", name="invite_revoke")
def revoke_invitation(session: SessionDep, who: SignedIn, invitation_id: str) -> Response:
    """Take an invitation back."""
    invitations.revoke(session, who, invitation_id)
    return RedirectResponse("/people#invited", status_code=303)


@router.get("/people/{user_id}", name="person")
def person(request: Request, session: SessionDep, who: SignedIn, user_id: str) -> Response:
    """One person: how the account stands, and where they are signed in."""
    opened = sessions.of(session, who, user_id)
    shown = accounts_people.person(session, who, user_id)
    hospital = hospitals.name_of(session, shown.hospital_id) if shown.hospital_id else ""
    return page(
        request,
        "people/person.html",
        person=shown,
        sessions=opened,
        hospital=hospital,
        hospitals=_hospitals(session, who),
        roles=_roles(who),
    )


@router.post("/people/{user_id}", name="person_change")
def change(
    session: SessionDep,
    who: SignedIn,
    user_id: str,
    display_name: Annotated[str, Form(max_length=200)],
    role: Annotated[Role, Form()],
    hospital_id: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    """Give somebody another name, role or hospital."""
    accounts_people.change_person(
        session, actor=who, user_id=user_id, display_name=display_name, role=role, hospital_id=hospital_id or None
    )
    return RedirectResponse(f"/people/{user_id}", status_code=303)


@router.post("/people/{user_id}/active", name="person_active")
def set_active(session: SessionDep, who: SignedIn, user_id: str, active: Annotated[bool, Form()] = False) -> Response:
    """Shut somebody out, or let them in again."""
    accounts_people.set_active(session, actor=who, user_id=user_id, active=active)
    return RedirectResponse(f"/people/{user_id}", status_code=303)


@router.post("/people/{user_id}/sessions/end", name="person_sessions_end")
def end_sessions(
    session: SessionDep, who: SignedIn, user_id: str, session_id: Annotated[str, Form(max_length=64)] = ""
) -> Response:
    """End one of somebody's sessions, or all of them."""
    sessions.end_of(session, who, user_id, session_id or None)
    return RedirectResponse(f"/people/{user_id}", status_code=303)


@router.post("/people/{user_id}/second-factor/reset", name="person_second_factor_reset")
def reset_second_factor(session: SessionDep, who: SignedIn, user_id: str) -> Response:
    """Let somebody who lost phone and recovery codes set up a new second factor."""
    second_factor.reset(session, who, user_id)
    return RedirectResponse(f"/people/{user_id}", status_code=303)


def _hospitals(session: Session, who: Principal) -> dict[str, str]:
    return {hospital.id: hospital.name for hospital in hospitals.list_hospitals(session, who)}


def _roles(who: Principal) -> list[Role]:
    return [role for role in Role if role is not Role.ADMIN or who.role is Role.ADMIN]
