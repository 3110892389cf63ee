"""Reader of the scores and outliers of a stream, by source and offset; every chunk is one short transaction.

The rows come from the tables, not from the views: the columns that are the same for a source, the times and the
thresholds are added to whole columns here, which costs a fifth of computing them for each row in SQL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa

from storage.database.engine import Database
from storage.database.partitions import list_partition_days
from storage.database.tables import models, outliers, scores, sources, streams, thresholds
from storage.queries.history_views import OUTLIERS, Columns, HistoryView, to_array
from storage.queries.offset_spans import OffsetSpan, find_spans

_CHUNK_ROWS = 20_000
_STORED_COLUMNS = ("source_offset", "event_time_us", "stored_at_us", "key", "event_id", "energy", "threshold_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    id: int
    stream: str
    topic: str
    partition: int
    incarnation: int


@dataclass(slots=True, kw_only=True)
class ScoreReader:
    """Reads the scores or outliers of a stream with event times in [since_us, until_us)."""

    db: Database
    view: HistoryView
    stream_id: int
    since_us: int | None
    until_us: int | None
    _thresholds: dict[int, tuple[float, int]] = field(default_factory=dict)

    def read_all(self) -> Iterator[Columns]:
        """Yield the rows by source and offset."""
        for source in self._read_sources():
            for rows in self._read_source(source.id, chunk_rows=_CHUNK_ROWS):
                yield self._build_columns(source, rows)

    def read_newest(self, limit: int) -> Iterator[Columns]:
        """Yield the `limit` latest rows by event time among the last `limit` of each source, oldest first."""
        if limit <= 0:
            return
        pieces = []
        for source in self._read_sources():
            rows: list[Sequence[Any]] = []
            for chunk in self._read_source(source.id, chunk_rows=min(limit, _CHUNK_ROWS), backward=True):
                rows.extend(chunk)
                if len(rows) >= limit:
                    break
            if rows:
                pieces.append(self._build_columns(source, rows[:limit]))
        if pieces:
            order = np.argsort(np.concatenate([piece["event_time_us"] for piece in pieces]), kind="stable")[-limit:]
            yield {name: _select_rows([piece[name] for piece in pieces], order) for name in pieces[0]}

    def _read_sources(self) -> list[_Source]:
        query = (
            sa.select(sources.c.id, streams.c.name, sources.c.topic, sources.c.partition, sources.c.incarnation)
            .join(streams, streams.c.id == sources.c.stream_id)
            .where(sources.c.stream_id == self.stream_id)
            .order_by(sources.c.topic, sources.c.partition, sources.c.incarnation)
        )
        with self.db.read() as connection:
            return [
                _Source(id=source_id, stream=stream, topic=topic, partition=partition, incarnation=incarnation)
                for source_id, stream, topic, partition, incarnation in connection.execute(query)
            ]

    def _read_source(
        self, source_id: int, *, chunk_rows: int, backward: bool = False
    ) -> Iterator[Sequence[Sequence[Any]]]:
        """Yield the rows of one source within the bounds, in chunks, by offset or backward."""
        with self.db.read() as connection:
            spans = find_spans(connection, source_id, self.since_us, self.until_us, max_offsets=_CHUNK_ROWS)
        direction = -1 if backward else 1
        for day in self._partition_days()[::direction]:
            for span in spans[::direction]:
                if span.may_be_stored_on(day):
                    yield from self._read_span(source_id, day, span, chunk_rows=chunk_rows, backward=backward)

    def _partition_days(self) -> list[int | None]:
        """Return the daily partitions in the order of reading, or [None] if the table is not partitioned."""
        if self.db.dialect == "sqlite" or self.view is OUTLIERS:
            return [None]
        with self.db.read() as connection:
            return [*sorted(list_partition_days(connection))]

    def _read_span(
        self, source_id: int, day: int | None, span: OffsetSpan, *, chunk_rows: int, backward: bool
    ) -> Iterator[Sequence[Sequence[Any]]]:
        """Yield the rows of a span within the bounds, `chunk_rows` stored rows at a time."""
        table = outliers if self.view is OUTLIERS else scores
        offset = table.c.source_offset
        in_partition = [table.c.source_id == source_id]
        if day is not None:
            in_partition.append(sa.column("stored_day", sa.Integer) == day)
        first, last = span.first, span.last
        while last is None or first <= last:
            in_span = [offset >= first] if last is None else [offset >= first, offset <= last]
            chunk = (
                sa.select(offset)
                .where(*in_partition, *in_span)
                .order_by(offset.desc() if backward else offset)
                .limit(chunk_rows)
                .subquery()
            )
            with self.db.read() as connection:
                low, high = connection.execute(
                    sa.select(sa.func.min(chunk.c.source_offset), sa.func.max(chunk.c.source_offset))
                ).one()
                if low is None:
                    return
                in_chunk = [*in_partition, offset >= low, offset <= high, *self._within_bounds(table)]
                columns = [table.c[name] for name in self._stored_columns()]
                query = sa.select(*columns).where(*in_chunk).order_by(offset.desc() if backward else offset)
                rows = connection.execute(query).all()
            if rows:
                yield rows
            if backward:
                last = low - 1
            else:
                first = high + 1

    def _stored_columns(self) -> tuple[str, ...]:
        return (*_STORED_COLUMNS, "features") if self.view is OUTLIERS else _STORED_COLUMNS

    def _within_bounds(self, table: sa.Table) -> list[sa.ColumnElement[bool]]:
        bounds = []
        if self.since_us is not None:
            bounds.append(table.c.event_time_us >= self.since_us)
        if self.until_us is not None:
            bounds.append(table.c.event_time_us < self.until_us)
        return bounds

    def _build_columns(self, source: _Source, rows: Sequence[Sequence[Any]]) -> Columns:
        """Return the columns of the view for rows of the table of one source, at least one."""
        n = len(rows)
        stored = dict(zip(self._stored_columns(), zip(*rows, strict=True), strict=True))
        times_us, stored_at_us = (np.array(stored[name], np.int64) for name in ("event_time_us", "stored_at_us"))
        energies = np.array(stored["energy"], np.float32)
        limits, versions = self._look_up_thresholds(np.array(stored["threshold_id"], np.int64))
        columns: Columns = {
            "stream": [source.stream] * n,
            "topic": [source.topic] * n,
            "partition": np.full(n, source.partition),
            "source_offset": np.array(stored["source_offset"], np.int64),
            "incarnation": np.full(n, source.incarnation),
            "event_time": times_us.astype("datetime64[us]"),
            "event_time_us": times_us,
            "stored_at": stored_at_us.astype("datetime64[us]"),
            "key": list(stored["key"]),
            "event_id": list(stored["event_id"]),
            "energy": energies,
            "threshold": limits,
            "is_outlier": energies > limits,
            "model_version": versions,
        }
        if self.view is OUTLIERS:
            columns["features"] = to_array("json", stored["features"])
        return columns

    def _look_up_thresholds(self, ids: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[Any, Any]:
        """Return the threshold, float64, and the model version, int64, of each id."""
        distinct, places = np.unique(ids, return_inverse=True)
        missing = [each for each in distinct.tolist() if each not in self._thresholds]
        if missing:
            query = (
                sa.select(thresholds.c.id, thresholds.c.threshold, models.c.version)
                .join(models, models.c.id == thresholds.c.model_id)
                .where(thresholds.c.id.in_(missing))
            )
            with self.db.read() as connection:
                self._thresholds |= {each: (limit, version) for each, limit, version in connection.execute(query)}
        found = [self._thresholds[each] for each in distinct.tolist()]
        limits = np.array([limit for limit, _ in found], np.float64)
        versions = np.array([version for _, version in found], np.int64)
        return limits[places], versions[places]


def _select_rows(pieces: Sequence[Any], order: np.ndarray[Any, np.dtype[np.intp]]) -> Any:
    """Return the rows `order` of the concatenated pieces, all arrays or all lists."""
    if isinstance(pieces[0], np.ndarray):
        return np.concatenate(pieces)[order]
    joined = [value for piece in pieces for value in piece]
    return [joined[i] for i in order]
