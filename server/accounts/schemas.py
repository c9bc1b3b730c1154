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


class Colleague(BaseModel):
    """Somebody who reads smears, as others name them."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str


class UserView(BaseModel):
    """A row of the people page."""

    id: str
    username: str
    display_name: str
    role: Role
    hospital_id: str | None
    active: bool
    created_at: datetime
    email: str | None = None
    last_sign_in_at: datetime | None = None
    second_factor: bool = False
    """Signs in with a code beside the password."""
    sessions: int = 0
    """How many are open."""
    locked_until: datetime | None = None


class SessionView(BaseModel):
    """A session as its owner sees it."""

    id: str
    client: str
    """``Firefox on Windows``: what the browser said it is."""
    created_at: datetime
    last_seen_at: datetime
    current: bool = False


class SecondFactorView(BaseModel):
    """How an account's second factor stands."""

    on: bool
    since: datetime | None
    required: bool
    codes_left: int


class Enrolment(BaseModel):
    """What an authenticator app is told, once."""

    model_config = ConfigDict(frozen=True)

    uri: str
    """``otpauth://totp/…``"""
    secret: str
    """The same secret for typing, base32."""


class InvitationView(BaseModel):
    """An invitation that waits to be taken up."""

    id: str
    display_name: str
    role: Role
    hospital_id: str | None
    email: str | None
    invited_by: str
    created_at: datetime
    expires_at: datetime


COMMAND_LINE = Principal(
    user_id="system", username="cli", display_name="command line", role=Role.ADMIN, hospital_id=None
)
"""Whoever may run commands on the centre's machine."""
