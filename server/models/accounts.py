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
