"""Mail by SMTP, from the standard library: STARTTLS or implicit TLS, with or without signing in."""

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate
from typing import Final

from server.mail.port import Letter, Mail, MailRefusedError, MailUnavailableError, NoMail, check
from server.settings import ServerSettings

PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}
_PERMANENT: Final = 500


class SmtpMail:
    """One connection a letter: notices are few, and a kept connection is one more thing that breaks."""

    on = True

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings

    def send(self, letter: Letter) -> None:
        """Hand a letter over; the answer of the mail server decides whether it is tried again."""
        check(letter)
        try:
            with self._connected() as server:
                server.send_message(self._message(letter))
        except smtplib.SMTPRecipientsRefused as refused:
            code = min((code for code, _ in refused.recipients.values()), default=_PERMANENT)
            raise _told(code) from None
        except smtplib.SMTPAuthenticationError:
            raise MailUnavailableError(
                "The mail server refuses our name or password; see HEMATOVISION_SERVER_SMTP_USERNAME and _PASSWORD."
            ) from None
        except smtplib.SMTPResponseException as answered:
            raise _told(answered.smtp_code) from None
        except ssl.SSLError:
            raise MailUnavailableError(
                "The mail server's certificate is not trusted; see HEMATOVISION_SERVER_SMTP_CA_FILE."
            ) from None
        except (OSError, smtplib.SMTPException):
            raise MailUnavailableError("The mail server does not answer; the letter is sent again later.") from None

    def _connected(self) -> smtplib.SMTP:
        wanted = self._settings
        port = wanted.smtp_port or PORTS[wanted.smtp_security]
        place, seconds = (wanted.smtp_host, port), wanted.smtp_timeout
        trust = ssl.create_default_context(cafile=str(wanted.smtp_ca_file) if wanted.smtp_ca_file else None)
        if wanted.smtp_security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(*place, timeout=seconds, context=trust)
        else:
            server = smtplib.SMTP(*place, timeout=seconds)
        try:
            if wanted.smtp_security == "starttls":
                server.starttls(context=trust)
            if wanted.smtp_username:
                server.login(wanted.smtp_username, wanted.smtp_password.get_secret_value())
        except BaseException:
            server.close()
            raise
        return server

    def _message(self, letter: Letter) -> EmailMessage:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self._settings.smtp_from, letter.to, letter.subject
        message["Date"] = formatdate(localtime=False)
        message["Message-ID"] = f"<{letter.key}@{self._settings.smtp_from.rpartition('@')[2].strip('>')}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(letter.body)
        return message


def _told(code: int) -> MailRefusedError | MailUnavailableError:
    if code >= _PERMANENT:
        return MailRefusedError("The mail server refuses the letter for good; check the person's e-mail address.")
    return MailUnavailableError("The mail server takes no letter just now; it is sent again later.")


def open_mail(settings: ServerSettings) -> Mail:
    """Return the mail system that the settings name; nothing is asked of it yet."""
    return SmtpMail(settings) if settings.smtp_host else NoMail()
