"""The result of an attempt to deliver a message, and the reasons of failures."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class FailureReason(StrEnum):
    """The reasons of a failed attempt: a closed set, for metrics and queries.

    Attributes:
        AUTH: The receiver does not accept the credentials (401, 403, a refused log-in).
        RATE_LIMITED: The receiver asks for fewer messages (429).
        CLIENT_ERROR: The receiver refuses the message or the address (other 3xx and 4xx, a refused recipient).
        SERVER_ERROR: The receiver is broken or busy (5xx).
        TIMEOUT: No answer in time (also 408).
        CONNECTION: No connection, or one that broke before the answer.
        TLS: The certificate or the TLS handshake failed.
        UNKNOWN: The receiver's library tells no reason, or the channel has failed unexpectedly.
    """

    AUTH = "auth"
    RATE_LIMITED = "rate_limited"
    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TLS = "tls"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryResult:
    """The result of one attempt to deliver a message; made by `delivered`, `retry` and `refuse`.

    Attributes:
        outcome: `delivered`, `retry` for a failure that may pass, `refused` for one that only a person can correct.
        detail: The answer, as text without secrets.
        reason: The reason of a failure; None for a delivery.
        retry_after_s: The delay that the receiver requests before the next attempt; only `retry` has one.
    """

    outcome: Literal["delivered", "retry", "refused"]
    detail: str
    reason: FailureReason | None = None
    retry_after_s: float | None = None


def delivered(detail: str) -> DeliveryResult:
    """Return the result of an attempt that succeeded."""
    return DeliveryResult(outcome="delivered", detail=detail)


def retry(reason: FailureReason, detail: str, retry_after_s: float | None = None) -> DeliveryResult:
    """Return the result of an attempt that failed and is repeated later."""
    return DeliveryResult(outcome="retry", reason=reason, detail=detail, retry_after_s=retry_after_s)


def refuse(reason: FailureReason, detail: str) -> DeliveryResult:
    """Return the result of an attempt that failed for good."""
    return DeliveryResult(outcome="refused", reason=reason, detail=detail)
