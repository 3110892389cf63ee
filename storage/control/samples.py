"""Samples of the events of judged windows: stored with the judgement, read for a fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from storage.control.records import WindowRow, WindowSample
from storage.database.engine import Database
from storage.database.tables import window_samples

_CHUNK = 1_000

MAX_SPREAD_WINDOWS = 300
"""Number of windows whose samples describe a time of any length: 300 events or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSample:
    """The sample of one judged window: `events` is the number of events that the encoded `payload` stands for."""

    window_start_us: int
    window_end_us: int
    model_id: int
    events: int
    payload: bytes


class SampleStore:
    """Reads the samples of judged windows."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def read_samples(self, stream_id: int, after_us: int, until_us: int) -> Iterator[StoredSample]:
        """Yield the samples of the windows that start at or after `after_us` and end at or before `until_us`, in order.

        The rows are read in chunks by key: a long read transaction would keep SQLite's write-ahead log from being
        truncated.
        """
        query = (
            sa.select(*(column for column in window_samples.c if column.name != "stream_id"))
            .where(
                window_samples.c.stream_id == stream_id,
                window_samples.c.window_start_us >= sa.bindparam("after_us", type_=sa.BigInteger),
                window_samples.c.window_end_us <= until_us,
            )
            .order_by(window_samples.c.window_start_us)
            .limit(_CHUNK)
        )
        while True:
            with self._db.read() as conn:
                rows = conn.execute(query, {"after_us": after_us}).mappings().all()
            for row in rows:
                yield StoredSample(**row)
            if len(rows) < _CHUNK:
                return
            after_us = rows[-1]["window_start_us"] + 1

    def last_end_us(self, stream_id: int) -> int | None:
        """Return the end of the last window with a sample; None without samples."""
        newest = (
            sa.select(window_samples.c.window_end_us)
            .where(window_samples.c.stream_id == stream_id)
            .order_by(window_samples.c.window_start_us.desc())
            .limit(1)
        )
        with self._db.read() as conn:
            return conn.execute(newest).scalar_one_or_none()


def read_spread_samples(
    conn: sa.Connection, stream_id: int, model_id: int, *, from_us: int, until_us: int
) -> list[StoredSample]:
    """Return the samples of the windows of a model that start in [from, until), at most `MAX_SPREAD_WINDOWS` of them.

    Of more windows every n-th is read, so that a long time costs as much as a short one.
    """
    table = window_samples.c
    starts = conn.execute(
        sa.select(table.window_start_us)
        .where(table.stream_id == stream_id, table.window_start_us >= from_us, table.window_start_us < until_us)
        .order_by(table.window_start_us)
    ).scalars()
    chosen = spread_evenly(list(starts))
    if not chosen:
        return []
    query = (
        sa.select(*(column for column in table if column.name != "stream_id"))
        .where(table.stream_id == stream_id, table.window_start_us.in_(chosen), table.model_id == model_id)
        .order_by(table.window_start_us)
    )
    return [StoredSample(**row) for row in conn.execute(query).mappings()]


def spread_evenly(starts_us: Sequence[int]) -> list[int]:
    """Return at most `MAX_SPREAD_WINDOWS` of the starts, evenly spread."""
    step = -(-len(starts_us) // MAX_SPREAD_WINDOWS)
    return list(starts_us[:: max(step, 1)])


def insert_sample(conn: sa.Connection, stream_id: int, window: WindowRow, sample: WindowSample) -> None:
    """Insert the sample of a judged window."""
    conn.execute(
        window_samples.insert().values(
            stream_id=stream_id,
            window_start_us=window.window_start_us,
            window_end_us=window.window_end_us,
            model_id=sample.model_id,
            events=window.events,
            payload=sample.payload,
        )
    )
