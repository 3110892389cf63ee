"""Facts of windows and their parts, as read inside a transaction of the control plane."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from storage.control.incidents import open_incidents
from storage.control.records import OffsetRange, StoredGap, StoredPart, WindowFacts
from storage.database.tables import gaps, sources, streams, window_parts, windows


def read_window_facts(conn: sa.Connection, stream_id: int, start_us: int) -> WindowFacts:
    """Return the facts of a window; its interval is empty if it has no parts."""
    of_window = (window_parts.c.stream_id == stream_id, window_parts.c.window_start_us == start_us)
    rows = conn.execute(sa.select(window_parts).where(*of_window).order_by(window_parts.c.id)).all()
    end_us = rows[0].window_end_us if rows else start_us
    judged = sa.select(windows.c.window_start_us).where(
        windows.c.stream_id == stream_id, windows.c.window_start_us == start_us
    )
    stream = conn.execute(
        sa.select(streams.c.judge_state, streams.c.settings_revision).where(streams.c.id == stream_id)
    ).one()
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
            )
            for row in rows
        ],
        last_judged_end_us=read_last_judged_end(conn, stream_id),
        open_incidents=open_incidents(conn, stream_id),
        gaps=read_unassigned_gaps(conn, stream_id, end_us),
        state=_decode_state(stream.judge_state),
        settings_revision=stream.settings_revision,
        offset_ranges=read_offset_ranges(conn, of_window),
        part_ids=[row.id for row in rows],
        is_judged=conn.execute(judged).first() is not None,
    )


def is_unjudged_part(stream_id: int) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the SQL conditions for the parts of a stream that are not judged yet, in open and in sealed windows.

    Left out are parts without events and without dead letters, which cannot change a judgement, and late counts of a
    judged window.
    """
    judged = sa.exists().where(
        windows.c.stream_id == window_parts.c.stream_id,
        windows.c.window_start_us == window_parts.c.window_start_us,
    )
    return (window_parts.c.stream_id == stream_id, window_parts.c.events + window_parts.c.dead > 0, ~judged)


def read_last_judged_end(conn: sa.Connection, stream_id: int) -> int | None:
    """Return the end of the last judged window of a stream; None before the first."""
    judged = windows.c.judged_at_us.is_not(None)
    query = (
        sa.select(windows.c.window_end_us)
        .where(windows.c.stream_id == stream_id, judged)
        .order_by(windows.c.window_start_us.desc())
        .limit(1)
    )
    return conn.execute(query).scalar_one_or_none()


def read_judge_state(conn: sa.Connection, stream_id: int) -> dict[str, Any]:
    """Return the judge state of a stream; empty before the first judgement."""
    return _decode_state(conn.execute(sa.select(streams.c.judge_state).where(streams.c.id == stream_id)).scalar_one())


def _decode_state(state: str | None) -> dict[str, Any]:
    return {} if state is None else dict(json.loads(state))


def read_offset_ranges(conn: sa.Connection, of_window: tuple[sa.ColumnElement[bool], ...]) -> list[OffsetRange]:
    """Return the offset ranges of the parts that fulfil the conditions, by topic and partition."""
    rows = conn.execute(
        sa.select(
            sources.c.id.label("source_id"),
            sources.c.topic,
            sources.c.partition,
            sa.func.min(window_parts.c.first_offset).label("first_offset"),
            sa.func.max(window_parts.c.last_offset).label("last_offset"),
        )
        .join(sources, sources.c.id == window_parts.c.source_id)
        .where(*of_window, window_parts.c.first_offset.is_not(None))
        .group_by(sources.c.id, sources.c.topic, sources.c.partition)
        .order_by(sources.c.topic, sources.c.partition, sources.c.id)
    )
    return [OffsetRange(**row) for row in rows.mappings()]


def read_unassigned_gaps(conn: sa.Connection, stream_id: int, before_us: int) -> list[StoredGap]:
    """Return the gaps before an event time that are not assigned to an incident, by event time."""
    rows = conn.execute(
        sa.select(gaps, sources.c.topic, sources.c.partition)
        .join(sources, sources.c.id == gaps.c.source_id)
        .where(
            sources.c.stream_id == stream_id,
            gaps.c.incident_id.is_(None),
            sa.or_(gaps.c.event_time_us.is_(None), gaps.c.event_time_us < before_us),
        )
        .order_by(gaps.c.event_time_us, sources.c.topic, sources.c.partition, gaps.c.from_offset)
    )
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


def judged_with_events(stream_id: int) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the SQL conditions for the judged windows of a stream with events."""
    return (windows.c.stream_id == stream_id, windows.c.judged_at_us.is_not(None), windows.c.events > 0)
