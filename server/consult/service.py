"""Asking a colleague about a case: threads on a cell, a region or the whole; unread marks; who is told.

Whoever may read the case may read and answer its questions; nobody else can be asked.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Session

from server.accounts import colleagues
from server.accounts.schemas import Principal
from server.audit import service as audit
from server.cases import service as cases
from server.cases.access import require_reader
from server.cases.sight import require_open
from server.consult import repository
from server.consult.schemas import About, Asked, MessageView, ThreadView
from server.models import ConsultMessage, ConsultPerson, ConsultThread
from server.models.base import utc_now
from server.models.consult import MessageKind
from server.outbox import service as outbox
from shared.contracts.errors import NotFoundError, UsageError
from shared.text import typed

NOTIFY: Final = "consult.notify"
_RECENT: Final = timedelta(hours=1)


def threads(session: Session, principal: Principal, case_id: str) -> list[ThreadView]:
    """Return a case's questions with all that followed, open ones first.

    Raises:
        ConflictError: this person reads the case blind: questions tell what others think.
    """
    require_open(session, principal, cases.visible_case(session, principal, case_id))
    found = repository.threads(session, case_id)
    if not found:
        return []
    ids = [thread.id for thread in found]
    said: dict[str, list[MessageView]] = {}
    for message, name in repository.messages(session, ids):
        said.setdefault(message.thread_id, []).append(_message(message, name))
    parts = repository.people(session, ids)
    numbers = cases.cell_numbers(session, case_id) if any(thread.cell_id for thread in found) else {}
    return [
        ThreadView(
            id=thread.id,
            about=_about(thread),
            number=numbers.get(thread.cell_id or ""),
            resolved=thread.resolved_at is not None,
            resolved_by=next((user.display_name for _, user in parts if user.id == thread.resolved_by), None),
            unread=any(
                part.thread_id == thread.id and part.user_id == principal.user_id and _new_for(thread, part)
                for part, _ in parts
            ),
            people=[user.display_name for part, user in parts if part.thread_id == thread.id],
            messages=said.get(thread.id, []),
        )
        for thread in found
    ]


def ask(session: Session, principal: Principal, case_id: str, about: About, asked: Asked) -> str:
    """Open a thread with a question to at least one colleague; return its id. The same key twice opens one.

    Raises:
        UsageError: nobody is asked. NotFoundError: no such cell or field, or somebody named reads no smears.
    """
    require_reader(principal)
    require_open(session, principal, cases.visible_case(session, principal, case_id))
    known = repository.message_by_key(session, asked.key)
    if known is not None:
        return known.thread_id
    if not set(asked.people) - {principal.user_id}:
        raise UsageError("Choose at least one colleague to ask.")
    _check_about(session, case_id, about)
    x0, y0, x1, y1 = about.box or (None, None, None, None)
    thread = ConsultThread(
        case_id=case_id, opened_by=principal.user_id, last_by=principal.user_id, cell_id=about.cell_id,
        field=about.field, x0=x0, y0=y0, x1=x1, y1=y1,
    )  # fmt: skip
    repository.add(session, thread)
    to = _say(session, principal, thread, asked)
    where = {"cell": about.cell_id} if about.cell_id else {"field": about.field} if about.box else {}
    _record(session, principal, thread, "consult.asked", {"to": to, **where})
    return thread.id


def reply(session: Session, principal: Principal, case_id: str, thread_id: str, asked: Asked) -> None:
    """Answer in a thread; whoever is mentioned takes part from now on."""
    thread = _own_thread(session, principal, case_id, thread_id)
    if repository.message_by_key(session, asked.key) is None:
        to = _say(session, principal, thread, asked)
        _record(session, principal, thread, "consult.answered", {"to": to} if to else {})


def resolve(session: Session, principal: Principal, case_id: str, thread_id: str, *, resolved: bool, key: str) -> None:
    """Say that a question is answered, or open it again."""
    thread = _own_thread(session, principal, case_id, thread_id)
    if (thread.resolved_at is not None) == resolved or repository.message_by_key(session, key) is not None:
        return
    now = utc_now()
    thread.resolved_at, thread.resolved_by = (now, principal.user_id) if resolved else (None, None)
    kind = MessageKind.RESOLVED if resolved else MessageKind.REOPENED
    _keep(session, principal, thread, kind, "", key)
    _record(session, principal, thread, f"consult.{kind.value}", {})


def seen(session: Session, principal: Principal, case_id: str) -> None:
    """Note that this person has a case's questions on screen."""
    require_open(session, principal, cases.visible_case(session, principal, case_id))
    for thread in repository.threads(session, case_id):
        part = repository.person(session, thread.id, principal.user_id)
        if part is not None and _new_for(thread, part):
            part.read_at = utc_now()


def unread_of(session: Session, principal: Principal, case_ids: Collection[str]) -> dict[str, int]:
    """Return case id → how many questions or answers wait there for this person."""
    return repository.unread_by_case(session, principal.user_id, case_ids) if case_ids else {}


def waiting(session: Session, principal: Principal) -> int:
    """Return in how many cases something waits for this person."""
    return len(repository.unread_by_case(session, principal.user_id, None))


def newest(session: Session) -> dict[str, datetime]:
    """Return case id → when something was last said, of the last hour: for pages that follow."""
    return repository.newest(session, since=utc_now() - _RECENT)


def stamp(session: Session, case_id: str) -> str:
    """Return what changes with every message of a case that the caller may see."""
    return repository.stamp(session, case_id)


def _check_about(session: Session, case_id: str, about: About) -> None:
    if about.cell_id is not None and not any(
        cell.cell_id == about.cell_id for cell in cases.cells_of(session, case_id)
    ):
        raise NotFoundError("The case has no such cell (any more). Choose another and ask again.")
    if about.field is None and about.box is None:
        return
    if about.field is None or about.box is None:
        raise UsageError("A region is a field and a box in it.")
    field, (x0, y0, x1, y1) = cases.field_of(session, case_id, about.field), about.box
    if not (0 <= x0 < x1 <= field.width and 0 <= y0 < y1 <= field.height):
        raise UsageError("The region lies outside the field; choose it again.")


def _own_thread(session: Session, principal: Principal, case_id: str, thread_id: str) -> ConsultThread:
    require_reader(principal)
    require_open(session, principal, cases.visible_case(session, principal, case_id))
    thread = repository.thread(session, case_id, thread_id, lock=True)
    if thread is None:
        raise NotFoundError("There is no such question in this case.")
    return thread


def _say(session: Session, principal: Principal, thread: ConsultThread, asked: Asked) -> list[str]:
    """Keep a message, have everybody named take part, and tell them; return who was named."""
    text = typed(asked.text, lines=True)
    if not text:
        raise UsageError("Write something first.")
    named = [person.id for person in (colleagues.reader(session, one) for one in dict.fromkeys(asked.people))]
    for user_id in {principal.user_id, *named}:
        if repository.person(session, thread.id, user_id) is None:
            repository.add(session, ConsultPerson(thread_id=thread.id, user_id=user_id))
    message = _keep(session, principal, thread, MessageKind.SAID, text, asked.key)
    for part, _ in repository.people(session, [thread.id]):
        if part.user_id != principal.user_id:
            outbox.add(session, NOTIFY, {"message_id": message.id, "user_id": part.user_id})
    return named


def _keep(
    session: Session, principal: Principal, thread: ConsultThread, kind: MessageKind, text: str, key: str
) -> ConsultMessage:
    message = ConsultMessage(thread_id=thread.id, author=principal.user_id, kind=kind, text=text, idempotency_key=key)
    repository.add(session, message)
    thread.last_at, thread.last_by = message.at, principal.user_id
    part = repository.person(session, thread.id, principal.user_id)
    if part is None:
        repository.add(session, ConsultPerson(thread_id=thread.id, user_id=principal.user_id, read_at=message.at))
    else:
        part.read_at = message.at
    return message


def _new_for(thread: ConsultThread, part: ConsultPerson) -> bool:
    return thread.last_by != part.user_id and (part.read_at is None or thread.last_at > part.read_at)


def _record(
    session: Session, principal: Principal, thread: ConsultThread, action: str, data: dict[str, object]
) -> None:
    audit.record(
        session, subject=cases.subject(thread.case_id), actor=principal.actor, action=action,
        data={"thread": thread.id, **data},
    )  # fmt: skip


def _about(thread: ConsultThread) -> About:
    corners: Sequence[int | None] = (thread.x0, thread.y0, thread.x1, thread.y1)
    box = None if None in corners else (thread.x0 or 0, thread.y0 or 0, thread.x1 or 0, thread.y1 or 0)
    return About(cell_id=thread.cell_id, field=thread.field, box=box)


def _message(message: ConsultMessage, name: str) -> MessageView:
    return MessageView(
        id=message.id, author=name, author_id=message.author, at=message.at, kind=message.kind, text=message.text
    )
