"""One SMTP conversation with a timeout for the whole of it: name lookup, connection, TLS, login and message.

The timeout of `smtplib` applies to each read, so a server that sends single bytes could hold a conversation
indefinitely. Each conversation therefore runs in a thread of its own; at the timeout its sockets are shut down and the
caller continues.
"""

import contextlib
import smtplib
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from email.message import EmailMessage

from config.channels.email import MailTls
from monitor.notify.delivery import FailureReason
from monitor.notify.mail.smtp_failures import SmtpError, explain_failure, quote_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpTarget:
    """A mail server, how to reach it, and the login, if it needs one."""

    host: str
    port: int
    tls: MailTls
    username: str | None = None
    password: str | None = None

    @property
    def place(self) -> str:
        """Return the host and the port, for messages."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRecipient:
    """The answer of the server to one recipient; `is_temporary` for 4xx."""

    is_temporary: bool
    answer: str


def send_mail(
    target: SmtpTarget, mail: EmailMessage, sender: str, recipients: Sequence[str], timeout_s: float
) -> Mapping[str, RefusedRecipient]:
    """Send a mail; return the recipients that the server has refused while it has taken the mail for others.

    Raises:
        SmtpError: The server has taken the mail for no recipient, or has not answered within `timeout_s`.
    """
    conversation = _Conversation(target, mail, sender, recipients, timeout_s)
    # A daemon thread: a name server that does not answer must not delay the end of the process.
    threading.Thread(target=conversation.run, name=f"smtp-{target.host}", daemon=True).start()
    try:
        return conversation.refused.result(timeout_s)
    except TimeoutError:
        message = f"{target.place} has not finished the conversation within {timeout_s:g} s"
        raise SmtpError(FailureReason.TIMEOUT, message) from None
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise explain_failure(error, target.host, target.port) from error
    finally:
        conversation.abort()


class _Conversation:
    """One conversation, run in a thread; `abort` ends it from another thread."""

    def __init__(
        self, target: SmtpTarget, mail: EmailMessage, sender: str, recipients: Sequence[str], timeout_s: float
    ) -> None:
        self.refused: Future[Mapping[str, RefusedRecipient]] = Future()
        self._target = target
        self._mail = mail
        self._sender = sender
        self._recipients = list(recipients)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._aborted = False

    def run(self) -> None:
        try:
            self.refused.set_result(self._converse())
        except Exception as error:  # noqa: BLE001 - raised in the waiting thread
            self.refused.set_exception(error)

    def _converse(self) -> Mapping[str, RefusedRecipient]:
        target = self._target
        server = self._connect()
        try:
            if target.tls == "starttls":
                server.starttls(context=ssl.create_default_context())
            if target.username is not None:
                server.login(target.username, target.password or "")
            answers = server.send_message(self._mail, self._sender, self._recipients)
            with contextlib.suppress(OSError, smtplib.SMTPException):
                # The mail has been taken: the answer to QUIT is not waited for.
                server.putcmd("QUIT")
            return {
                address: RefusedRecipient(is_temporary=code < 500, answer=quote_answer(code, text))
                for address, (code, text) in answers.items()
            }
        finally:
            server.close()

    def _connect(self) -> smtplib.SMTP:
        """Connect; register the socket for `abort` before the server says its first word."""
        conversation = self

        class WatchedSMTP(smtplib.SMTP):
            def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
                return conversation._wrap(socket.create_connection((host, port), timeout))

        # Longer than the bound of the caller, which then says that it was reached.
        return WatchedSMTP(self._target.host, self._target.port, timeout=2 * self._timeout_s)

    def _wrap(self, connection: socket.socket) -> socket.socket:
        with self._lock:
            # The duplicate stays valid when TLS takes the socket over.
            self._socket = connection.dup()
            if self._aborted:
                self._close_socket()
        if self._target.tls != "implicit":
            return connection
        return ssl.create_default_context().wrap_socket(connection, server_hostname=self._target.host)

    def abort(self) -> None:
        """Shut down the connection, or the one that is opened later."""
        with self._lock:
            self._aborted = True
            self._close_socket()

    def _close_socket(self) -> None:
        if self._socket is None:
            return
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # The other side has closed the connection already.
        finally:
            self._socket.close()
            self._socket = None
