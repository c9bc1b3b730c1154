"""What others may know of an account."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from server.accounts.roles import Role


class Principal(BaseModel):
    """Somebody who is signed in; what every service checks rights against."""

    model_config = ConfigDict(frozen=True)

    user_id: str
    username: str
    display_name: str
    role: Role
    hospital_id: str | None
    csrf_token: str = ""
    session_id: str = ""

    @property
    def actor(self) -> str:
        """How the audit names this person."""
        return f"user:{self.user_id}"


class UserView(BaseModel):
    """A row of the people page."""

    id: str
    username: str
    display_name: str
    role: Role
    hospital_id: str | None
    active: bool
    created_at: datetime


COMMAND_LINE = Principal(
    user_id="system", username="cli", display_name="command line", role=Role.ADMIN, hospital_id=None
)
"""Whoever may run commands on the centre's machine."""
