"""The mail port: what the centre needs of a mail system, and a version of it that keeps letters in memory.

No letter ever holds patient data: it says that something waits, and where.
"""

import threading
from dataclasses import dataclass
from typing import Protocol

from shared.contracts.errors import HematovisionError


class MailRefusedError(HematovisionError):
    """The mail system will not take this letter, now or ever; nothing is mended by trying again."""

    code, status = "mail_refused", 422


class MailUnavailableError(HematovisionError):
    """The mail system does not answer, or not just now; the letter is sent again later."""

    code, status = "mail_unavailable", 503


@dataclass(frozen=True)
class Letter:
    """A plain text letter to one person."""

    to: str
    subject: str
    body: str
    key: str
    """The same letter has the same key, so that a mail program shows it once though it was sent twice."""


class Mail(Protocol):
    """Sends letters."""

    @property
    def on(self) -> bool:
        """Whether letters go anywhere at all."""
        ...

    def send(self, letter: Letter) -> None:
        """Hand a letter over.

        Raises:
            MailRefusedError: it will never be taken. MailUnavailableError: try again later.
        """
        ...


class NoMail:
    """The centre sends no letters."""

    on = False

    def send(self, letter: Letter) -> None:
        """Let it go: whoever asks for notices is told on the page that there are none."""


class MemoryMail:
    """Letters in a list, for tests and for one process."""

    on = True

    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self._lock = threading.Lock()

    def send(self, letter: Letter) -> None:
        """Keep it."""
        check(letter)
        with self._lock:
            self.letters.append(letter)


def check(letter: Letter) -> None:
    """Return if a letter can be sent at all.

    Raises:
        MailRefusedError: its address is none, or a line break would add headers to it.
    """
    name, at, host = letter.to.rpartition("@")
    if not (name and at and host) or any(sign.isspace() for sign in letter.to) or "," in letter.to:
        raise MailRefusedError("That is no e-mail address: it has to be changed on the person's account.")
    if any(sign in letter.subject for sign in "\r\n"):
        raise MailRefusedError("A subject is one line.")
