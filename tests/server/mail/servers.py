"""A real SMTP server on loopback, with and without TLS and signing in."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword

from server.settings import ServerSettings
from shared.crypto.pki import DemoCA
from shared.processes import LOOPBACK, free_port

USER, SECRET = "hematovision", "a long enough secret"


@dataclass
class Inbox:
    """What the server took, and how it answers."""

    letters: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    over_tls: list[bool] = field(default_factory=list)
    refuse: str = ""
    """An answer to every recipient instead of taking it: ``451 busy``."""

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Take a recipient or refuse it."""
        if self.refuse:
            return self.refuse
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802 - as above
        """Keep a letter."""
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        self.letters.append(message_from_bytes(content, policy=policy.default))
        self.recipients += envelope.rcpt_tos
        self.over_tls.append(session.ssl is not None)
        return "250 OK"


@contextmanager
def smtp_server(folder: Path, security: str, *, sign_in: bool = False) -> Iterator[tuple[Inbox, dict[str, Any]]]:
    """Serve SMTP; yield what comes in, and the settings that reach it."""
    certificate = DemoCA.create(folder / "ca").issue_server("mail", ["localhost", LOOPBACK], folder / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    options: dict[str, Any] = {}
    if security == "starttls":
        options |= {"tls_context": context, "require_starttls": True}
    if sign_in:
        right = LoginPassword(USER.encode(), SECRET.encode())
        options |= {
            "auth_required": True,
            "auth_require_tls": security == "starttls",  # implicit TLS is over it already
            "authenticator": lambda *given: AuthResult(success=given[4] == right, handled=False),
        }
    inbox, port = Inbox(), free_port()
    server = Controller(
        inbox, hostname=LOOPBACK, port=port, ssl_context=context if security == "tls" else None, **options
    )
    server.start()
    given: dict[str, Any] = {
        "smtp_host": LOOPBACK, "smtp_port": port, "smtp_security": security, "smtp_from": "hv@centre.example",
        "portal_url": "https://portal.example", "smtp_ca_file": certificate.ca, "smtp_timeout": 20.0,
    }  # fmt: skip
    if sign_in:
        given |= {"smtp_username": USER, "smtp_password": SECRET}
    try:
        yield inbox, given
    finally:
        server.stop()


def settings(home: Path, given: dict[str, Any]) -> ServerSettings:
    """Return a centre's settings with these."""
    return ServerSettings(home=home, **given)
