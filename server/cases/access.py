"""Who may see which cases, and who may change them."""

from server.accounts.roles import Role
from server.accounts.schemas import Principal
from shared.contracts.errors import ForbiddenError

Scope = str | None
"""The hospital a query is limited to; None: all hospitals."""


def scope_of(principal: Principal) -> Scope:
    """Return the hospital whose cases this person may see.

    Raises:
        ForbiddenError: the role sees no cases at all.
    """
    if principal.role in {Role.HEMATOLOGIST, Role.ADMIN}:
        return None
    if principal.role is Role.HOSPITAL_IT and principal.hospital_id is not None:
        return principal.hospital_id
    raise ForbiddenError("Your role does not open cases. Ask an administrator if you need to read them.")


def require_reader(principal: Principal) -> None:
    """Return if this person reads smears.

    Raises:
        ForbiddenError: only a hematologist claims, changes and signs.
    """
    if principal.role is not Role.HEMATOLOGIST:
        raise ForbiddenError("Only a hematologist can do this; sign in with a hematologist's account.")
