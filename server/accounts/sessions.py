"""One's own sessions, and other people's for whoever manages them: what is open where, and ending it."""

import re
from typing import Final

from sqlmodel import Session

from server.accounts import repository, service
from server.accounts.schemas import Principal, SessionView
from server.models import UserSession
from server.models.base import utc_now
from shared.contracts.errors import NotFoundError

# The first that fits names the client: Edge, Opera and Chrome all say they are Chrome and Safari too.
_BROWSERS: Final = (
    ("Edge", r"Edg(e|A|iOS)?/"),
    ("Opera", r"OPR/"),
    ("Firefox", r"(Firefox|FxiOS)/"),
    ("Chrome", r"(Chrome|CriOS|HeadlessChrome)/"),
    ("Safari", r"Version/\S+ .*Safari/"),
)
_SYSTEMS: Final = (
    ("iPhone", r"iPhone"),
    ("iPad", r"iPad"),
    ("Android", r"Android"),
    ("Windows", r"Windows"),
    ("macOS", r"Mac OS X"),
    ("ChromeOS", r"CrOS"),
    ("Linux", r"Linux"),
)


def own(session: Session, principal: Principal) -> list[SessionView]:
    """Return one's own open sessions, the one used last first."""
    return _views(session, principal.user_id, current=principal.session_id)


def of(session: Session, actor: Principal, user_id: str) -> list[SessionView]:
    """Return the open sessions of somebody whose account ``actor`` manages."""
    user = service.managed(session, actor, user_id)
    return _views(session, user.id, current=actor.session_id)


def end_own(session: Session, principal: Principal, session_id: str) -> None:
    """End one of one's own sessions."""
    _end(session, principal, principal.user_id, session_id)


def end_others(session: Session, principal: Principal) -> int:
    """End all of one's own sessions but this one; return how many."""
    return _end_all(session, principal, principal.user_id, but=principal.session_id)


def end_of(session: Session, actor: Principal, user_id: str, session_id: str | None) -> None:
    """End one session of somebody whose account ``actor`` manages, or all of them."""
    user = service.managed(session, actor, user_id)
    if session_id is None:
        _end_all(session, actor, user.id, but=None)
    else:
        _end(session, actor, user.id, session_id)


def client_name(user_agent: str) -> str:
    """Return what a browser says it is, in two words; they can be wrong, nothing is decided by them."""
    browser = next((name for name, mark in _BROWSERS if re.search(mark, user_agent)), "")
    system = next((name for name, mark in _SYSTEMS if re.search(mark, user_agent)), "")
    if browser and system:
        return f"{browser} on {system}"
    return browser or system or "Unknown client"


def _end(session: Session, actor: Principal, user_id: str, session_id: str) -> None:
    row = next((row for row in _rows(session, user_id) if row.id == session_id), None)
    if row is None:
        raise NotFoundError("That session has ended already.")
    repository.revoke(session, now=utc_now(), session_id=row.id)
    _told(session, actor, user_id, 1, client_name(row.user_agent))


def _end_all(session: Session, actor: Principal, user_id: str, *, but: str | None) -> int:
    ended = sum(row.id != but for row in _rows(session, user_id))
    repository.revoke(session, now=utc_now(), user_id=user_id, but=but)
    if ended:
        _told(session, actor, user_id, ended, "all" if but is None else "all others")
    return ended


def _told(session: Session, actor: Principal, user_id: str, ended: int, which: str) -> None:
    user = repository.by_id(session, user_id)
    if user is not None:
        service.record(session, user, actor.actor, "sessions_ended", sessions=ended, which=which)


def _rows(session: Session, user_id: str) -> list[UserSession]:
    now = utc_now()
    return repository.sessions_of(session, user_id, now=now, idle_since=now - service.IDLE)


def _views(session: Session, user_id: str, *, current: str) -> list[SessionView]:
    return [
        SessionView(
            id=row.id,
            client=client_name(row.user_agent),
            created_at=row.created_at,
            last_seen_at=row.last_seen_at,
            current=row.id == current,
        )
        for row in _rows(session, user_id)
    ]
