"""Readers that page through a view by key; every chunk is one short transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from storage.database.engine import Database
from storage.database.partitions import list_partition_days
from storage.database.tables import outliers, scores, sources
from storage.queries.history_views import Columns, HistoryView, to_columns
from storage.queries.offset_spans import OffsetSpan, find_spans

_CHUNK_ROWS = 20_000
_PAGE_ROWS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReader:
    """Reads the scores or outliers of a stream with event times in [since_us, until_us)."""

    db: Database
    view: HistoryView
    stream_id: int
    since_us: int | None
    until_us: int | None

    def read_all(self) -> Iterator[Columns]:
        """Yield the rows by source and offset."""
        for source_id in self._source_ids():
            for rows in self._read_source(source_id, chunk_rows=_CHUNK_ROWS):
                yield to_columns(self.view, rows)

    def read_newest(self, limit: int) -> Iterator[Columns]:
        """Yield the `limit` latest rows by event time among the last `limit` of each source, oldest first."""
        candidates: list[Sequence[Any]] = []
        for source_id in self._source_ids():
            source_rows: list[Sequence[Any]] = []
            for rows in self._read_source(source_id, chunk_rows=max(1, min(limit, _CHUNK_ROWS)), backward=True):
                source_rows.extend(rows)
                if len(source_rows) >= limit:
                    break
            candidates.extend(source_rows[:limit])
        time_index = list(self.view.columns).index("event_time_us")
        order = np.argsort(np.array([row[time_index] for row in candidates], np.int64), kind="stable")
        if candidates and limit > 0:
            yield to_columns(self.view, [candidates[i] for i in order[-limit:]])

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

    def _source_ids(self) -> list[int]:
        query = (
            sa.select(sources.c.id)
            .where(sources.c.stream_id == self.stream_id)
            .order_by(sources.c.topic, sources.c.partition, sources.c.incarnation)
        )
        with self.db.read() as connection:
            return list(connection.scalars(query))

    def _partition_days(self) -> list[int | None]:
        """Return the daily partitions in the order of reading, or [None] if the table is not partitioned."""
        if self.db.dialect == "sqlite" or self.view.name != "score_history":
            return [None]
        with self.db.read() as connection:
            return [*sorted(list_partition_days(connection))]

    def _read_span(
        self, source_id: int, day: int | None, span: OffsetSpan, *, chunk_rows: int, backward: bool
    ) -> Iterator[Sequence[Sequence[Any]]]:
        """Yield the rows of a span within the bounds, `chunk_rows` stored rows at a time."""
        table = scores if self.view.name == "score_history" else outliers
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
                rows = connection.execute(self._select_rows(source_id, day, low, high, backward=backward)).all()
            if rows:
                yield rows
            if backward:
                last = low - 1
            else:
                first = high + 1

    def _select_rows(self, source_id: int, day: int | None, low: int, high: int, *, backward: bool) -> sa.Select[Any]:
        key_names = ["source_id", *([] if day is None else ["stored_day"])]
        view = sa.table(self.view.name, *map(sa.column, [*self.view.columns, *key_names]))
        query = sa.select(*(view.c[name] for name in self.view.columns)).where(
            view.c.source_id == source_id, view.c.source_offset >= low, view.c.source_offset <= high
        )
        if day is not None:
            query = query.where(view.c.stored_day == day)
        if self.since_us is not None:
            query = query.where(view.c.event_time_us >= self.since_us)
        if self.until_us is not None:
            query = query.where(view.c.event_time_us < self.until_us)
        return query.order_by(view.c.source_offset.desc() if backward else view.c.source_offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewReader:
    """Reads the rows of one view, of one stream or all, with times in [since_us, until_us)."""

    db: Database
    view: HistoryView
    stream: str | None
    since_us: int | None
    until_us: int | None

    def latest_us(self) -> int | None:
        """Return the largest value of the time column; None without rows."""
        with self.db.read() as connection:
            latest: int | None = connection.scalar(self._select(sa.func.max(_column(self.view.time_column))))
        return latest

    def read_all(self) -> Iterator[Columns]:
        """Yield the rows in the order of the key columns."""
        names = self._column_names()
        query = self._select(*map(_column, names)).order_by(*map(_column, self.view.key_columns)).limit(_PAGE_ROWS)
        page = query
        while True:
            with self.db.read() as connection:
                rows = connection.execute(page).all()
            if rows:
                yield to_columns(self.view, rows)
            if len(rows) < _PAGE_ROWS:
                return
            last_key = [sa.literal(rows[-1][names.index(name)]) for name in self.view.key_columns]
            page = query.where(sa.tuple_(*map(_column, self.view.key_columns)) > sa.tuple_(*last_key))

    def read_newest(self, limit: int) -> Iterator[Columns]:
        """Yield the last `limit` rows in the order of the key columns."""
        descending = [_column(name).desc() for name in self.view.key_columns]
        query = self._select(*map(_column, self._column_names())).order_by(*descending).limit(limit)
        with self.db.read() as connection:
            rows = connection.execute(query).all()
        if rows:
            yield to_columns(self.view, rows[::-1])

    def _column_names(self) -> list[str]:
        return [
            *self.view.columns,
            *(name for name in self.view.key_columns if name not in self.view.columns),
        ]

    def _select(self, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
        query = sa.select(*columns).select_from(sa.table(self.view.name))
        time = _column(self.view.time_column)
        if self.stream is not None:
            query = query.where(_column("stream") == self.stream)
        if self.since_us is not None:
            query = query.where(time >= self.since_us)
        if self.until_us is not None:
            query = query.where(time < self.until_us)
        return query


def _column(name: str) -> sa.ColumnClause[Any]:
    return sa.column(name)
