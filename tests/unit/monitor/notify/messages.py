"""A message of the outbox."""

from typing import Any

from storage.control.outbox import Message

T0 = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z


def make_message(**changes: Any) -> Message:
    fields: dict[str, Any] = {
        "id": "0400107b56e45eeef8d8b68cdaf35518",
        "channel": "ops",
        "attempt": 1,
        "created_at_us": T0,
        "stream": "payments",
        "incident_id": 7,
        "kind": "spike",
        "severity": "warning",
        "transition": "opened",
        "window_start_us": T0,
        "at_us": T0 + 60_000_000,
        "summary": "30 outliers among 60 events",
        "sequence": 1,
        "opened_at_us": T0 + 60_000_000,
        "details": {"p_value": 1e-9, "window": {"start": "2026-01-01T00:00:00Z"}},
    }
    return Message(**(fields | changes))
