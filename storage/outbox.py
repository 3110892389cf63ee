"""Storage room: the outbox: what has to be told, to whom, and how often it was tried."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from storage.engine import Database
from storage.tables import incidents, notifications, streams, transitions


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One notification that is due; `id` is the same at every attempt."""

    id: str
    channel: str
    attempts: int
    stream: str
    incident_id: int
    kind: str
    severity: str
    transition: str
    window_start_us: int
    at_us: int
    summary: str
    details: Mapping[str, Any]


class Outbox:
    """Reads what is due and records what became of it."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def due(self, channels: Collection[str], limit: int = 100) -> list[Message]:
        """Return the notifications of these channels whose time has come, oldest first."""
        query = (
            sa.select(
                notifications.c.id,
                notifications.c.channel,
                notifications.c.attempts,
                streams.c.name,
                incidents.c.id.label("incident_id"),
                incidents.c.kind,
                incidents.c.severity,
                transitions.c.transition,
                transitions.c.window_start_us,
                transitions.c.at_us,
                transitions.c.summary,
                transitions.c.details,
            )
            .join(transitions, transitions.c.id == notifications.c.transition_id)
            .join(incidents, incidents.c.id == notifications.c.incident_id)
            .join(streams, streams.c.id == incidents.c.stream_id)
            .where(
                notifications.c.state == "pending",
                notifications.c.channel.in_(channels),
                notifications.c.next_attempt_at_us <= self._db.clock(),
            )
            .order_by(notifications.c.transition_id, notifications.c.channel)
            .limit(limit)
        )
        with self._db.read() as conn:
            return [
                Message(
                    id=row.id,
                    channel=row.channel,
                    attempts=row.attempts,
                    stream=row.name,
                    incident_id=row.incident_id,
                    kind=row.kind,
                    severity=row.severity,
                    transition=row.transition,
                    window_start_us=row.window_start_us,
                    at_us=row.at_us,
                    summary=row.summary,
                    details=json.loads(row.details or "{}"),
                )
                for row in conn.execute(query)
            ]

    def delivered(self, message_id: str) -> None:
        """Record a delivery."""
        with self._db.write() as conn:
            conn.execute(
                notifications.update()
                .where(notifications.c.id == message_id)
                .values(
                    state="delivered",
                    attempts=notifications.c.attempts + 1,
                    delivered_at_us=self._db.clock(),
                    last_error=None,
                )
            )

    def pending(self) -> int:
        """Return how many notifications are still to be told."""
        query = sa.select(sa.func.count()).where(notifications.c.state == "pending")
        with self._db.read() as conn:
            return int(conn.execute(query).scalar_one())
