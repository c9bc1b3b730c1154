"""Who else reads smears: whom a case may be given to, or a question put to."""

from sqlmodel import Session

from server.accounts import repository
from server.accounts.roles import Role
from server.accounts.schemas import Colleague
from shared.contracts.errors import NotFoundError


def readers(session: Session) -> list[Colleague]:
    """Return all who read smears and may sign in, by name."""
    return [
        Colleague(id=user.id, name=user.display_name) for user in repository.active_of_role(session, Role.HEMATOLOGIST)
    ]


def reader(session: Session, user_id: str) -> Colleague:
    """Return one of them.

    Raises:
        NotFoundError: nobody of that id reads smears, or the account is shut.
    """
    user = repository.by_id(session, user_id)
    if user is None or not user.active or user.role is not Role.HEMATOLOGIST:
        raise NotFoundError("Nobody of that name reads smears here (any more). Choose a colleague from the list.")
    return Colleague(id=user.id, name=user.display_name)
