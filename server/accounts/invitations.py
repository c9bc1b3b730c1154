"""Invitations: a link by which one person makes their own account, with a role that was decided for them."""

import re
import secrets
from datetime import timedelta
from typing import Final

from sqlmodel import Session

from server.accounts import repository, service
from server.accounts.roles import Role
from server.accounts.schemas import InvitationView, Principal, UserView
from server.audit import service as audit
from server.models import Invitation
from server.models.base import utc_now
from shared.contracts.errors import ConflictError, NotFoundError, UsageError

LIFE: Final = timedelta(days=7)
PATH: Final = "/login/invitation/"
_ADDRESS: Final = re.compile(r"[^@\s]{1,64}@[^@\s]{1,190}\.[^@\s.]{2,}")
_VOID: Final = "This invitation is not good (any more): it was used, taken back, or is too old. Ask for a new one."


def invite(
    session: Session,
    *,
    actor: Principal,
    display_name: str,
    role: Role,
    hospital_id: str | None = None,
    email: str | None = None,
) -> tuple[str, InvitationView]:
    """Invite somebody; return the token of the link, which is told this once, and the invitation.

    Raises:
        ForbiddenError: the actor may not make accounts of this role.
        UsageError, NotFoundError: name, hospital or mail address cannot be.
    """
    service.require_people_rights(actor, role)
    service.check_place(session, display_name=display_name, role=role, hospital_id=hospital_id)
    mail = (email or "").strip() or None
    if mail is not None and not _ADDRESS.fullmatch(mail):
        raise UsageError("Give a mail address as name@example.org, or none.")
    token = secrets.token_urlsafe(32)
    row = Invitation(
        token_sha256=service.token_id(token),
        display_name=display_name.strip(),
        role=role,
        hospital_id=hospital_id,
        email=mail,
        created_by=actor.actor,
        expires_at=utc_now() + LIFE,
    )
    repository.add(session, row)
    _record(session, row, actor.actor, "made", role=role.value, hospital_id=hospital_id, name=row.display_name)
    return token, _view(row, actor.display_name)


def waiting(session: Session, principal: Principal) -> list[InvitationView]:
    """Return the invitations that wait to be taken up, oldest first, of the roles this person manages."""
    service.require_people_rights(principal, Role.HEMATOLOGIST)
    found = repository.open_invitations(session, utc_now())
    return [_view(row, name) for row, name in found if row.role is not Role.ADMIN or principal.role is Role.ADMIN]


def revoke(session: Session, actor: Principal, invitation_id: str) -> None:
    """Take an invitation back.

    Raises:
        ConflictError: it was taken up already.
    """
    row = repository.invitation(session, invitation_id)
    if row is None:
        raise NotFoundError("There is no such invitation.")
    service.require_people_rights(actor, row.role)
    if row.used_at is not None:
        raise ConflictError("The invitation was taken up already; deactivate the account instead.")
    if row.revoked_at is None:
        row.revoked_at = utc_now()
        _record(session, row, actor.actor, "taken_back")


def look(session: Session, token: str) -> InvitationView:
    """Return what a link invites to.

    Raises:
        NotFoundError: nothing (any more).
    """
    return _view(_good(session, token), None)


def accept(session: Session, token: str, *, username: str, password: str) -> UserView:
    """Make the account that the link invites to; the link is used up.

    Raises:
        NotFoundError: it invites to nothing (any more).
        UsageError, ConflictError: user name or password cannot be; the link stays good.
    """
    row = _good(session, token, lock=True)
    # Whoever invited had the right to; the account is made in their name.
    inviter = Principal(
        user_id=row.created_by.removeprefix("user:"), username="", display_name="", role=Role.ADMIN, hospital_id=None
    )
    user = service.create_user(
        session,
        actor=inviter,
        username=username,
        display_name=row.display_name,
        role=row.role,
        password=password,
        hospital_id=row.hospital_id,
        email=row.email,
    )
    row.used_at = utc_now()
    _record(session, row, f"user:{user.id}", "taken_up", username=user.username)
    return user


def _good(session: Session, token: str, *, lock: bool = False) -> Invitation:
    row = repository.invitation_by_token(session, service.token_id(token), lock=lock)
    if row is None or row.used_at is not None or row.revoked_at is not None or row.expires_at <= utc_now():
        raise NotFoundError(_VOID)
    inviter = repository.by_id(session, row.created_by.removeprefix("user:"))
    # The command line has no account.
    if inviter is not None and not (inviter.active and service.manages(inviter.role, row.role)):
        raise NotFoundError(_VOID)
    return row


def _record(session: Session, row: Invitation, actor: str, action: str, **data: object) -> None:
    audit.record(session, subject=f"invitation:{row.id}", actor=actor, action=f"invitation.{action}", data=data)


def _view(row: Invitation, invited_by: str | None) -> InvitationView:
    kept = row.model_dump(include=InvitationView.model_fields.keys() - {"invited_by"})
    return InvitationView(**kept, invited_by=invited_by or "the command line")
