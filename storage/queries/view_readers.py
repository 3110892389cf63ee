"""Reader that pages through a view by key; every page is one short transaction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from storage.database.engine import Database
from storage.queries.history_views import Columns, HistoryView, to_columns

_PAGE_ROWS = 5_000


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
