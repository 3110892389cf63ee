"""The outbox: pending notifications by channel, with their delivery attempts."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from storage.database.engine import Database
from storage.database.tables import incidents, notifications, streams, transitions


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One delivery attempt of a notification.

    `id` is the same in every attempt. `attempt` counts from 1. `sequence` grows with the transitions of an incident.
    `opened_at_us` is the event time at which the incident was opened first. `test` marks a message that belongs to no
    incident.
    """

    id: str
    channel: str
    attempt: int
    created_at_us: int
    stream: str
    incident_id: int
    kind: str
    severity: str
    transition: str
    window_start_us: int
    at_us: int
    summary: str
    details: Mapping[str, Any]
    sequence: int
    opened_at_us: int
    test: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCounts:
    """Notifications of one channel by state; `last_error` is the error of the latest one that was not delivered."""

    pending: int = 0
    delivered: int = 0
    dead: int = 0
    skipped: int = 0
    oldest_pending_us: int | None = None
    last_delivered_us: int | None = None
    last_error: str | None = None


_MAX_RETRY_WAIT_US = 600_000_000
"""Longest wait between two attempts; a later attempt of a notification from the future is due at once."""


class Outbox:
    """Claims due notifications and records the results of delivery, on the database's clock."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @property
    def database(self) -> Database:
        """Return the database of the outbox."""
        return self._db

    def claim(self, channel: str, lease_us: int) -> Message | None:
        """Claim the oldest due notification of a channel for `lease_us` microseconds; return None if none is due.

        No other daemon can claim it during the lease. If the claimant crashes, the notification is due again after the
        lease. The transitions of one incident are delivered in order: while one is pending, later ones are not due.
        """
        with self._db.read() as conn:
            if conn.execute(self._select_due(channel)).first() is None:
                return None
        with self._db.write() as conn:
            message_id = conn.execute(self._select_due(channel).with_for_update(skip_locked=True)).scalar_one_or_none()
            if message_id is None:
                return None
            conn.execute(
                notifications.update()
                .where(notifications.c.id == message_id)
                .values(attempts=notifications.c.attempts + 1, next_attempt_at_us=self._db.now_us(conn) + lease_us)
            )
            return _read_message(conn, message_id)

    def _select_due(self, channel: str) -> sa.Select[Any]:
        earlier = notifications.alias()
        has_earlier_pending = sa.exists().where(
            earlier.c.incident_id == notifications.c.incident_id,
            earlier.c.channel == notifications.c.channel,
            earlier.c.transition_id < notifications.c.transition_id,
            earlier.c.state == "pending",
        )
        now_us = self._db.clock_expression()
        # Created before the clock was set back: it would otherwise wait until the clock has caught up.
        from_the_future = sa.and_(
            notifications.c.created_at_us > now_us, notifications.c.next_attempt_at_us > now_us + _MAX_RETRY_WAIT_US
        )
        return (
            sa.select(notifications.c.id)
            .where(
                notifications.c.state == "pending",
                notifications.c.channel == channel,
                sa.or_(notifications.c.next_attempt_at_us <= now_us, from_the_future),
                ~has_earlier_pending,
            )
            .order_by(notifications.c.transition_id)
            .limit(1)
        )

    def mark_delivered(self, message: Message) -> None:
        """Record a delivery, even if another process has given up the notification in the meantime."""
        with self._db.write() as conn:
            conn.execute(
                notifications.update()
                .where(notifications.c.id == message.id, notifications.c.state != "delivered")
                .values(
                    state="delivered",
                    delivered_at_us=self._db.clock_expression(),
                    next_attempt_at_us=None,
                    last_error=None,
                    reason=None,
                )
            )

    def mark_failed(
        self, message: Message, error: str, decide: Callable[[int], int | None], *, reason: str = "unknown"
    ) -> int | None:
        """Record a failed attempt; return the time until the next one in microseconds, or None when given up.

        Args:
            message: The message as claimed. Nothing is recorded if another attempt has started since.
            error: The cause, as text.
            decide: Maps the current time to the time of the next attempt, or to None to give up.
            reason: The cause, as a word of a closed set.
        """
        with self._db.write() as conn:
            now_us = self._db.now_us(conn)
            next_us = decide(now_us)
            conn.execute(
                notifications.update()
                .where(
                    notifications.c.id == message.id,
                    notifications.c.state == "pending",
                    notifications.c.attempts == message.attempt,
                )
                .values(
                    state="dead" if next_us is None else "pending",
                    next_attempt_at_us=next_us,
                    last_error=error,
                    reason=reason,
                )
            )
        return None if next_us is None else next_us - now_us

    def give_up_unknown_channels(self, known: Collection[str], deadline_us: int) -> int:
        """Give up notifications older than `deadline_us` of channels that are not in `known`; return their number."""
        with self._db.write() as conn:
            return conn.execute(
                notifications.update()
                .where(
                    notifications.c.state == "pending",
                    notifications.c.channel.not_in(known),
                    notifications.c.created_at_us <= self._db.now_us(conn) - deadline_us,
                )
                .values(
                    state="dead",
                    next_attempt_at_us=None,
                    last_error="no daemon has a channel of this name any more",
                    reason="unknown",
                )
            ).rowcount

    def count_pending(self) -> int:
        """Return the number of pending notifications."""
        query = sa.select(sa.func.count()).where(notifications.c.state == "pending")
        with self._db.read() as conn:
            return int(conn.execute(query).scalar_one())

    def count_by_channel(self) -> dict[str, ChannelCounts]:
        """Return the counts of notifications by state for each channel."""
        state_counts = [
            sa.func.sum(sa.case((notifications.c.state == state, 1), else_=0)).label(state)
            for state in ("pending", "delivered", "dead", "skipped")
        ]
        created_us = sa.case((notifications.c.state == "pending", notifications.c.created_at_us))
        grouped = sa.select(
            notifications.c.channel,
            *state_counts,
            sa.func.min(created_us).label("oldest_pending_us"),
            sa.func.max(notifications.c.delivered_at_us).label("last_delivered_us"),
        ).group_by(notifications.c.channel)
        with self._db.read() as conn:
            rows = conn.execute(grouped).mappings().all()
            return {
                row["channel"]: ChannelCounts(
                    pending=int(row["pending"]),
                    delivered=int(row["delivered"]),
                    dead=int(row["dead"]),
                    skipped=int(row["skipped"]),
                    oldest_pending_us=row["oldest_pending_us"],
                    last_delivered_us=row["last_delivered_us"],
                    last_error=conn.scalar(_select_last_error(row["channel"])),
                )
                for row in rows
            }


def _read_message(conn: sa.Connection, message_id: str) -> Message:
    return to_message(conn.execute(select_messages().where(notifications.c.id == message_id)).one())


def select_messages() -> sa.Select[Any]:
    """Return the query of notifications with their transitions, whose rows `to_message` reads."""
    return (
        sa.select(
            notifications.c.id,
            notifications.c.channel,
            notifications.c.attempts,
            notifications.c.created_at_us,
            streams.c.name,
            incidents.c.id.label("incident_id"),
            incidents.c.kind,
            incidents.c.opened_at_us,
            sa.func.coalesce(transitions.c.severity, incidents.c.severity).label("severity"),
            transitions.c.id.label("sequence"),
            transitions.c.transition,
            transitions.c.window_start_us,
            transitions.c.at_us,
            transitions.c.summary,
            transitions.c.details,
        )
        .join(transitions, transitions.c.id == notifications.c.transition_id)
        .join(incidents, incidents.c.id == notifications.c.incident_id)
        .join(streams, streams.c.id == incidents.c.stream_id)
    )


def to_message(row: sa.Row[Any]) -> Message:
    """Return a row of `select_messages` as a message."""
    return Message(
        id=row.id,
        channel=row.channel,
        attempt=row.attempts,
        created_at_us=row.created_at_us,
        stream=row.name,
        incident_id=row.incident_id,
        kind=row.kind,
        severity=row.severity,
        transition=row.transition,
        window_start_us=row.window_start_us,
        at_us=row.at_us,
        summary=row.summary,
        details=json.loads(row.details or "{}"),
        sequence=row.sequence,
        opened_at_us=row.opened_at_us,
    )


def _select_last_error(channel: str) -> sa.Select[Any]:
    return (
        sa.select(notifications.c.last_error)
        .where(notifications.c.channel == channel, notifications.c.last_error.is_not(None))
        .order_by(notifications.c.transition_id.desc())
        .limit(1)
    )
