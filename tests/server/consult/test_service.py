"""Questions to colleagues: who may ask, read and answer; what is new for whom; what letters say."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlmodel import Session, select

from server.accounts import people
from server.accounts import service as accounts
from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.cases import worklist
from server.cases.schemas import WorklistFilter
from server.consult import service, tasks
from server.consult.schemas import About, Asked
from server.mail.port import Letter, MailUnavailableError, MemoryMail
from server.mail.smtp import open_mail
from server.models import AuditEntry, OutboxEntry
from server.outbox import service as outbox
from server.runtime import Runtime
from shared.contracts.errors import ForbiddenError, NotFoundError, UsageError
from tests.server.conftest import Ward
from tests.server.mail.servers import settings, smtp_server

SECRET = "Is Mrs Lind's cell a blast?"


def say(ward: Ward, text: str = SECRET, *, key: str = "key-1", people: list[Principal] | None = None) -> Asked:
    asked = [ward.second_reader] if people is None else people
    return Asked(text=text, people=[one.user_id for one in asked], key=key)


def ask(session: Session, ward: Ward, about: About | None = None, **how: object) -> str:
    return service.ask(session, ward.reader, ward.case_id, about or About(cell_id="c1"), say(ward, **how))  # type: ignore[arg-type] # as `say`


def test_thread_is_new_for_who_was_asked_until_it_is_seen_and_again_when_answered(ward: Ward) -> None:
    reader, second = ward.reader, ward.second_reader
    with ward.centre.runtime.database.session() as session:
        thread_id = ask(session, ward)
        assert ask(session, ward) == thread_id, "the same key is one question"
        (thread,) = service.threads(session, second, ward.case_id)
        assert (thread.unread, thread.number, thread.people) == (True, 1, ["Dr. A. Reader", "Dr. B. Second"])
        assert service.unread_of(session, second, [ward.case_id]) == {ward.case_id: 1}
        waiting = worklist.worklist(session, second, WorklistFilter(asked=True))
        assert [row.case_id for row in waiting.rows] == [ward.case_id]
        assert worklist.worklist(session, reader, WorklistFilter(asked=True)).rows == []
        service.seen(session, second, ward.case_id)
        assert not service.threads(session, second, ward.case_id)[0].unread
        service.reply(session, second, ward.case_id, thread_id, say(ward, "No, a lymphocyte.", key="key-2", people=[]))
        assert service.threads(session, reader, ward.case_id)[0].unread
        assert service.waiting(session, reader) == 1
        assert service.waiting(session, second) == 0
        service.resolve(session, reader, ward.case_id, thread_id, resolved=True, key="key-3")
        service.resolve(session, reader, ward.case_id, thread_id, resolved=True, key="key-4")
        assert service.threads(session, reader, ward.case_id)[0].resolved_by == "Dr. A. Reader"
        service.resolve(session, second, ward.case_id, thread_id, resolved=False, key="key-5")
        (thread,) = service.threads(session, reader, ward.case_id)
        entries = session.exec(select(AuditEntry).where(AuditEntry.subject == f"case:{ward.case_id}")).all()
    assert not thread.resolved
    assert [(one.kind.value, one.author) for one in thread.messages] == [
        ("said", "Dr. A. Reader"), ("said", "Dr. B. Second"), ("resolved", "Dr. A. Reader"),
        ("reopened", "Dr. B. Second"),
    ]  # fmt: skip
    told = [entry.action for entry in entries if entry.action.startswith("consult.")]
    assert told == ["consult.asked", "consult.answered", "consult.resolved", "consult.reopened"]
    assert not any("Lind" in str(entry.data) for entry in entries)


def test_whoever_may_not_read_the_case_may_not_read_or_be_asked(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        thread_id = ask(session, ward)
        with pytest.raises(NotFoundError):
            service.threads(session, ward.other_it, ward.case_id)
        with pytest.raises(ForbiddenError):
            service.threads(session, ward.coordinator, ward.case_id)
        with pytest.raises(ForbiddenError):
            service.reply(session, ward.it, ward.case_id, thread_id, say(ward, key="key-9"))
        for outsider in (ward.it, ward.coordinator):
            with pytest.raises(NotFoundError):
                ask(session, ward, key=f"key-{outsider.username}", people=[outsider])
        with pytest.raises(NotFoundError):
            service.reply(session, ward.reader, "HV-00000000", thread_id, say(ward, key="key-8"))


def test_question_is_to_somebody_about_something_that_is_there(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        with pytest.raises(UsageError, match="at least one colleague"):
            ask(session, ward, people=[ward.reader])
        with pytest.raises(NotFoundError):
            ask(session, ward, About(cell_id="c999"))
        for wrong in (About(field=0, box=(0, 0, 9000, 10)), About(field=0), About(box=(0, 0, 5, 5))):
            with pytest.raises(UsageError):
                ask(session, ward, wrong)
        with pytest.raises(NotFoundError):
            ask(session, ward, About(field=7, box=(0, 0, 5, 5)))
        region = About(field=0, box=(10, 20, 110, 90))
        ask(session, ward, region, key="key-region")
        ask(session, ward, About(), key="key-case")
        assert [one.about for one in service.threads(session, ward.reader, ward.case_id)] == [About(), region]


def pending(runtime: Runtime) -> list[dict[str, str]]:
    with runtime.database.session(read_only=True) as session:
        rows = session.exec(select(OutboxEntry).where(OutboxEntry.kind == service.NOTIFY)).all()
        return [row.payload for row in rows if row.done_at is None]


def test_letter_names_the_case_and_nothing_else_and_only_one_waits(ward: Ward) -> None:
    mail = MemoryMail()
    runtime = replace(
        ward.centre.runtime,
        mail=mail,
        settings=ward.centre.runtime.settings.model_copy(update={"portal_url": "https://portal.example/"}),
    )
    with runtime.database.session() as session:
        accounts.set_notices(session, ward.second_reader, email="second@hospital.example", wanted=True)
        thread_id = ask(session, ward)
        service.reply(session, ward.reader, ward.case_id, thread_id, say(ward, "Please.", key="key-2"))
    for payload in pending(runtime):
        tasks.notify(runtime, payload)
    (letter,) = mail.letters
    subject = f"A question waits for you in case {ward.case_id}"
    assert (letter.to, letter.subject) == ("second@hospital.example", subject)
    assert letter.body == f"{subject}:\nhttps://portal.example/cases/{ward.case_id}#consult\n"
    with runtime.database.session() as session:
        service.seen(session, ward.second_reader, ward.case_id)
        service.reply(session, ward.reader, ward.case_id, thread_id, say(ward, "And this?", key="key-3"))
    for payload in pending(runtime):
        tasks.notify(runtime, payload)
    assert len(mail.letters) == 2, "read in between: the next is news again"


@pytest.mark.parametrize("why", ["off", "no address", "seen", "shut"])
def test_nobody_is_told_who_does_not_want_it_or_knows(ward: Ward, why: str) -> None:
    mail = MemoryMail()
    runtime = replace(ward.centre.runtime, mail=mail)
    admin = ward.centre.add_person("admin", Role.ADMIN)
    with runtime.database.session() as session:
        if why != "no address":
            accounts.set_notices(session, ward.second_reader, email="s@h.example", wanted=why != "off")
        ask(session, ward)
        if why == "seen":
            service.seen(session, ward.second_reader, ward.case_id)
        if why == "shut":
            people.set_active(session, actor=admin, user_id=ward.second_reader.user_id, active=False)
    for payload in pending(runtime):
        tasks.notify(runtime, payload)
    assert mail.letters == []


def test_who_reads_while_a_letter_is_on_its_way_is_told_of_what_comes_after(ward: Ward) -> None:
    runtime, second = ward.centre.runtime, ward.second_reader

    class SlowMail(MemoryMail):
        """A mail server during whose work the letter's reader looks at the case."""

        def send(self, letter: Letter) -> None:
            super().send(letter)
            if len(self.letters) == 1:
                with runtime.database.session() as session:
                    service.seen(session, second, ward.case_id)

    mail = SlowMail()
    slow = replace(runtime, mail=mail)
    with runtime.database.session() as session:
        accounts.set_notices(session, second, email="s@h.example", wanted=True)
        thread_id = ask(session, ward)
    tasks.notify(slow, pending(slow)[-1])
    with runtime.database.session() as session:
        service.reply(session, ward.reader, ward.case_id, thread_id, say(ward, "Please.", key="key-2", people=[]))
    tasks.notify(slow, pending(slow)[-1])
    assert len(mail.letters) == 2


def test_what_no_database_keeps_is_left_out_of_a_question(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        ask(session, ward, text="A \x00blast?\n\x07Or not\u202e?")
        (thread,) = service.threads(session, ward.second_reader, ward.case_id)
        assert [one.text for one in thread.messages] == ["A blast?\nOr not?"]
        with pytest.raises(UsageError, match="Write something"):
            ask(session, ward, text="\x00 \x07", key="key-2")


def test_letters_go_by_smtp_from_the_outbox_and_wait_for_a_server_that_is_away(ward: Ward, tmp_path: Path) -> None:
    database = ward.centre.runtime.database
    with smtp_server(tmp_path / "mail", "starttls", sign_in=True) as (inbox, given):
        mine = settings(tmp_path, given)
        runtime = replace(ward.centre.runtime, mail=open_mail(mine), settings=mine)
        with database.session() as session:
            accounts.set_notices(session, ward.second_reader, email="second@hospital.example", wanted=True)
            ask(session, ward)
        with database.session(read_only=True) as session:
            row = session.exec(select(OutboxEntry).where(OutboxEntry.kind == service.NOTIFY)).one()
        inbox.refuse = "451 later"
        work = tasks.TASKS[service.NOTIFY]
        assert not outbox.run_entry(database, row.id or 0, lambda payload: work(runtime, payload))
        with database.session(read_only=True) as session:
            kept = session.get_one(OutboxEntry, row.id)
            assert (kept.done_at, kept.gave_up_at, kept.attempts) == (None, None, 1)
        inbox.refuse = ""
        assert outbox.run_entry(database, row.id or 0, lambda payload: work(runtime, payload))
    (letter,) = inbox.letters
    assert letter["Subject"] == f"A question waits for you in case {ward.case_id}"
    assert "Lind" not in letter.as_string()
    with pytest.raises(MailUnavailableError):
        runtime.mail.send(replace_letter(letter["To"]))


def replace_letter(to: str) -> Letter:
    return Letter(to=to, subject="x", body="x", key="x")


def test_address_of_ones_own_is_an_address(ward: Ward) -> None:
    with ward.centre.runtime.database.session() as session:
        for wrong in ("nobody", "a b@c.example", "a@b.example, c@d.example"):
            with pytest.raises(UsageError):
                accounts.set_notices(session, ward.reader, email=wrong, wanted=True)
        with pytest.raises(UsageError):
            accounts.set_notices(session, ward.reader, email="", wanted=True)
        accounts.set_notices(session, ward.reader, email="a@b.example", wanted=False)
        assert accounts.notices(session, ward.reader) == ("a@b.example", False)
        assert accounts.notice_address(session, ward.reader.user_id) is None
