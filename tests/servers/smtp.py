"""A real SMTP server on the loopback (aiosmtpd): with and without TLS, with a login, and with scripted answers."""

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from tests.servers.process import free_port

USERNAME, PASSWORD = "outrider", "a password of the server"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMail:
    """A mail that the server has taken."""

    sender: str
    recipients: list[str]
    content: EmailMessage
    raw: bytes
    is_encrypted: bool


class SmtpServer:
    """A mail server on a free port.

    `answer_recipient` and `answer_data` return an answer such as `451 later`, or None to accept; `before_answer` is
    called with each mail that is taken, before its answer.
    """

    def __init__(
        self, *, certificate: Path | None = None, implicit: bool = False, login: bool = False, port: int = 0
    ) -> None:
        self.mails: list[ReceivedMail] = []
        self.answer_recipient: Callable[[str], str | None] = lambda _: None
        self.answer_data: Callable[[], str | None] = lambda: None
        self.before_answer: Callable[[ReceivedMail], None] = lambda _: None
        self.refuses_login = False
        self._closing = threading.Event()
        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        options: dict[str, Any] = {}
        if login:
            options |= {
                "authenticator": self._authenticate,
                "auth_required": True,
                "auth_require_tls": context is not None and not implicit,
            }
        if context is not None and not implicit:
            options |= {"tls_context": context, "require_starttls": True}
        self.port = port or free_port()
        self._controller = Controller(
            self, hostname="127.0.0.1", port=self.port, ssl_context=context if implicit else None, **options
        )
        self._controller.start()

    def _authenticate(self, _server: SMTP, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        is_right = data == LoginPassword(USERNAME.encode(), PASSWORD.encode()) and not self.refuses_login
        return AuthResult(success=is_right, handled=False)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        answer = self.answer_recipient(address)
        if answer is None:
            envelope.rcpt_tos.append(address)
        return answer or "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        answer = self.answer_data()
        if answer is not None:
            return answer
        mail = ReceivedMail(
            sender=envelope.mail_from,
            recipients=list(envelope.rcpt_tos),
            content=BytesParser(policy=default).parsebytes(envelope.content),
            raw=envelope.content,
            is_encrypted=session.ssl is not None,
        )
        self.mails.append(mail)
        self.before_answer(mail)
        return "250 taken"

    def close(self) -> None:
        self._controller.stop(no_assert=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
