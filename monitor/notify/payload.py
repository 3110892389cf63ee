"""The body of a webhook's request: what a receiver can rely on, as a model and its JSON Schema."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from config.notify import IncidentKind
from config.units import format_time
from monitor.notify.channel import format_message
from storage.control.outbox import Message


class WebhookPayload(BaseModel):
    """One notification: one step in the life of one incident, told on one channel.

    A message that is sent again has the same id, and the same body but for one case: where a window was told before
    it ended, its final numbers take the place of the first ones. New keys may come; those that are here stay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    version: Literal[1] = Field(description="Of this schema.")
    id: str = Field(description="Id of the notification, the same at every attempt, as in Idempotency-Key.")
    test: bool = Field(description="True for a message of `outrider notify test`; then there is no incident.")
    stream: str = Field(description="Name of the stream.")
    incident_id: int = Field(description="Id of the incident, as in incident_history; 0 in a test.")
    kind: IncidentKind | Literal["test"] = Field(description="Kind of the incident.")
    severity: Literal["warning", "critical"] = Field(description="Severity at this step.")
    transition: Literal["opened", "escalated", "repeated", "resolved"] = Field(
        description="What happened to the incident. One incident's steps are sent in this order."
    )
    window_start: str = Field(description="Start of the window that led to the step; RFC 3339, UTC, event time.")
    at: str = Field(description="When the step happened; RFC 3339, UTC, event time.")
    summary: str = Field(description="Why, in one sentence.")
    text: str = Field(description="All of it in one line, for a chat.")
    details: dict[str, Any] = Field(description="Every number that led to the step; differs by kind.")


def build_body(message: Message) -> bytes:
    """Return the JSON of a message; numbers that JSON does not have are null."""
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
