"""Accounts."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from portal.access import SignedIn
from portal.rendering import page
from server.accounts import service as accounts
from server.accounts.roles import Role
from server.deps import SessionDep
from server.hospitals import service as hospitals

router = APIRouter()


@router.get("/people", name="people")
def people(request: Request, session: SessionDep, who: SignedIn) -> Response:
    """Who has an account."""
    return page(
        request,
        "people/list.html",
        people=accounts.list_users(session, who),
        hospitals={hospital.id: hospital.name for hospital in hospitals.list_hospitals(session, who)},
        roles=[role for role in Role if role is not Role.ADMIN or who.role is Role.ADMIN],
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


@router.post("/people/{user_id}/active", name="person_active")
def set_active(session: SessionDep, who: SignedIn, user_id: str, active: Annotated[bool, Form()] = False) -> Response:
    """Shut somebody out, or let them in again."""
    accounts.set_active(session, actor=who, user_id=user_id, active=active)
    return RedirectResponse("/people", status_code=303)
