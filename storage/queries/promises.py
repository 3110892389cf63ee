"""The promise of all streams and what became of it, and the messages by state, for the overview."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.tables import calibrations, notifications, streams


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPromise:
    """The newest calibration row of a stream, with the event time that its counts cover.

    Attributes:
        stream: Name of the stream.
        promised_per_week: False alarms that are promised at most.
        true_alarms: Incidents with the verdict of a true alarm in the last 28 days.
        false_alarms: Those with the verdict of a false alarm.
        without_verdict: Those without a verdict.
        first_us: Time of its first calibration row.
        at_us: Time of this row.
    """

    stream: str
    promised_per_week: float | None
    true_alarms: int
    false_alarms: int
    without_verdict: int
    first_us: int
    at_us: int


def read_promises(conn: Connection) -> list[StreamPromise]:
    """Return the newest calibration row of each stream that has one."""
    # The first and the last time of each stream by the primary key; a GROUP BY would read all rows.
    of_stream = calibrations.c.stream_id == streams.c.id
    spans = sa.select(
        streams.c.id.label("stream_id"),
        streams.c.name,
        sa.select(sa.func.min(calibrations.c.at_us)).where(of_stream).scalar_subquery().label("first_us"),
        sa.select(sa.func.max(calibrations.c.at_us)).where(of_stream).scalar_subquery().label("last_us"),
    ).subquery()
    rows = conn.execute(
        sa.select(calibrations, spans.c.name, spans.c.first_us)
        .join(spans, (spans.c.stream_id == calibrations.c.stream_id) & (spans.c.last_us == calibrations.c.at_us))
        .order_by(spans.c.name)
    )
    return [
        StreamPromise(
            stream=row.name,
            promised_per_week=row.promised_per_week,
            true_alarms=row.true_alarms or 0,
            false_alarms=row.false_alarms or 0,
            without_verdict=row.without_verdict or 0,
            first_us=row.first_us,
            at_us=row.at_us,
        )
        for row in rows
    ]


def count_messages(conn: Connection, *, since_us: int) -> Mapping[str, int]:
    """Return the number of messages by state: those not delivered of all times, delivered ones since a time."""
    table = notifications.c
    rows = conn.execute(
        sa.select(table.state, sa.func.count())
        .where(sa.or_(table.state != "delivered", table.created_at_us >= since_us))
        .group_by(table.state)
    )
    return {state: int(count) for state, count in rows}
