"""Letters that tell of questions: without patient data, and one at a time until it was read."""

from collections.abc import Callable
from typing import Any

import structlog
from sqlmodel import Session

from server.accounts import service as accounts
from server.consult import repository, service
from server.mail.port import Letter, MailRefusedError
from server.models.base import utc_now
from server.runtime import Runtime

_log = structlog.get_logger(__name__)


def notify(runtime: Runtime, payload: dict[str, Any]) -> None:
    """Tell one person of one message, if that is still news and the person wants letters.

    No transaction is open while the mail server is spoken to. A letter that is refused for good is given up; one that
    cannot be sent just now raises, and the outbox tries again.
    """
    message_id, user_id = payload["message_id"], payload["user_id"]
    looked_at = utc_now()  # who reads while the letter is on its way is told of what comes after it
    with runtime.database.session(read_only=True) as session:
        letter = _letter(session, runtime, message_id, user_id)
    if letter is None:
        return
    try:
        runtime.mail.send(letter)
    except MailRefusedError as refused:
        _log.warning("consult.not_told", message_id=message_id, user_id=user_id, code=refused.code)
        return
    with runtime.database.session() as session:
        message = repository.message(session, message_id)
        part = repository.person(session, message.thread_id, user_id, lock=True) if message else None
        if part is not None:
            part.noticed_at = looked_at
    _log.info("consult.told", message_id=message_id, user_id=user_id)


def _letter(session: Session, runtime: Runtime, message_id: str, user_id: str) -> Letter | None:
    message = repository.message(session, message_id)
    thread = repository.thread_by_id(session, message.thread_id) if message else None
    if message is None or thread is None or not runtime.mail.on:
        return None
    part = repository.person(session, thread.id, user_id)
    address = accounts.notice_address(session, user_id)
    read = part is None or (part.read_at is not None and part.read_at >= message.at)
    if part is None or address is None or read:
        return None
    if part.noticed_at is not None and (part.read_at is None or part.noticed_at > part.read_at):
        return None  # told before, and not looked since: one letter is enough
    kind = "A question" if message.author == thread.opened_by else "An answer"
    subject = f"{kind} waits for you in case {thread.case_id}"
    link = f"{runtime.settings.portal_url.rstrip('/')}/cases/{thread.case_id}#consult"
    return Letter(to=address, subject=subject, body=f"{subject}:\n{link}\n", key=f"consult-{message.id}-{user_id}")


TASKS: dict[str, Callable[[Runtime, dict[str, Any]], None]] = {service.NOTIFY: notify}
