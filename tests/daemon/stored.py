"""Rows stored by a daemon: counted while it runs, compared after it has finished."""

import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import sqlalchemy as sa

from config.errors import OutriderError
from storage.database.engine import Database

TableDump = dict[str, list[tuple[Any, ...]]]

# The columns leave out the values that differ between two runs over the same events: ids, times of the wall clock and
# states of delivery.
_SELECTS = {
    "scores": """SELECT topic, partition, incarnation, source_offset, event_time_us, energy, threshold,
        is_outlier, model_version, key, event_id FROM score_history ORDER BY 1, 2, 3, 4""",
    "outliers": """SELECT so.topic, so.partition, x.source_offset, x.event_time_us, x.energy, x.features, x.event_id
        FROM outliers x JOIN sources so ON so.id = x.source_id ORDER BY 1, 2, 3""",
    "models": "SELECT version, kind, state, feature_names FROM models ORDER BY 1",
    "windows": """SELECT w.window_start_us, w.window_end_us, t.computed_at_us, w.events, w.outliers, w.late, w.dead,
        w.expected, w.p_value, w.energy_p50, w.energy_p99, w.energy_max, w.payload, w.details,
        w.judged_at_us IS NOT NULL
        FROM windows w LEFT JOIN thresholds t ON t.id = w.threshold_id ORDER BY 1""",
    "thresholds": """SELECT computed_at_us, valid_from_us, percentile, threshold, lower, upper, n, method, details
        FROM thresholds ORDER BY 1, 2""",
    "calibrations": """SELECT at_us, promised_per_week, realised_per_week, windows_learned, dispersion, exceedance,
        state FROM calibrations ORDER BY 1""",
    "incidents": """SELECT kind, severity, status, window_start_us, opened_at_us, resolved_at_us, last_told_us,
        clean_windows, windows_fired, summary, details FROM incidents ORDER BY opened_at_us, kind""",
    "transitions": """SELECT i.kind, i.window_start_us, t.transition, t.window_start_us, t.at_us, t.summary, t.details
        FROM transitions t JOIN incidents i ON i.id = t.incident_id ORDER BY t.at_us, 1, 2, 3""",
    "notifications": "SELECT id, channel FROM notifications ORDER BY 1",
    "dead_letters": """SELECT topic, partition, source_offset, end_offset, count, reason, detail, payload
        FROM dead_letter_history ORDER BY 1, 2, 3""",
    "gaps": "SELECT topic, partition, from_offset, to_offset, reason FROM gap_history ORDER BY 1, 2, 3",
}
_JSON = {"features", "feature_names", "details"}


class StoredRows:
    """Reads the database of a running, frozen or finished daemon; the creator closes it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._db: Database | None = None

    def rows(self, select: str, **values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        self._db = self._db or Database(self.url, read_only=True)
        with self._db.read() as connection:
            return [tuple(row) for row in connection.execute(sa.text(select), values)]

    def number(self, select: str, **values: object) -> int:
        """Return one number; 0 for NULL, for a missing table and while the database does not answer."""
        try:
            return int(self.rows(select, **values)[0][0] or 0)
        except (OutriderError, sa.exc.DBAPIError):
            return 0

    def count(self, what: str) -> int:
        """Return the number of rows of a table or view."""
        return self.number(f"SELECT count(*) FROM {what}")

    def progress(self) -> int:
        """Return the number of committed offsets of all partitions, each of which starts at 0."""
        return self.number("SELECT sum(next_offset) FROM positions WHERE active")

    def is_settled(self, offsets: int) -> bool:
        """Return whether all offsets are committed and every window with parts is judged."""
        return self.progress() >= offsets and self.count("window_parts") == 0

    def dump(self) -> TableDump:
        """Return the rows that two runs over the same events must have in common."""
        self._db = self._db or Database(self.url, read_only=True)
        with self._db.read() as connection:
            return {name: _canonical(connection.execute(sa.text(select))) for name, select in _SELECTS.items()}

    def close(self) -> None:
        """Close the database connections."""
        if self._db is not None:
            self._db.close()
            self._db = None


def _canonical(result: sa.CursorResult[Any]) -> list[tuple[Any, ...]]:
    names = list(result.keys())
    return [tuple(_canonical_value(name, value) for name, value in zip(names, row, strict=True)) for row in result]


def _canonical_value(name: str, value: Any) -> object:
    if name == "energy":
        return float(np.float32(value))  # one database returns a float4 as its shortest decimal, the other widened
    if name in _JSON and isinstance(value, str):
        return json.dumps(json.loads(value), sort_keys=True)
    if name == "is_outlier" or name.startswith("judged_at"):
        return bool(value)
    return bytes(value) if isinstance(value, memoryview) else value


def differences(found: TableDump, reference: TableDump) -> dict[str, str]:
    """Describe each table that differs from the reference by its number of rows and its first different row."""
    texts = {}
    for name, rows in reference.items():
        if found[name] != rows:
            pairs = zip(found[name], rows, strict=False)
            first = next(((row, expected) for row, expected in pairs if row != expected), ((), ()))
            values = [f"{a!r} instead of {b!r}" for a, b in zip(*first, strict=True) if a != b]
            texts[name] = f"{len(found[name])} rows, in the reference {len(rows)}; in {first[0][:4]}: {values}"
    return texts


def duplicates_and_missing(dump: TableDump, expected: Mapping[int, int]) -> tuple[list[object], int]:
    """Return the (partition, offset) pairs that are stored twice, and the number of expected pairs that are missing.

    Args:
        dump: The stored rows.
        expected: The number of records by partition, from offset 0 on.
    """
    seen = [(row[1], row[3]) for row in dump["scores"]]
    seen += [(row[1], offset) for row in dump["dead_letters"] for offset in range(row[2], row[3])]
    unique = set(seen)
    expected_pairs = {(partition, offset) for partition, n in expected.items() for offset in range(n)}
    ordered = sorted(seen) if len(seen) != len(unique) else []
    repeated: list[object] = [a for a, b in itertools.pairwise(ordered) if a == b]
    return repeated, len(expected_pairs - unique)
