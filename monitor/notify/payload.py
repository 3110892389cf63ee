"""The body of a webhook request, as a pydantic model and its JSON Schema."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from config.notify import IncidentKind
from config.time_format import format_time
from monitor.notify.channel import format_message
from storage.control.outbox import Message


class WebhookPayload(BaseModel):
    """One notification: one transition of one incident, sent on one channel.

    A repeated message has the same id and the same body, with one exception: if an incident was opened before its
    window had ended, the final numbers of the window replace the first ones. Keys may be added, but not removed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    version: Literal[1] = Field(description="Version of this schema.")
    id: str = Field(description="Id of the notification; the same at every attempt, and the same as Idempotency-Key.")
    test: bool = Field(description="True for a message of `outrider notify test`, which belongs to no incident.")
    stream: str = Field(description="Name of the stream.")
    incident_id: int = Field(description="Id of the incident, as in incident_history; 0 in a test.")
    kind: IncidentKind | Literal["test"] = Field(description="Kind of the incident.")
    severity: Literal["warning", "critical"] = Field(description="Severity at this transition.")
    transition: Literal["opened", "escalated", "repeated", "acknowledged", "resolved", "reopened"] = Field(
        description="Transition of the incident. The transitions of one incident are sent in order."
    )
    window_start: str = Field(description="Start of the window that led to the transition; RFC 3339, UTC, event time.")
    at: str = Field(description="Time of the transition; RFC 3339, UTC, event time.")
    summary: str = Field(description="The reason, in one sentence.")
    text: str = Field(description="The whole notification in one line, for chat messages.")
    details: dict[str, Any] = Field(description="The numbers that led to the transition; they differ by kind.")


def build_body(message: Message) -> bytes:
    """Return the JSON body of a message; NaN and infinities become null."""
    payload = WebhookPayload.model_validate(
        {
            "version": 1,
            "id": message.id,
            "test": message.test,
            "stream": message.stream,
            "incident_id": message.incident_id,
            "kind": message.kind,
            "severity": message.severity,
            "transition": message.transition,
            "window_start": format_time(message.window_start_us),
            "at": format_time(message.at_us),
            "summary": message.summary,
            "text": format_message(message),
            "details": dict(message.details),
        }
    )
    return payload.model_dump_json().encode()


def payload_schema() -> dict[str, Any]:
    """Return the JSON Schema of the body."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | WebhookPayload.model_json_schema()
    return schema | {"title": "Outrider notification"}
