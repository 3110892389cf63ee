"""The outbox: pending notifications by channel, with their delivery attempts."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
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
        claimed = self.claim_group(channel, lease_us, wait_us=0, max_messages=1)
        return claimed[0] if claimed else None

    def claim_group(self, channel: str, lease_us: int, *, wait_us: int, max_messages: int) -> list[Message]:
        """Claim the oldest due notification and those that are sent together with it; return none if none is due.

        A new incident that is not critical, and to which nothing has happened since, is due `wait_us` after it was
        stored. The first one that is due takes all
        new incidents of the channel along. The group is stored, so that each attempt has the same messages.

        Args:
            channel: The channel.
            lease_us: Time for which the notifications are claimed.
            wait_us: Time for which new incidents wait for others.
            max_messages: Largest number of messages in a new group; 1: no groups.
        """
        due = self._select_due(channel, wait_us)
        with self._db.read() as conn:
            if conn.execute(due).first() is None:
                return []
        with self._db.write() as conn:
            locked = due.with_for_update(skip_locked=True, of=notifications)
            message_id = conn.execute(locked).scalar_one_or_none()
            if message_id is None:
                return []
            ids = self._find_group(conn, channel, message_id, max_messages)
            claim: dict[str, Any] = {"group_id": ids[0]} if len(ids) > 1 else {}
            conn.execute(
                notifications.update()
                .where(notifications.c.id.in_(ids))
                .values(
                    attempts=notifications.c.attempts + 1,
                    next_attempt_at_us=self._db.now_us(conn) + lease_us,
                    **claim,
                )
            )
            rows = conn.execute(select_messages().where(notifications.c.id.in_(ids)).order_by(transitions.c.id)).all()
            return [to_message(row) for row in rows]

    def _find_group(self, conn: sa.Connection, channel: str, first_id: str, max_messages: int) -> list[str]:
        """Return the ids of a due message and those to send with it, in the order of the transitions."""
        first = conn.execute(_select_newness().where(notifications.c.id == first_id)).one()
        is_of_channel = (notifications.c.channel == channel, notifications.c.state == "pending")
        others = _select_newness().where(*is_of_channel, notifications.c.id != first_id)
        if first.group_id is not None:
            members = others.where(notifications.c.group_id == first_id)
        elif first.is_new and max_messages > 1:
            members = (
                others.where(_is_new())
                .order_by(transitions.c.id)
                .limit(max_messages - 1)
                .with_for_update(skip_locked=True, of=notifications)
            )
        else:
            return [first_id]
        found = [first, *conn.execute(members)]
        return [row.id for row in sorted(found, key=lambda row: int(row.transition_id))]

    def _select_due(self, channel: str, wait_us: int) -> sa.Select[Any]:
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
        # The first message of a group is claimed, and takes the others along.
        first = notifications.alias()
        is_taken_along = sa.exists().where(
            first.c.id == notifications.c.group_id, first.c.id != notifications.c.id, first.c.state == "pending"
        )
        due = (
            sa.select(notifications.c.id)
            .where(
                notifications.c.state == "pending",
                notifications.c.channel == channel,
                sa.or_(notifications.c.next_attempt_at_us <= now_us, from_the_future),
                ~has_earlier_pending,
                ~is_taken_along,
            )
            .order_by(notifications.c.transition_id)
            .limit(1)
        )
        if not wait_us:
            return due
        stored_us, later = notifications.c.created_at_us, notifications.alias()
        has_later = sa.exists().where(
            later.c.incident_id == notifications.c.incident_id,
            later.c.channel == notifications.c.channel,
            later.c.transition_id > notifications.c.transition_id,
        )
        waits = sa.and_(
            _is_new(),
            ~has_later,
            sa.func.coalesce(transitions.c.severity, "critical") != "critical",
            stored_us > now_us - wait_us,
            stored_us <= now_us,
        )
        return due.join(transitions, transitions.c.id == notifications.c.transition_id).where(~waits)

    def mark_delivered(self, *messages: Message) -> None:
        """Record a delivery, even if another process has given up the notifications in the meantime."""
        with self._db.write() as conn:
            conn.execute(
                notifications.update()
                .where(notifications.c.id.in_([each.id for each in messages]), notifications.c.state != "delivered")
                .values(
                    state="delivered",
                    delivered_at_us=self._db.clock_expression(),
                    next_attempt_at_us=None,
                    last_error=None,
                    reason=None,
                )
            )

    def mark_failed(
        self,
        message: Message,
        error: str,
        decide: Callable[[int], int | None],
        *,
        reason: str = "unknown",
        others: Sequence[Message] = (),
    ) -> int | None:
        """Record a failed attempt; return the time until the next one in microseconds, or None when given up.

        Args:
            message: The message as claimed. Nothing is recorded if another attempt has started since.
            others: The messages that were sent together with it.
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
                    notifications.c.id.in_([each.id for each in (message, *others)]),
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


def _is_new() -> sa.ColumnElement[bool]:
    """Return whether a notification tells a new incident and was not attempted."""
    return sa.and_(
        transitions.c.transition == "opened", notifications.c.attempts == 0, notifications.c.group_id.is_(None)
    )


def _select_newness() -> sa.Select[Any]:
    return sa.select(
        notifications.c.id, notifications.c.group_id, transitions.c.id.label("transition_id"), _is_new().label("is_new")
    ).join(transitions, transitions.c.id == notifications.c.transition_id)


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
