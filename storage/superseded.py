"""Deletion of rows that newer rows of the same table supersede: thresholds, calibrations, references, bases, models.

A threshold row is deleted only when no kept window, part, score or outlier refers to it. Windows and parts are looked
up. Scores and outliers have no index on their threshold; `thresholds.used_at_us` bounds the time of storing of the
newest one instead. Two kinds of rows are never deleted: the row in force, and the first row of each activation of a
model, from which drift is measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from config.time_format import MINUTE_US
from storage.database.chunks import CHUNK_ROWS, delete_in_chunks
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import (
    accepted_references,
    calibrations,
    drift_bases,
    drift_cell_names,
    drift_cells,
    feature_summaries,
    models,
    refits,
    shadow_parts,
    shadow_windows,
    shadows,
    streams,
    thresholds,
    window_parts,
    window_samples,
    windows,
)

_USE_MARGIN_US = 5 * MINUTE_US
"""`used_at_us` is up to a minute old, and a commit may take the longest time of a statement after it was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdCuts:
    """Times on the database's clock, and an event time, that decide which threshold rows of a stream are expired.

    Attributes:
        recorded_us: Rows that were stored before this time are expired.
        used_us: Every score and outlier that was stored before this time is deleted.
        protected_us: Event time from which unresolved incidents keep the outliers of the stream.
    """

    recorded_us: int
    used_us: int
    protected_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    id: int
    model_id: int
    valid_from_us: int
    recorded_at_us: int
    used_at_us: int | None


def delete_thresholds(db: Database, stream_id: int, cuts: ThresholdCuts, stopped: Callable[[], bool]) -> int:
    """Delete the expired threshold rows of a stream that nothing refers to; return their number.

    The revision of the stream is increased in the transaction of each deletion, so that the workers read the schedule
    anew, and a commit that was scored under a deleted row is scored again.
    """
    with db.read() as connection:
        sealed_until_us = connection.scalar(sa.select(streams.c.sealed_until_us).where(streams.c.id == stream_id))
    if sealed_until_us is None:
        return 0
    total = 0
    kept: _Row | None = None
    after = (-1, -1)
    while not stopped():
        rows = _read_rows(db, stream_id, after)
        expired: list[int] = []
        for row, following in itertools.pairwise(rows):
            if _is_needed(row, following, kept, cuts, sealed_until_us):
                kept = row
            else:
                expired.append(row.id)
            after = (row.valid_from_us, row.id)
        if expired:
            total += _delete_unreferenced(db, stream_id, expired, cuts)
        # The rows are in the order of storing, almost: the chunks after one of young rows are young.
        if len(rows) <= CHUNK_ROWS or all(row.recorded_at_us >= cuts.recorded_us for row in rows):
            break
    return total


def _read_rows(db: Database, stream_id: int, after: tuple[int, int]) -> list[_Row]:
    """Return the next rows in the order of their validity, and one more, which supersedes the last of them."""
    columns = ("id", "model_id", "valid_from_us", "recorded_at_us", "used_at_us")
    valid_from_us, threshold_id = after
    later = sa.or_(
        thresholds.c.valid_from_us > valid_from_us,
        sa.and_(thresholds.c.valid_from_us == valid_from_us, thresholds.c.id > threshold_id),
    )
    query = (
        sa.select(*(thresholds.c[name] for name in columns))
        .where(thresholds.c.stream_id == stream_id, thresholds.c.valid_from_us >= valid_from_us, later)
        .order_by(thresholds.c.valid_from_us, thresholds.c.id)
        .limit(CHUNK_ROWS + 1)
    )
    with db.read() as connection:
        return [_Row(**row) for row in connection.execute(query).mappings()]


def _is_needed(row: _Row, following: _Row, kept: _Row | None, cuts: ThresholdCuts, sealed_until_us: int) -> bool:
    """Return whether a row is needed, apart from the windows and parts that refer to it.

    Args:
        row: The row.
        following: The next row in the order of validity.
        kept: The last kept row before it; None if the row is the first one.
        cuts: The times that decide.
        sealed_until_us: The seal of the stream: later windows need the row that is valid there.
    """
    begins_activation = kept is None or kept.model_id != row.model_id
    # The oldest activation may disappear as a whole. Any other would merge the activations beside it.
    is_last_of_oldest = kept is None and following.model_id != row.model_id
    return (
        row.recorded_at_us >= cuts.recorded_us
        or following.valid_from_us > min(sealed_until_us, cuts.protected_us)
        or (row.used_at_us is not None and row.used_at_us >= cuts.used_us - _USE_MARGIN_US)
        or (begins_activation and not is_last_of_oldest)
    )


def _delete_unreferenced(db: Database, stream_id: int, threshold_ids: Sequence[int], cuts: ThresholdCuts) -> int:
    in_parts = sa.select(window_parts.c.threshold_id).where(
        window_parts.c.stream_id == stream_id, window_parts.c.threshold_id.is_not(None)
    )
    used_us = cuts.used_us - _USE_MARGIN_US
    with db.write() as connection:
        lock_stream(connection, stream_id)
        deleted = connection.execute(
            sa.delete(thresholds).where(
                thresholds.c.id.in_(threshold_ids),
                sa.or_(thresholds.c.used_at_us.is_(None), thresholds.c.used_at_us < used_us),
                ~sa.exists().where(windows.c.threshold_id == thresholds.c.id),
                thresholds.c.id.not_in(in_parts),
            )
        ).rowcount
        if deleted:
            revision = streams.c.revision + 1
            connection.execute(sa.update(streams).where(streams.c.id == stream_id).values(revision=revision))
    return deleted


def delete_calibrations(db: Database, stream_id: int, cut_us: int, stopped: Callable[[], bool]) -> int:
    """Delete the calibration rows of a stream that were stored before a time, except for the newest; return the number.

    Rows of an older version have no time of storing; the event time of their tick is used instead.
    """
    of_stream = calibrations.c.stream_id == stream_id
    newest = sa.select(sa.func.max(calibrations.c.at_us)).where(of_stream).scalar_subquery()
    stored_us = sa.func.coalesce(calibrations.c.recorded_at_us, calibrations.c.at_us)
    oldest = (
        sa.select(calibrations.c.at_us)
        .where(of_stream, stored_us < cut_us, calibrations.c.at_us < newest)
        .order_by(calibrations.c.at_us)
        .limit(CHUNK_ROWS)
    )
    return delete_in_chunks(db, sa.delete(calibrations).where(of_stream, calibrations.c.at_us.in_(oldest)), stopped)


def delete_accepted_references(db: Database, cut_us: int, stopped: Callable[[], bool]) -> int:
    """Delete accepted reference energies that were stored before a time and replaced since; return their number."""
    newer = accepted_references.alias()
    replaced = sa.exists().where(
        newer.c.model_id == accepted_references.c.model_id, newer.c.id > accepted_references.c.id
    )
    expired = (
        sa.select(accepted_references.c.id)
        .where(accepted_references.c.recorded_at_us < cut_us, replaced)
        .order_by(accepted_references.c.id)
        .limit(CHUNK_ROWS)
    )
    delete = sa.delete(accepted_references).where(accepted_references.c.id.in_(expired))
    return delete_in_chunks(db, delete, stopped)


def delete_refits(db: Database, stream_id: int, cut_us: int, stopped: Callable[[], bool]) -> int:
    """Delete the refits of a stream that were stored before a time, except for the latest; return their number."""
    of_stream = refits.c.stream_id == stream_id
    latest = sa.select(sa.func.max(refits.c.due_us)).where(of_stream).scalar_subquery()
    oldest = (
        sa.select(refits.c.due_us)
        .where(of_stream, refits.c.recorded_at_us < cut_us, refits.c.due_us < latest)
        .order_by(refits.c.due_us)
        .limit(CHUNK_ROWS)
    )
    return delete_in_chunks(db, sa.delete(refits).where(of_stream, refits.c.due_us.in_(oldest)), stopped)


def delete_drift_bases(db: Database) -> int:
    """Delete bases that a later one of the horizon replaces and whose windows are all deleted; return their number."""
    later = drift_bases.alias()
    replaced = sa.exists().where(
        later.c.stream_id == drift_bases.c.stream_id,
        later.c.horizon_us == drift_bases.c.horizon_us,
        later.c.from_us > drift_bases.c.from_us,
    )
    first_window = (
        sa.select(sa.func.min(windows.c.window_start_us))
        .where(windows.c.stream_id == drift_bases.c.stream_id)
        .scalar_subquery()
    )
    with db.write() as connection:
        return connection.execute(
            sa.delete(drift_bases).where(replaced, drift_bases.c.until_us <= first_window)
        ).rowcount


def delete_models(db: Database, stream_id: int, keep: int, stopped: Callable[[], bool]) -> int:
    """Delete retired models and candidates of a stream, apart from the newest `keep` of each; return their number.

    Never deleted are the active model, a shadow model, and a model that a threshold row, a sample or a drift verdict
    refers to.
    """
    total = 0
    with db.read() as connection:
        surplus = [
            *connection.scalars(_select_surplus_models(stream_id, "retired", keep)),
            *connection.scalars(_select_surplus_models(stream_id, "candidate", keep)),
        ]
    for model_id in surplus:
        total += _delete_model(db, stream_id, model_id, stopped)
    return total


def _select_surplus_models(stream_id: int, state: str, keep: int) -> sa.Select[tuple[int]]:
    newest_first = (sa.func.coalesce(models.c.valid_from_us, 0).desc(), models.c.version.desc())
    kept = (
        sa.select(models.c.id)
        .where(models.c.stream_id == stream_id, models.c.state == state)
        .order_by(*newest_first)
        .limit(keep)
    )
    return (
        sa.select(models.c.id)
        .where(
            models.c.stream_id == stream_id,
            models.c.state == state,
            models.c.id.not_in(kept),
            ~sa.exists().where(thresholds.c.stream_id == stream_id, thresholds.c.model_id == models.c.id),
            ~sa.exists().where(window_samples.c.model_id == models.c.id),
            ~sa.exists().where(drift_cells.c.model_id == models.c.id),
        )
        .order_by(models.c.version)
    )


def _delete_model(db: Database, stream_id: int, model_id: int, stopped: Callable[[], bool]) -> int:
    """Delete a model and its rows as a shadow, unless it has come into use; return the number of deleted models."""
    first_windows = (
        sa.select(shadow_windows.c.window_start_us)
        .where(shadow_windows.c.model_id == model_id)
        .order_by(shadow_windows.c.window_start_us)
        .limit(CHUNK_ROWS)
    )
    while not stopped():
        with db.write() as connection:
            lock_stream(connection, stream_id)
            if not _is_out_of_use(connection, stream_id, model_id):
                return 0
            deleted = connection.execute(
                sa.delete(shadow_windows).where(
                    shadow_windows.c.model_id == model_id, shadow_windows.c.window_start_us.in_(first_windows)
                )
            ).rowcount
            if deleted == CHUNK_ROWS:
                continue
            connection.execute(sa.delete(shadows).where(shadows.c.model_id == model_id))
            connection.execute(sa.update(refits).where(refits.c.model_id == model_id).values(model_id=None))
            for table in (accepted_references, drift_cell_names, feature_summaries):
                connection.execute(sa.delete(table).where(table.c.model_id == model_id))
            return connection.execute(sa.delete(models).where(models.c.id == model_id)).rowcount
    return 0


def _is_out_of_use(connection: Connection, stream_id: int, model_id: int) -> bool:
    query = sa.select(models.c.id).where(
        models.c.id == model_id,
        models.c.state.in_(("retired", "candidate")),
        ~sa.exists().where(thresholds.c.stream_id == stream_id, thresholds.c.model_id == model_id),
        ~sa.exists().where(window_samples.c.model_id == model_id),
        ~sa.exists().where(drift_cells.c.model_id == model_id),
        ~sa.exists().where(shadows.c.model_id == model_id, ~shadows.c.ended),
        ~sa.exists().where(shadow_parts.c.stream_id == stream_id, shadow_parts.c.model_id == model_id),
    )
    return connection.execute(query).first() is not None
