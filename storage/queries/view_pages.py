"""Pages of a view by key, newest first: stable while rows are added, and bounded by an index."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.queries.history_views import ColumnKind, HistoryView

Key = Sequence[int | str]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """A page of a view.

    Attributes:
        view: The view; its key columns identify a row and never change.
        equals: Values of columns that the rows have.
        since_us: The first time, inclusive.
        until_us: The last time, exclusive.
        after: The key of the last row of the page before; None: the first page.
        limit: The most rows of the page.
    """

    view: HistoryView
    equals: Mapping[str, Any] = field(default_factory=dict)
    since_us: int | None = None
    until_us: int | None = None
    after: Key | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewPage:
    """The rows of a page, newest first, and the key of the last one if more rows follow."""

    rows: Sequence[Row]
    next_key: Key | None


def read_view_page(connection: Connection, request: PageRequest) -> ViewPage:
    """Return a page. Numbers that are not finite are None; JSON is parsed; times are as the view returns them."""
    view = request.view
    keys: list[sa.ColumnElement[Any]] = [sa.column(name) for name in view.key_columns]
    names = [*view.columns, *(name for name in view.key_columns if name not in view.columns)]
    columns: list[sa.ColumnElement[Any]] = [sa.column(name) for name in names]
    query: sa.Select[Any] = sa.select(*columns).select_from(sa.table(view.name)).where(*_bounds(request))
    if request.after is not None:
        query = query.where(sa.tuple_(*keys) < sa.tuple_(*(sa.literal(value) for value in request.after)))
    # One row more than asked for tells whether another page follows.
    query = query.order_by(*(key.desc() for key in keys)).limit(request.limit + 1)
    found = connection.execute(query).all()
    rows = [dict(zip(names, row, strict=True)) for row in found[: request.limit]]
    next_key = None
    if len(found) > request.limit:
        next_key = [rows[-1][name] for name in view.key_columns]
    return ViewPage(rows=[_to_values(view.columns, row) for row in rows], next_key=next_key)


def read_latest_us(connection: Connection, request: PageRequest) -> int | None:
    """Return the largest time of a view's rows with the values; None without rows."""
    time: sa.ColumnElement[int] = sa.column(request.view.time_column)
    query = sa.select(time).select_from(sa.table(request.view.name)).where(*_bounds(request))
    latest: int | None = connection.execute(query.order_by(time.desc()).limit(1)).scalar()
    return latest


def _bounds(request: PageRequest) -> list[sa.ColumnElement[bool]]:
    time: sa.ColumnElement[int] = sa.column(request.view.time_column)
    conditions: list[sa.ColumnElement[bool]] = [
        sa.column(name) == value for name, value in request.equals.items() if value is not None
    ]
    if request.since_us is not None:
        conditions.append(time >= request.since_us)
    if request.until_us is not None:
        conditions.append(time < request.until_us)
    return conditions


def _to_values(columns: Mapping[str, ColumnKind], row: Row) -> Row:
    return {name: _to_value(kind, row[name]) for name, kind in columns.items()}


def _to_value(kind: ColumnKind, value: Any) -> Any:
    if value is None:
        return None
    match kind:
        case "float" | "energy":
            return float(value) if math.isfinite(value) else None
        case "bool":
            return bool(value)
        case "json":
            # Python writes numbers that are not finite as words that are no JSON.
            return json.loads(value, parse_constant=lambda _word: None) if isinstance(value, str) else value
        case "bytes":
            return bytes(value)
        case _:
            return value
