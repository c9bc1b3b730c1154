"""The page behind an invitation's link: whoever holds it makes their account, once."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from sqlmodel import Session
from starlette.responses import Response

from portal.sessions import client_of, login_token_matches
from portal.views.login import OUT_OF_DATE, onwards, with_token
from server.accounts import invitations, sign_in
from server.accounts.schemas import InvitationView
from server.deps import RuntimeDep
from server.hospitals import service as hospitals
from shared.contracts.errors import ConflictError, UsageError

router = APIRouter()


@router.get("/login/invitation/{token}", name="invitation")
def invitation(request: Request, runtime: RuntimeDep, token: str) -> Response:
    """What one is invited to."""
    return _form(request, runtime, token)


@router.post("/login/invitation/{token}", name="invitation_accept")
def accept(
    request: Request,
    runtime: RuntimeDep,
    token: str,
    username: Annotated[str, Form(max_length=200)],
    password: Annotated[str, Form(max_length=1000)],
    again: Annotated[str, Form(max_length=1000)],
    csrf_token: Annotated[str, Form()] = "",
) -> Response:
    """Make the account and sign in, by way of the second factor where the role must have one."""
    if not login_token_matches(request, csrf_token):
        return _form(request, runtime, token, username=username, error=OUT_OF_DATE, status=403)
    if password != again:
        return _form(request, runtime, token, username=username, error="The two passwords differ.", status=400)
    try:
        with runtime.database.session() as session:
            user = invitations.accept(session, token, username=username, password=password)
            begun = sign_in.go_on(session, runtime, user.id, client_of(request))
    except (UsageError, ConflictError) as refused:
        return _form(request, runtime, token, username=username, error=refused.message, status=refused.status)
    return onwards(request, begun, "")


def _form(
    request: Request, runtime: RuntimeDep, token: str, *, username: str = "", error: str = "", status: int = 200
) -> Response:
    with runtime.database.session(read_only=True) as session:
        invited = invitations.look(session, token)
        hospital = _hospital(session, invited)
    return with_token(
        request,
        "login/invitation.html",
        status=status,
        error=error,
        invited=invited,
        hospital=hospital,
        username=username,
        second_factor=invited.role in runtime.settings.second_factor_roles,
    )


def _hospital(session: Session, invited: InvitationView) -> str:
    return hospitals.name_of(session, invited.hospital_id) if invited.hospital_id else ""
