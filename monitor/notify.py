"""Notifications: tell people what the control plane has put into the outbox.

An incident and the rows that say whom to tell are stored in one transaction; telling comes after it. So nothing is
lost when the process dies in between, and a message that is told twice carries the same id.
"""

import logging

from config.notify import NotifySettings
from storage.outbox import Message, Outbox

log = logging.getLogger("outrider.incidents")

_LEVELS = {"critical": logging.ERROR, "warning": logging.WARNING}


class LogChannel:
    """The first channel: one line of log for each transition."""

    def send(self, message: Message) -> None:
        """Log the message."""
        level = logging.INFO if message.transition == "resolved" else _LEVELS[message.severity]
        log.log(
            level,
            "Stream %s: %s %s (incident %d): %s",
            message.stream,
            message.kind,
            message.transition,
            message.incident_id,
            message.summary,
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


def channels_of(settings: NotifySettings) -> dict[str, LogChannel]:
    """Return the channels that messages can be sent on, by name; `log` is always one of them."""
    named = (name for name, channel in settings.channels.items() if channel.type == "log")
    return {name: LogChannel() for name in ("log", *named)}


def deliver_due(outbox: Outbox, channels: dict[str, LogChannel]) -> int:
    """Send what is due; return how many messages were delivered.

    Messages for a channel that is no longer configured stay where they are, and hold up no others.
    """
    sent = 0
    for message in outbox.due(channels.keys()):
        channels[message.channel].send(message)
        outbox.delivered(message.id)
        sent += 1
    return sent
