"""Notification channels: the protocol, and the log channel."""

import logging
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from monitor.notify.delivery import DeliveryResult, delivered
from storage.control.outbox import Message

log = logging.getLogger("outrider.incidents")

_LOG_LEVELS = {"critical": logging.ERROR, "warning": logging.WARNING}
_LOG_TIMEOUT_S = 5.0


class Channel(Protocol):
    """A destination of notifications, used by up to `concurrency` threads at once.

    `send` returns within `timeout_s` and raises nothing: a failure is reported in its result.
    """

    timeout_s: float
    concurrency: int

    def send(self, message: Message) -> DeliveryResult:
        """Send a message; the result gives the reason if it was not delivered."""
        ...


@runtime_checkable
class GroupChannel(Channel, Protocol):
    """A channel that can send several new incidents as one message.

    Attributes:
        group_wait_us: Time for which a new incident that is not critical waits for others; 0: each is sent alone.
        max_group: Largest number of incidents in a message.
    """

    group_wait_us: int
    max_group: int

    def send_group(self, messages: Sequence[Message]) -> DeliveryResult:
        """Send several messages as one; the order is that of the outbox, the same at each attempt."""
        ...


@runtime_checkable
class ClosableChannel(Channel, Protocol):
    """A channel that keeps connections or threads."""

    def close(self) -> None:
        """Release connections and threads; the last sender thread of the channel calls it."""
        ...


class LogChannel:
    """The channel that always exists: it writes one log line per transition."""

    timeout_s = _LOG_TIMEOUT_S
    concurrency = 1

    def send(self, message: Message) -> DeliveryResult:
        """Write the message to the log, at a level that depends on its severity."""
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
        return delivered("logged")


def format_message(message: Message) -> str:
    """Return the message as one line of text."""
    if message.test:
        return f"Test message: {message.summary}"
    return (
        f"Stream {message.stream}: {message.kind} {message.transition} (incident {message.incident_id}): "
        f"{message.summary}"
    )
