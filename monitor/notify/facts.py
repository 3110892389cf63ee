"""The facts of a message that all channels and all templates use."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from config.time_format import format_time
from monitor.notify.links import PageLinks
from storage.control.outbox import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFacts:
    """The facts of a message. Texts come from events as they are: each channel escapes them.

    Attributes:
        headline: Severity, kind, stream and transition of the incident, on one line.
        summary: The reason of the transition, in one sentence.
        stream: Name of the stream.
        kind: Kind of the incident.
        severity: `warning` or `critical`.
        transition: `opened`, `escalated`, `repeated`, `acknowledged`, `resolved` or `reopened`.
        incident_id: Id of the incident; 0 in a test.
        window_start: Start of the window that led to the transition; RFC 3339, UTC.
        at: Event time of the transition; RFC 3339, UTC.
        incident_url: Page of the incident, or None.
        stream_url: Page of the stream, or None.
        details: The numbers that led to the transition.
        test: True for a message of `outrider notify test`.
    """

    headline: str
    summary: str
    stream: str
    kind: str
    severity: str
    transition: str
    incident_id: int
    window_start: str
    at: str
    incident_url: str | None
    stream_url: str | None
    details: Mapping[str, Any]
    test: bool

    def as_variables(self) -> dict[str, Any]:
        """Return the facts by name, for a template."""
        return asdict(self)


def message_facts(message: Message, links: PageLinks) -> MessageFacts:
    """Return the facts of a message."""
    test = "TEST: " if message.test else ""
    return MessageFacts(
        headline=f"{test}[{message.severity}] {message.kind} on {message.stream} {message.transition}",
        summary=message.summary,
        stream=message.stream,
        kind=message.kind,
        severity=message.severity,
        transition=message.transition,
        incident_id=message.incident_id,
        window_start=format_time(message.window_start_us),
        at=format_time(message.at_us),
        incident_url=links.incident(message.incident_id),
        stream_url=None if message.test else links.stream(message.stream),
        details=message.details,
        test=message.test,
    )
