"""The failures of a mail server as reasons, and which of them only a person can correct. Pure."""

import smtplib
import socket
import ssl

from monitor.notify.delivery import FailureReason

_AUTH_CODES = frozenset({530, 534, 535, 538})
_MAX_QUOTE_CHARACTERS = 200


class SmtpError(Exception):
    """The server has taken the mail for no recipient; the message holds nothing of the login.

    Attributes:
        reason: The reason of the failure.
        is_final: Whether only a person can correct it.
    """

    def __init__(self, reason: FailureReason, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.is_final = is_final


def explain_failure(error: Exception, host: str, port: int) -> SmtpError:
    """Return why a conversation with a server failed."""
    place = f"{host}:{port}"
    match error:
        case smtplib.SMTPServerDisconnected():
            return SmtpError(FailureReason.CONNECTION, f"{place} has closed the connection")
        case smtplib.SMTPResponseException() | smtplib.SMTPRecipientsRefused():
            return _explain_refusal(error, place)
        case smtplib.SMTPException():
            return _explain_offer(error, place)
        case OSError():
            return _explain_system_error(error, host, place)
        case _:
            return SmtpError(FailureReason.UNKNOWN, f"{place}: {type(error).__name__}")


def _explain_refusal(error: smtplib.SMTPResponseException | smtplib.SMTPRecipientsRefused, place: str) -> SmtpError:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        # Temporary as soon as one of them is: that recipient gets the mail at a later attempt.
        code, text = min(error.recipients.values(), key=lambda answer: answer[0])
        return _explain_answer(f"{place} refuses all recipients", code, text)
    refused = "the login" if isinstance(error, smtplib.SMTPAuthenticationError) else "the mail"
    return _explain_answer(f"{place} refuses {refused}", error.smtp_code, error.smtp_error)


def quote_answer(code: int, text: bytes | str) -> str:
    """Return an answer of the server on one line."""
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    line = " ".join("".join(char if char.isprintable() else " " for char in decoded).split())
    return f"{code} {line[:_MAX_QUOTE_CHARACTERS]}".strip()


def _explain_answer(event: str, code: int, text: bytes | str) -> SmtpError:
    """Return the failure of an answer: 4xx is temporary, 5xx is final (RFC 5321, section 4.2.1)."""
    message = f"{event}: {quote_answer(code, text)}"
    if code in _AUTH_CODES:
        return SmtpError(FailureReason.AUTH, message, is_final=True)
    if 500 <= code < 600:
        return SmtpError(FailureReason.CLIENT_ERROR, message, is_final=True)
    return SmtpError(FailureReason.SERVER_ERROR, message)


def _explain_offer(error: smtplib.SMTPException, place: str) -> SmtpError:
    """Return the failure of a server that does not offer what the settings ask for: STARTTLS, AUTH or a mechanism."""
    if "STARTTLS" in str(error):
        advice = "for TLS from the start set tls: implicit"
        return SmtpError(FailureReason.TLS, f"{place} does not offer STARTTLS; {advice}")
    return SmtpError(FailureReason.AUTH, f"{place}: {error}", is_final=True)


def _explain_system_error(error: OSError, host: str, place: str) -> SmtpError:
    match error:
        case ssl.SSLCertVerificationError():
            advice = "SSL_CERT_FILE may name another authority"
            message = f"the certificate of {place} is not accepted: {error.verify_message}; {advice}"
            return SmtpError(FailureReason.TLS, message)
        case ssl.SSLError():
            return SmtpError(FailureReason.TLS, f"TLS with {place} failed: {error.reason or error}")
        case TimeoutError():
            return SmtpError(FailureReason.TIMEOUT, f"{place} has not answered in time")
        case socket.gaierror():
            return SmtpError(FailureReason.CONNECTION, f"the host {host} cannot be found: {error.strerror}")
        case _:
            return SmtpError(FailureReason.CONNECTION, f"{place}: {error.strerror or error}")
