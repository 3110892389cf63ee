"""Channels: what a message is sent on, and what can become of it."""

import logging
from dataclasses import dataclass
from typing import Literal, Protocol

from storage.control.outbox import Message

log = logging.getLogger("outrider.incidents")

_LOG_LEVELS = {"critical": logging.ERROR, "warning": logging.WARNING}
_LOG_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryResult:
    """What became of one attempt.

    `reason` says in words what was answered, and holds no secret. `wait_s` is how long the receiver asks us to wait
    before the next attempt, which only `retry` has.
    """

    outcome: Literal["delivered", "retry", "refused"]
    reason: str
    retry_after_s: float | None = None


class Channel(Protocol):
    """A way to tell people; used by `concurrency` threads at once.

    `send` returns within `timeout_s` and raises nothing: what goes wrong is in its answer.
    """

    timeout_s: float
    concurrency: int

    def send(self, message: Message) -> DeliveryResult:
        """Send the message, or say why it was not delivered."""
        ...


class LogChannel:
    """The channel that is always there: one line of log for each transition."""

    timeout_s = _LOG_TIMEOUT_S
    concurrency = 1

    def send(self, message: Message) -> DeliveryResult:
        """Log the message."""
        level = logging.INFO if message.transition == "resolved" else _LOG_LEVELS.get(message.severity, logging.ERROR)
        log.log(
            level,
            "%s",
            format_message(message),
            extra={
                "action": "incident",
                "stream": message.stream,
                "incident": message.incident_id,
                "kind": message.kind,
                "severity": message.severity,
                "transition": message.transition,
                "notification": message.id,
                "details": message.details,
            },
        )
        return DeliveryResult(outcome="delivered", reason="logged")


def format_message(message: Message) -> str:
    """Return the message as one line for people."""
    if message.test:
        return f"Test message: {message.summary}"
    return (
        f"Stream {message.stream}: {message.kind} {message.transition} (incident {message.incident_id}): "
        f"{message.summary}"
    )
