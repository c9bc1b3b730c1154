"""Mail by a real SMTP server: STARTTLS, implicit TLS, signing in, and what goes wrong."""

from pathlib import Path
from typing import Any

import pytest

from server.mail.port import Letter, MailRefusedError, MailUnavailableError, MemoryMail
from server.mail.smtp import open_mail
from server.settings import ServerSettings
from shared.contracts.errors import ConfigError
from shared.processes import free_port
from tests.server.mail.servers import settings, smtp_server

LETTER = Letter(to="reader@hospital.example", subject="A question waits", body="Look:\nhttps://x\n", key="k-1")
PLAIN = {"smtp_host": "127.0.0.1", "smtp_security": "none", "smtp_from": "a@b.example", "portal_url": "https://p"}


@pytest.mark.parametrize(
    ("security", "sign_in"), [("starttls", True), ("starttls", False), ("tls", False), ("none", False)]
)
def test_letter_arrives(tmp_path: Path, security: str, *, sign_in: bool) -> None:
    with smtp_server(tmp_path, security, sign_in=sign_in) as (inbox, given):
        open_mail(settings(tmp_path, given)).send(LETTER)
    (letter,) = inbox.letters
    assert (letter["To"], letter["From"], letter["Subject"]) == (LETTER.to, "hv@centre.example", LETTER.subject)
    assert letter["Message-ID"] == "<k-1@centre.example>"
    assert letter.get_content().replace("\r\n", "\n") == LETTER.body
    assert inbox.over_tls == [security != "none"]


def test_answers_of_the_server_decide_whether_to_try_again(tmp_path: Path) -> None:
    with smtp_server(tmp_path, "none") as (inbox, given):
        mail = open_mail(settings(tmp_path, given))
        inbox.refuse = "451 busy"
        with pytest.raises(MailUnavailableError):
            mail.send(LETTER)
        inbox.refuse = "550 no such mailbox"
        with pytest.raises(MailRefusedError):
            mail.send(LETTER)
    with pytest.raises(MailUnavailableError, match="does not answer"):
        mail.send(LETTER)


def test_wrong_password_and_unknown_authority_say_which_setting(tmp_path: Path) -> None:
    with smtp_server(tmp_path, "starttls", sign_in=True) as (inbox, given):
        with pytest.raises(MailUnavailableError, match="SMTP_USERNAME"):
            open_mail(settings(tmp_path, {**given, "smtp_password": "another long secret"})).send(LETTER)
        with pytest.raises(MailUnavailableError, match="SMTP_CA_FILE"):
            open_mail(settings(tmp_path, {**given, "smtp_ca_file": None})).send(LETTER)
    assert inbox.letters == []


@pytest.mark.parametrize("wrong", [{"to": "nobody"}, {"to": "a@b.example,c@d.example"}, {"subject": "x\r\nBcc: e@f"}])
def test_what_is_no_letter_is_refused_before_it_is_sent(tmp_path: Path, wrong: dict[str, str]) -> None:
    letter = Letter(**{**vars_of(LETTER), **wrong})
    for mail in (MemoryMail(), open_mail(settings(tmp_path, PLAIN | {"smtp_port": free_port()}))):
        with pytest.raises(MailRefusedError):
            mail.send(letter)


def vars_of(letter: Letter) -> dict[str, str]:
    return {"to": letter.to, "subject": letter.subject, "body": letter.body, "key": letter.key}


def test_without_a_server_there_is_no_mail(tmp_path: Path) -> None:
    mail = open_mail(ServerSettings(home=tmp_path))
    mail.send(LETTER)
    assert not mail.on


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"smtp_from": ""}, "SMTP_FROM"),
        ({"portal_url": ""}, "PORTAL_URL"),
        ({"smtp_username": "me"}, "SMTP_PASSWORD"),
        ({"smtp_host": "mail.example"}, "use starttls or tls"),
        ({"smtp_ca_file": "/nowhere.crt"}, "SMTP_CA_FILE"),
        ({"smtp_security": "maybe"}, "SMTP_SECURITY"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ServerSettings.load(home=tmp_path, **{**PLAIN, **changed})
