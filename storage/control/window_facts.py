"""Facts of windows and their parts, as read inside a transaction of the control plane."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from storage.control.incidents import open_incidents
from storage.control.records import OffsetRange, StoredGap, StoredPart, WindowFacts
from storage.database.tables import gaps, sources, streams, window_parts, windows

# The statements are built once: building one takes as long as running it, and the control plane runs them per window.
STREAM_ID = sa.bindparam("stream_id", type_=sa.Integer)
_START_US = sa.bindparam("start_us", type_=sa.BigInteger)

LAST_JUDGED_END = (
    sa.select(windows.c.window_end_us)
    .where(windows.c.stream_id == STREAM_ID, windows.c.judged_at_us.is_not(None))
    .order_by(windows.c.window_start_us.desc())
    .limit(1)
)
_JUDGE_STATE = sa.select(streams.c.judge_state).where(streams.c.id == STREAM_ID)
_OF_WINDOW = (window_parts.c.stream_id == STREAM_ID, window_parts.c.window_start_us == _START_US)
_PARTS_OF_WINDOW = sa.select(window_parts).where(*_OF_WINDOW).order_by(window_parts.c.id)
_STREAM_OF_WINDOW = sa.select(
    streams.c.judge_state,
    streams.c.settings_revision,
    LAST_JUDGED_END.scalar_subquery().label("last_judged_end_us"),
    sa.exists().where(windows.c.stream_id == STREAM_ID, windows.c.window_start_us == _START_US).label("is_judged"),
).where(streams.c.id == STREAM_ID)
_RANGES_OF_WINDOW = (
    sa.select(
        sources.c.id.label("source_id"),
        sources.c.topic,
        sources.c.partition,
        sa.func.min(window_parts.c.first_offset).label("first_offset"),
        sa.func.max(window_parts.c.last_offset).label("last_offset"),
    )
    .join(sources, sources.c.id == window_parts.c.source_id)
    .where(*_OF_WINDOW, window_parts.c.first_offset.is_not(None))
    .group_by(sources.c.id, sources.c.topic, sources.c.partition)
    .order_by(sources.c.topic, sources.c.partition, sources.c.id)
)
_UNASSIGNED_GAPS = (
    sa.select(gaps, sources.c.topic, sources.c.partition)
    .join(sources, sources.c.id == gaps.c.source_id)
    .where(
        sources.c.stream_id == STREAM_ID,
        gaps.c.incident_id.is_(None),
        sa.or_(gaps.c.event_time_us.is_(None), gaps.c.event_time_us < sa.bindparam("before_us", type_=sa.BigInteger)),
    )
    .order_by(gaps.c.event_time_us, sources.c.topic, sources.c.partition, gaps.c.from_offset)
)


def read_window_facts(conn: sa.Connection, stream_id: int, start_us: int) -> WindowFacts:
    """Return the facts of a window; its interval is empty if it has no parts."""
    of_window = {"stream_id": stream_id, "start_us": start_us}
    rows = conn.execute(_PARTS_OF_WINDOW, of_window).all()
    end_us = rows[0].window_end_us if rows else start_us
    stream = conn.execute(_STREAM_OF_WINDOW, of_window).one()
    return WindowFacts(
        window_start_us=start_us,
        window_end_us=end_us,
        parts=[
            StoredPart(
                threshold_id=row.threshold_id,
                events=row.events,
                outliers=row.outliers,
                late=row.late,
                dead=row.dead,
                payload=row.payload,
                filtered=row.filtered,
                late_sum_s=row.late_sum_s,
                late_max_s=row.late_max_s,
                sample=row.sample,
            )
            for row in rows
        ],
        last_judged_end_us=stream.last_judged_end_us,
        open_incidents=open_incidents(conn, stream_id),
        gaps=read_unassigned_gaps(conn, stream_id, end_us),
        state=_decode_state(stream.judge_state),
        settings_revision=stream.settings_revision,
        offset_ranges=[OffsetRange(**row) for row in conn.execute(_RANGES_OF_WINDOW, of_window).mappings()],
        part_ids=[row.id for row in rows],
        is_judged=stream.is_judged,
    )


def is_unjudged_part(stream_id: int | sa.BindParameter[int]) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the SQL conditions for the parts of a stream that are not judged yet, in open and in sealed windows.

    Left out are parts without events and without dead letters, which cannot change a judgement, and late counts of a
    judged window.
    """
    return (*is_waiting_part(stream_id), window_parts.c.events + window_parts.c.dead > 0)


def is_waiting_part(stream_id: int | sa.BindParameter[int]) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the SQL conditions for the parts of a stream whose window has no row yet, whatever they count."""
    judged = sa.exists().where(
        windows.c.stream_id == window_parts.c.stream_id,
        windows.c.window_start_us == window_parts.c.window_start_us,
    )
    return (window_parts.c.stream_id == stream_id, ~judged)


FIRST_UNJUDGED_END = sa.select(sa.func.min(window_parts.c.window_end_us)).where(*is_unjudged_part(STREAM_ID))
"""The end of the first window with parts to judge of the stream `:stream_id`."""


def read_last_judged_end(conn: sa.Connection, stream_id: int) -> int | None:
    """Return the end of the last judged window of a stream; None before the first."""
    return conn.execute(LAST_JUDGED_END, {"stream_id": stream_id}).scalar_one_or_none()


def read_judge_state(conn: sa.Connection, stream_id: int) -> dict[str, Any]:
    """Return the judge state of a stream; empty before the first judgement."""
    return _decode_state(conn.execute(_JUDGE_STATE, {"stream_id": stream_id}).scalar_one())


def _decode_state(state: str | None) -> dict[str, Any]:
    return {} if state is None else dict(json.loads(state))


def read_unassigned_gaps(conn: sa.Connection, stream_id: int, before_us: int) -> list[StoredGap]:
    """Return the gaps before an event time that are not assigned to an incident, by event time."""
    rows = conn.execute(_UNASSIGNED_GAPS, {"stream_id": stream_id, "before_us": before_us})
    return [
        StoredGap(
            id=row.id,
            topic=row.topic,
            partition=row.partition,
            from_offset=row.from_offset,
            to_offset=row.to_offset,
            reason=row.reason,
        )
        for row in rows
    ]


def judged_with_events(stream_id: int | sa.BindParameter[int]) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the SQL conditions for the judged windows of a stream with events."""
    return (windows.c.stream_id == stream_id, windows.c.judged_at_us.is_not(None), windows.c.events > 0)
