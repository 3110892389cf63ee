"""A canonical text of every SQL view: one line per row, equal for SQLite and PostgreSQL."""

import datetime as dt
import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psycopg

VIEWS = {
    "score_history": "partition, source_offset",
    "outlier_history": "partition, source_offset",
    "window_history": "window_start_us",
    "threshold_history": "computed_at_us, valid_from_us",
    "incident_history": "opened_at_us, kind",
    "notification_history": "id",
    "dead_letter_history": "partition, source_offset, id",
    "drift_history": "window_end_us, horizon, statistic, feature, id",
    "calibration_history": "at_us",
    "gap_history": "partition, from_offset",
}
"""Each view with the order of its rows."""

_WALL_CLOCK = ("stored_at", "stored_day", "recorded_at", "created_at", "delivered_at", "judged_at", "next_attempt_at")
_DELIVERY = ("state", "attempts", "last_error")
_BOOLEANS = ("is_outlier", "drifted", "habitual")


def dump_views(url: str) -> Iterator[str]:
    """Yield the rows of all views as text, without the columns that depend on the wall clock."""
    for view, order in VIEWS.items():
        names, rows = _select(url, f"SELECT * FROM {view} ORDER BY {_null_first(url, order)}")
        kept = [i for i, name in enumerate(names) if _is_kept(view, name)]
        yield f"# {view}: {', '.join(names[i] for i in kept)}"
        for row in rows:
            yield f"{view} " + json.dumps([_canonical(names[i], row[i]) for i in kept])


def _select(url: str, statement: str) -> tuple[list[str], Sequence[tuple[Any, ...]]]:
    if url.startswith("sqlite:///"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        try:
            cursor = connection.execute(statement)
            return [column[0] for column in cursor.description], cursor.fetchall()
        finally:
            connection.close()
    with psycopg.connect(url) as server:
        result = server.execute(statement)  # type: ignore[call-overload]
        return [column.name for column in result.description or ()], result.fetchall()


def _null_first(url: str, order: str) -> str:
    """Order as SQLite does: NULL first, text by its bytes."""
    if url.startswith("sqlite"):
        return order
    text = ("kind", "horizon", "statistic", "feature")
    parts = [f'{name} COLLATE "C"' if name in text else name for name in order.split(", ")]
    return ", ".join(f"{part} NULLS FIRST" for part in parts)


def _is_kept(view: str, name: str) -> bool:
    if view == "notification_history" and name in _DELIVERY:
        return False
    return not name.startswith(_WALL_CLOCK)


def _canonical(name: str, value: object) -> object:
    if name == "energy":
        return repr(np.float32(value))  # type: ignore[arg-type]
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if name in _BOOLEANS:
        return bool(value)
    if name in ("details", "features", "contributions") and isinstance(value, str):
        value = json.loads(value)
    return json.loads(json.dumps(value, sort_keys=True))
