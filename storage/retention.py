"""Deletion of expired rows, in chunks short enough not to delay commits.

The age of a row counts from its storing, not from its event time: backfilled old events stay as long as new ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from config.settings import RetentionSettings
from config.time_format import DAY_US, SECOND_US
from config.units import to_us
from storage.control.settings import delete_replicas, delete_settings
from storage.control.used_links import delete_used_links
from storage.database.chunks import CHUNK_ROWS, delete_in_chunks
from storage.database.engine import Database
from storage.database.partitions import day_number, drop_score_partitions
from storage.database.tables import (
    FOREVER_US,
    commit_ranges,
    dead_letters,
    drift_cells,
    drift_verdicts,
    habitual_keys,
    incidents,
    key_states,
    models,
    outliers,
    positions,
    scores,
    shadow_windows,
    sources,
    streams,
    window_rollups,
    window_samples,
    windows,
)
from storage.resolved import delete_gaps, delete_incidents, delete_mutes, delete_notifications
from storage.superseded import (
    ThresholdCuts,
    delete_accepted_references,
    delete_calibrations,
    delete_drift_bases,
    delete_models,
    delete_refits,
    delete_thresholds,
)

_VACUUM_PAGES = 500
_SPARE_FRACTION = 0.1
_LONGEST_HABIT_US = 28 * DAY_US
_AUTO_VACUUM_INCREMENTAL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedRows:
    """Numbers of rows that one run deleted.

    On PostgreSQL scores are dropped by daily partition: `score_days` counts the days, and `scores` is 0.
    """

    scores: int
    score_days: int
    outliers: int
    dead_letters: int
    windows: int
    drift_verdicts: int = 0
    thresholds: int = 0
    calibrations: int = 0
    accepted_references: int = 0
    drift_bases: int = 0
    models: int = 0
    incidents: int = 0
    notifications: int = 0
    gaps: int = 0
    mutes: int = 0
    settings: int = 0
    replicas: int = 0
    samples: int = 0
    refits: int = 0
    rollups: int = 0
    drift_cells: int = 0


def delete_expired(
    db: Database, retention: RetentionSettings, now_us: int, stopped: Callable[[], bool] = lambda: False
) -> DeletedRows:
    """Delete expired rows in chunks. Safe to interrupt: completed chunks stay deleted.

    Windows and outliers since the start of an unresolved incident are never deleted. When `stopped` returns True, the
    rest is left to the next run, so that a backlog of deletions does not delay the shutdown of the process.
    """
    scores_cut_us = now_us - to_us(retention.scores)
    score_days, deleted_scores = 0, 0
    if db.dialect == "postgresql":
        score_days = len(drop_score_partitions(db, day_number(scores_cut_us)))
    else:
        deleted_scores = _delete_in_log_order(db, scores, scores_cut_us, stopped)
    deleted = DeletedRows(
        scores=deleted_scores,
        score_days=score_days,
        outliers=_delete_in_log_order(db, outliers, now_us - to_us(retention.outliers), stopped),
        dead_letters=_delete_dead_letters(db, now_us - to_us(retention.dead_letters), stopped),
        windows=_delete_windows(db, now_us - to_us(retention.windows), stopped),
        drift_verdicts=_delete_drift_verdicts(db, now_us - to_us(retention.windows), stopped),
    )
    deleted = replace(
        deleted,
        samples=_delete_samples(db, to_us(retention.samples), stopped),
        rollups=_delete_oldest(db, window_rollups, now_us - to_us(retention.rollups), stopped),
        drift_cells=_delete_oldest(db, drift_cells, now_us - to_us(retention.drift_cells), stopped),
    )
    _delete_habitual_keys(db, now_us - to_us(retention.outliers) - _LONGEST_HABIT_US, stopped)
    _delete_shadow_windows(db, stopped)
    delete_used_links(db, now_us, stopped)
    _delete_commit_ranges(db, scores_cut_us, stopped)
    _delete_key_states(db, scores_cut_us, stopped)
    deleted = replace(
        deleted,
        **_delete_superseded(db, retention, now_us, stopped),
        notifications=delete_notifications(db, now_us - to_us(retention.notifications), stopped),
        gaps=delete_gaps(db, now_us - to_us(retention.gaps), stopped),
        mutes=delete_mutes(db, now_us - to_us(retention.incidents), stopped),
    )
    deleted = replace(deleted, incidents=_delete_incidents(db, now_us - to_us(retention.incidents), stopped))
    if db.dialect == "sqlite":
        _shrink_file(db, stopped)
    return deleted


def _delete_superseded(
    db: Database, retention: RetentionSettings, now_us: int, stopped: Callable[[], bool]
) -> dict[str, int]:
    """Delete expired rows that newer ones supersede; return their numbers by table.

    Runs after the deletion of the scores, outliers and windows that refer to threshold rows.
    """
    cut_us = now_us - to_us(retention.thresholds)
    scores_cut_us = now_us - to_us(retention.scores)
    if db.dialect == "postgresql":
        scores_cut_us = scores_cut_us // DAY_US * DAY_US  # scores are deleted by whole days
    used_us = min(scores_cut_us, now_us - to_us(retention.outliers))
    deleted = dict.fromkeys(("thresholds", "calibrations", "refits", "models"), 0)
    with db.read() as connection:
        stream_ids = connection.scalars(sa.select(streams.c.id)).all()
        protected = {row.stream_id: row.since_us for row in connection.execute(_select_first_unresolved())}
    for stream_id in stream_ids:
        protected_us = protected.get(stream_id, FOREVER_US)
        cuts = ThresholdCuts(recorded_us=cut_us, used_us=used_us, protected_us=protected_us)
        deleted["thresholds"] += delete_thresholds(db, stream_id, cuts, stopped)
        deleted["calibrations"] += delete_calibrations(db, stream_id, cut_us, stopped)
        deleted["refits"] += delete_refits(db, stream_id, cut_us, stopped)
        deleted["models"] += delete_models(db, stream_id, retention.models, stopped)
    return {
        **deleted,
        "accepted_references": delete_accepted_references(db, cut_us, stopped),
        "drift_bases": delete_drift_bases(db),
        # A late event belongs to a window of the size of its time as long as such windows are kept.
        "settings": delete_settings(db, min(cut_us, now_us - to_us(retention.windows))),
        "replicas": delete_replicas(db, now_us - DAY_US),
    }


def _delete_incidents(db: Database, cut_us: int, stopped: Callable[[], bool]) -> int:
    with db.read() as connection:
        stream_ids = connection.scalars(sa.select(streams.c.id)).all()
    return sum(delete_incidents(db, stream_id, cut_us, stopped) for stream_id in stream_ids)


def _delete_in_log_order(db: Database, table: sa.Table, cut_us: int, stopped: Callable[[], bool]) -> int:
    """Delete from a table with primary key (source, offset) that was filled in the order of this key."""
    total = 0
    for source_id, protected_us in _find_protected_since(db).items():
        # Scores of an incident may be deleted: its outliers and windows document it.
        until_us = FOREVER_US if table is scores else protected_us
        last = -1
        while not stopped():
            chunk = (
                sa.select(table.c.source_offset, table.c.stored_at_us)
                .where(table.c.source_id == source_id, table.c.source_offset > last)
                .order_by(table.c.source_offset)
                .limit(CHUNK_ROWS)
                .subquery()
            )
            ends = sa.select(sa.func.max(chunk.c.source_offset), sa.func.min(chunk.c.stored_at_us))
            with db.write() as connection:
                end, oldest_us = connection.execute(ends).one()
                if end is None or oldest_us >= cut_us:
                    break
                total += connection.execute(
                    sa.delete(table).where(
                        table.c.source_id == source_id,
                        table.c.source_offset > last,
                        table.c.source_offset <= end,
                        table.c.stored_at_us < cut_us,
                        table.c.event_time_us < until_us,
                    )
                ).rowcount
            last = end
    return total


def _delete_commit_ranges(db: Database, scores_cut_us: int, stopped: Callable[[], bool]) -> None:
    """Delete the ranges of expired scores, oldest first."""
    if db.dialect == "postgresql":
        scores_cut_us = scores_cut_us // DAY_US * DAY_US  # scores are deleted by whole days
    table = commit_ranges.c
    with db.read() as connection:
        source_ids = connection.scalars(sa.select(sources.c.id)).all()
    for source_id in source_ids:
        of_source = table.source_id == source_id
        oldest = sa.select(table.first_offset, table.stored_at_us).where(of_source).order_by(table.first_offset)
        chunk = oldest.limit(CHUNK_ROWS).subquery()
        # The scores of a range are stored within a second of its first commit.
        expired = sa.select(chunk.c.first_offset).where(chunk.c.stored_at_us < scores_cut_us - SECOND_US)
        delete_in_chunks(db, sa.delete(commit_ranges).where(of_source, table.first_offset.in_(expired)), stopped)


def _delete_key_states(db: Database, scores_cut_us: int, stopped: Callable[[], bool]) -> None:
    """Delete the states of the keys of sources that are retired and have stored nothing for the retention of scores."""
    retired = sa.select(positions.c.source_id).where(~positions.c.active, positions.c.committed_at_us < scores_cut_us)
    with db.read() as connection:
        source_ids = connection.scalars(retired).all()
    for source_id in source_ids:
        of_source = key_states.c.source_id == source_id
        oldest = sa.select(key_states.c.end_offset).where(of_source).limit(CHUNK_ROWS)
        delete_in_chunks(db, sa.delete(key_states).where(of_source, key_states.c.end_offset.in_(oldest)), stopped)


def _find_protected_since(db: Database) -> dict[int, int]:
    """Map each source to the event time from which the unresolved incidents of its stream need its rows."""
    first = _select_first_unresolved().subquery()
    since_us = sa.func.coalesce(first.c.since_us, FOREVER_US).label("since_us")
    query = sa.select(sources.c.id, since_us).join_from(
        sources, first, first.c.stream_id == sources.c.stream_id, isouter=True
    )
    with db.read() as connection:
        return {row.id: row.since_us for row in connection.execute(query)}


def _select_first_unresolved() -> sa.Select[Any]:
    return (
        sa.select(incidents.c.stream_id, sa.func.min(incidents.c.window_start_us).label("since_us"))
        .where(incidents.c.status == "open")
        .group_by(incidents.c.stream_id)
    )


def _delete_dead_letters(db: Database, cut_us: int, stopped: Callable[[], bool]) -> int:
    with db.read() as connection:
        source_ids = connection.scalars(sa.select(sources.c.id)).all()
    total = 0
    for source_id in source_ids:
        oldest = (
            sa.select(dead_letters.c.id)
            .where(dead_letters.c.source_id == source_id, dead_letters.c.recorded_at_us < cut_us)
            .order_by(dead_letters.c.recorded_at_us)
            .limit(CHUNK_ROWS)
        )
        total += delete_in_chunks(db, sa.delete(dead_letters).where(dead_letters.c.id.in_(oldest)), stopped)
    return total


def _delete_windows(db: Database, cut_us: int, stopped: Callable[[], bool]) -> int:
    with db.read() as connection:
        stream_ids = connection.scalars(sa.select(streams.c.id)).all()
        protected = {row.stream_id: row.since_us for row in connection.execute(_select_first_unresolved())}
    total = 0
    for stream_id in stream_ids:
        oldest = (
            sa.select(windows.c.window_start_us)
            .where(
                windows.c.stream_id == stream_id,
                windows.c.judged_at_us < cut_us,
                windows.c.window_start_us < protected.get(stream_id, FOREVER_US),
            )
            .order_by(windows.c.judged_at_us)
            .limit(CHUNK_ROWS)
        )
        of_stream = windows.c.stream_id == stream_id
        total += delete_in_chunks(
            db, sa.delete(windows).where(of_stream, windows.c.window_start_us.in_(oldest)), stopped
        )
    return total + sum(_delete_windows_of_late_events(db, stream_id, stopped) for stream_id in stream_ids)


def _delete_samples(db: Database, kept_us: int, stopped: Callable[[], bool]) -> int:
    """Delete the samples of windows that end more than `kept_us` of event time before the last one of the stream.

    Event time bounds their number also while a stream reads a long log, and a fit at an event time finds the same
    samples in a replay.
    """
    table = window_samples.c
    with db.read() as connection:
        stream_ids = connection.scalars(sa.select(streams.c.id)).all()
    total = 0
    for stream_id in stream_ids:
        of_stream = table.stream_id == stream_id
        last = sa.select(sa.func.max(table.window_start_us)).where(of_stream).scalar_subquery()
        oldest = (
            sa.select(table.window_start_us)
            .where(of_stream, table.window_end_us < last - kept_us)
            .order_by(table.window_start_us)
            .limit(CHUNK_ROWS)
        )
        total += delete_in_chunks(
            db, sa.delete(window_samples).where(of_stream, table.window_start_us.in_(oldest)), stopped
        )
    return total


def _delete_oldest(db: Database, table: sa.Table, cut_us: int, stopped: Callable[[], bool]) -> int:
    """Delete expired rows of a table whose rows of one stream and length (the second key) were stored in order."""
    stream_id, length, place = table.primary_key.columns
    total = 0
    for values in _list_lengths(db, stream_id, length):
        of_length = (stream_id == values[0], length == values[1])
        oldest = sa.select(place, table.c.recorded_at_us).where(*of_length).order_by(place).limit(CHUNK_ROWS).subquery()
        expired = sa.select(oldest.c[place.name]).where(oldest.c.recorded_at_us < cut_us)
        total += delete_in_chunks(db, sa.delete(table).where(*of_length, place.in_(expired)), stopped)
    return total


def _list_lengths(db: Database, stream_id: sa.Column[Any], length: sa.Column[Any]) -> list[tuple[int, int]]:
    """Return the pairs of the first two key columns that occur, by one step along the key for each pair."""
    found: list[tuple[int, int]] = []
    after = (-1, -1)
    while True:
        later = sa.tuple_(stream_id, length) > sa.tuple_(*map(sa.literal, after))
        query = sa.select(stream_id, length).where(later).order_by(stream_id, length).limit(1)
        with db.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return found
        after = (row[0], row[1])
        found.append(after)


def _delete_habitual_keys(db: Database, cut_us: int, stopped: Callable[[], bool]) -> None:
    """Delete the habitual keys that were recorded before the outliers to which they apply, but none without an end."""
    table = habitual_keys.c
    ended = (table.recorded_at_us < cut_us, table.until_us < FOREVER_US)
    oldest = sa.select(table.recorded_at_us).where(*ended).order_by(table.recorded_at_us)
    chunk = table.recorded_at_us.in_(oldest.limit(CHUNK_ROWS))
    delete_in_chunks(db, sa.delete(habitual_keys).where(chunk, table.until_us < FOREVER_US), stopped)


def _delete_windows_of_late_events(db: Database, stream_id: int, stopped: Callable[[], bool]) -> int:
    """Delete windows with only late events before the oldest judged window; they have no judging time."""
    of_stream, judged_at_us = windows.c.stream_id == stream_id, windows.c.judged_at_us
    first_judged = sa.select(sa.func.min(windows.c.window_start_us)).where(of_stream, judged_at_us.is_not(None))
    oldest = (
        sa.select(windows.c.window_start_us)
        .where(of_stream, judged_at_us.is_(None), windows.c.window_start_us < first_judged.scalar_subquery())
        .order_by(windows.c.window_start_us)
        .limit(CHUNK_ROWS)
    )
    return delete_in_chunks(db, sa.delete(windows).where(of_stream, windows.c.window_start_us.in_(oldest)), stopped)


def _delete_shadow_windows(db: Database, stopped: Callable[[], bool]) -> None:
    """Delete shadow windows that start before the oldest remaining window."""
    with db.read() as connection:
        stored = connection.execute(sa.select(models.c.id, models.c.stream_id)).all()
    for model_id, stream_id in stored:
        of_model = shadow_windows.c.model_id == model_id
        first = sa.select(sa.func.min(windows.c.window_start_us)).where(windows.c.stream_id == stream_id)
        oldest = (
            sa.select(shadow_windows.c.window_start_us)
            .where(of_model, shadow_windows.c.window_start_us < first.scalar_subquery())
            .order_by(shadow_windows.c.window_start_us)
            .limit(CHUNK_ROWS)
        )
        delete = sa.delete(shadow_windows).where(of_model, shadow_windows.c.window_start_us.in_(oldest))
        delete_in_chunks(db, delete, stopped)


def _delete_drift_verdicts(db: Database, cut_us: int, stopped: Callable[[], bool]) -> int:
    """Delete drift verdicts in the order of their ids, which is the order of storing. Drift baselines remain."""
    total = 0
    while not stopped():
        first = (
            sa.select(drift_verdicts.c.id, drift_verdicts.c.recorded_at_us)
            .order_by(drift_verdicts.c.id)
            .limit(CHUNK_ROWS)
            .subquery()
        )
        with db.write() as connection:
            last, oldest_us = connection.execute(
                sa.select(sa.func.max(first.c.id), sa.func.min(first.c.recorded_at_us))
            ).one()
            if last is None or oldest_us >= cut_us:
                return total
            total += connection.execute(
                sa.delete(drift_verdicts).where(drift_verdicts.c.id <= last, drift_verdicts.c.recorded_at_us < cut_us)
            ).rowcount
    return total


def _shrink_file(db: Database, stopped: Callable[[], bool]) -> None:
    """Shrink the SQLite file, but leave a tenth of it free for new rows."""
    while not stopped():
        with db.read() as connection:
            free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            vacuum = connection.exec_driver_sql("PRAGMA auto_vacuum").scalar_one()
        surplus = free - int(_SPARE_FRACTION * (pages - free))
        # A file that was created without incremental auto_vacuum cannot shrink this way.
        if surplus <= 0 or vacuum != _AUTO_VACUUM_INCREMENTAL:
            return
        db.vacuum_pages(min(surplus, _VACUUM_PAGES))
