"""People and their sessions."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from server.accounts.roles import Role
from server.db.types import UtcDateTime, stored
from server.models.base import new_id, utc_now


class User(SQLModel, table=True):
    """Somebody who signs in. `hospital_id` limits hospital IT to its hospital; None for the centre's people."""

    __tablename__ = "user_account"

    id: str = Field(default_factory=new_id, primary_key=True)
    username: str = Field(unique=True, index=True)
    display_name: str
    role: Role = Field(sa_type=stored(Role))
    hospital_id: str | None = Field(default=None, foreign_key="hospital.id", index=True)
    password_hash: str
    active: bool = True
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    failed_logins: int = 0
    locked_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    email: str | None = None
    mail_notices: bool = True
    """Whether letters tell of questions that wait."""
    last_sign_in_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    totp_sealed: str | None = None
    """The secret of the second factor, sealed by the vault; None: there is none."""
    totp_pending: str | None = None
    """A sealed secret whose first code has not come yet; nothing is asked for by it."""
    totp_step: int | None = None
    """The time step of the last code that was taken: neither it nor an earlier one is taken again."""
    totp_since: datetime | None = Field(default=None, sa_type=UtcDateTime)


class UserSession(SQLModel, table=True):
    """A server-side session; `id` is the SHA-256 of the cookie's token, so a copied database opens nothing."""

    __tablename__ = "user_session"

    id: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="user_account.id", index=True)
    csrf_token: str
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    last_seen_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    user_agent: str = ""
    """What the browser said it is when the session was opened."""


class SignInStep(SQLModel, table=True):
    """Between password and second factor; `id` is the SHA-256 of a cookie's token that opens nothing else."""

    __tablename__ = "sign_in_step"

    id: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="user_account.id", index=True)
    expires_at: datetime = Field(sa_type=UtcDateTime)


class RecoveryCode(SQLModel, table=True):
    """A code for whoever has lost the second factor, good once; only its hash is kept."""

    __tablename__ = "recovery_code"

    id: str = Field(default_factory=new_id, primary_key=True)
    user_id: str = Field(foreign_key="user_account.id", index=True)
    code_sha256: str
    used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Invitation(SQLModel, table=True):
    """An account that somebody may make for themselves, once, by a link; only the link's hash is kept."""

    __tablename__ = "invitation"

    id: str = Field(default_factory=new_id, primary_key=True)
    token_sha256: str = Field(unique=True, index=True)
    display_name: str
    role: Role = Field(sa_type=stored(Role))
    hospital_id: str | None = Field(default=None, foreign_key="hospital.id")
    email: str | None = None
    created_by: str
    """``user:<id>``."""
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime)
    used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class FailedSignIn(SQLModel, table=True):
    """A failed attempt by its network address, kept for as long as it counts against that address."""

    __tablename__ = "failed_sign_in"

    id: int | None = Field(default=None, primary_key=True)
    address: str = Field(index=True)
    at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
