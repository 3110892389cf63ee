"""Thresholds over time and marks of one stream, for the charts of its page. No table with a row per event is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.tables import incident_verbs, incidents, models, streams, thresholds, windows

MAX_MARKS = 200
"""Most marks of one kind in a chart; the newest are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdStep:
    """A row of the threshold schedule.

    Attributes:
        valid_from_us: First window start that it applies to.
        computed_at_us: Its tick.
        threshold: The energy above which an event is an outlier, in nats.
        lower: Lower end of its 90% interval; None in old rows.
        upper: Upper end.
        percentile: The percentile.
        n: Number of energies that it was computed from.
        method: The method of the estimate.
        model_version: The model.
        details: The stored numbers behind it.
    """

    valid_from_us: int
    computed_at_us: int
    threshold: float
    lower: float | None
    upper: float | None
    percentile: float
    n: int
    method: str
    model_version: int
    details: Mapping[str, Any]

    @property
    def held(self) -> str | None:
        """Return the reason for which the tick repeated the threshold before it; None for a computed one."""
        reason = self.details.get("limit", {}).get("held")
        return None if reason is None else str(reason)

    @property
    def is_contested(self) -> bool:
        """Return whether look-back and reference disagreed at the tick: the reference then guards the threshold."""
        return self.details.get("disagrees_since_us") is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamExtent:
    """The facts of a stream that its page begins with.

    Attributes:
        stream_id: Identifier of the stream.
        window_us: Length of a window.
        first_us: Start of the first stored window; None without one.
        last_us: End of the last judged window.
        last_tick_us: The last tick; None before the first.
        revision: A number that grows with each change of the calibration or the models.
    """

    stream_id: int
    window_us: int
    first_us: int | None
    last_us: int | None
    last_tick_us: int | None
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChange:
    """A model that became active at the window start `at_us`."""

    version: int
    kind: str
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictMark:
    """A verb that a person applied to an incident; `at_us` is the last tick before it, in event time."""

    incident_id: int
    verb: str
    who: str
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Beyond:
    """The incidents of a stream outside of a time: their numbers, and the nearest on each side in event time."""

    before: int
    after: int
    last_before_us: int | None
    first_after_us: int | None


def find_stream(conn: Connection, name: str) -> StreamExtent | None:
    """Return the extent of a stream; None if the database does not know it."""
    row = conn.execute(
        sa.select(
            streams.c.id,
            streams.c.window_size_us,
            streams.c.last_tick_us,
            (streams.c.revision + streams.c.acceptances).label("revision"),
        ).where(streams.c.name == name)
    ).first()
    if row is None:
        return None
    own = windows.c.stream_id == row.id
    # Each extreme is one step along the primary key.
    first_us = conn.scalar(sa.select(sa.func.min(windows.c.window_start_us)).where(own))
    last = sa.select(windows.c.window_end_us).where(own, windows.c.judged_at_us.is_not(None))
    last_us = conn.scalar(last.order_by(windows.c.window_start_us.desc()).limit(1))
    return StreamExtent(
        stream_id=row.id,
        window_us=row.window_size_us,
        first_us=first_us,
        last_us=last_us,
        last_tick_us=row.last_tick_us,
        revision=row.revision,
    )


def read_threshold_steps(
    conn: Connection, stream_id: int, *, from_us: int, until_us: int, spacing_us: int = 1
) -> list[ThresholdStep]:
    """Return the thresholds that are valid at some time in [from, until), in order; the first one may begin before.

    Args:
        conn: Connection to the database.
        stream_id: The stream.
        from_us: Event time.
        until_us: Event time.
        spacing_us: Of the rows that begin in one interval of this length, only the last one is returned.
    """
    table = thresholds.c
    own = table.stream_id == stream_id
    # Only the index is read up to here: the details of a row are a kilobyte.
    ranked = (
        sa.select(
            table.id,
            sa.func.row_number()
            .over(
                partition_by=table.valid_from_us // spacing_us, order_by=(table.valid_from_us.desc(), table.id.desc())
            )
            .label("place"),
        )
        .where(own, table.valid_from_us > from_us, table.valid_from_us < until_us)
        .subquery()
    )
    first = (
        sa.select(table.id)
        .where(own, table.valid_from_us <= from_us)
        .order_by(table.valid_from_us.desc(), table.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = (
        sa.select(
            table.valid_from_us,
            table.computed_at_us,
            table.threshold,
            table.lower,
            table.upper,
            table.percentile,
            table.n,
            table.method,
            models.c.version.label("model_version"),
            table.details,
        )
        .join(models, models.c.id == table.model_id)
        .where(sa.or_(table.id.in_(sa.select(ranked.c.id).where(ranked.c.place == 1)), table.id == first))
        .order_by(table.valid_from_us, table.id)
    )
    return [
        ThresholdStep(**{**row, "details": json.loads(row["details"] or "{}")})
        for row in conn.execute(query).mappings()
    ]


def read_model_changes(conn: Connection, stream_id: int, *, from_us: int, until_us: int) -> list[ModelChange]:
    """Return the models whose last activation is in [from, until), in order. The first model of a stream is none."""
    table = models.c
    query = (
        sa.select(table.version, table.kind, table.valid_from_us.label("at_us"))
        .where(
            table.stream_id == stream_id,
            table.valid_from_us > 0,
            table.valid_from_us >= from_us,
            table.valid_from_us < until_us,
        )
        .order_by(table.valid_from_us)
        .limit(MAX_MARKS)
    )
    return [ModelChange(**row) for row in conn.execute(query).mappings()]


def read_verdict_marks(conn: Connection, stream_id: int, *, from_us: int, until_us: int) -> list[VerdictMark]:
    """Return the verdicts whose last tick is in [from, until), by their time; at most the newest `MAX_MARKS`."""
    table = incident_verbs.c
    query = (
        sa.select(table.incident_id, table.verb, table.who, table.tick_us.label("at_us"))
        .where(
            table.stream_id == stream_id,
            table.verb.in_(("accept", "false_alarm", "confirm")),
            table.tick_us >= from_us,
            table.tick_us < until_us,
        )
        .order_by(table.at_us.desc(), table.id.desc())
        .limit(MAX_MARKS)
    )
    return [VerdictMark(**row) for row in conn.execute(query).mappings()][::-1]


def count_incidents_beyond(conn: Connection, stream_id: int, *, from_us: int, until_us: int) -> Beyond:
    """Return the incidents that had ended before a time or began after it: marks that a chart of it cannot show."""
    table = incidents.c
    own = table.stream_id == stream_id
    before = sa.select(sa.func.count(), sa.func.max(table.window_start_us)).where(own, table.resolved_at_us < from_us)
    after = sa.select(sa.func.count(), sa.func.min(table.window_start_us)).where(own, table.window_start_us >= until_us)
    n_before, last_before_us = conn.execute(before).one()
    n_after, first_after_us = conn.execute(after).one()
    return Beyond(before=n_before, after=n_after, last_before_us=last_before_us, first_after_us=first_after_us)


def read_latest_tick(conn: Connection) -> int | None:
    """Return the newest tick of all streams, in event time; None before the first."""
    latest: int | None = conn.scalar(sa.select(sa.func.max(streams.c.last_tick_us)))
    return latest
