"""Evidence for a window that fired: its outliers with the largest energies and its keys with the most outliers.

Rows are read through the primary key, by the window's offset ranges. A range ends at the last event of the window that
is not late. Late events have larger offsets, so the same rows are found at any time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.control.records import OffsetRange
from storage.database.engine import Database
from storage.database.tables import outliers, scores

MAX_OUTLIERS = 10
MAX_EVENTS_FOR_KEYS = 300_000
"""If the offset ranges hold more events than this, keys are not counted; counting this many takes half a second."""
MAX_COUNTED_KEYS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """One outlier of the window."""

    topic: str
    partition: int
    source_offset: int
    event_time_us: int
    energy: float
    key: str | None
    event_id: str | None
    features: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCount:
    """Events and outliers of one key in the window."""

    key: str
    events: int
    outliers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Outliers by descending energy, the keys with the most outliers, and the number of distinct keys."""

    top_outliers: Sequence[Outlier]
    keys: Sequence[KeyCount]
    distinct_keys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowKeys:
    """The keys of a window: those with the most outliers, and the tracked ones.

    Attributes:
        counts: Events and outliers by key.
        largest: The largest energy of the outliers by key; only keys with outliers.
        largest_of_others: The largest energy of the outliers without a key, and of all other keys. None without any.
    """

    counts: Mapping[str, tuple[int, int]]
    largest: Mapping[str, float] = field(default_factory=dict)
    largest_of_others: float | None = None


class EvidenceStore:
    """Looks up the evidence of windows."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find_evidence(self, ranges: Sequence[OffsetRange], start_us: int, end_us: int) -> Evidence:
        """Return the evidence of the window [start_us, end_us)."""
        with self._db.read() as conn:
            ranked = [(each, row) for each in ranges for row in _read_top_outliers(conn, each, start_us, end_us)]
            ranked.sort(key=lambda pair: (-pair[1].energy, pair[0].topic, pair[0].partition, pair[1].source_offset))
            keys, distinct = _count_keys(conn, ranges, start_us, end_us)
        return Evidence(
            top_outliers=[
                Outlier(
                    topic=each.topic,
                    partition=each.partition,
                    source_offset=row.source_offset,
                    event_time_us=row.event_time_us,
                    # PostgreSQL returns the shortest decimal that rounds to the float32, SQLite the float32 itself.
                    energy=float(np.float32(row.energy)),
                    key=row.key,
                    event_id=row.event_id,
                    features=json.loads(row.features),
                )
                for each, row in ranked[:MAX_OUTLIERS]
            ],
            keys=keys,
            distinct_keys=distinct,
        )

    def count_keys(
        self, ranges: Sequence[OffsetRange], start_us: int, end_us: int, tracked: Sequence[str]
    ) -> WindowKeys:
        """Return the keys of the window [start_us, end_us) with events, outliers and largest energies.

        These are the keys with the most outliers and the `tracked` ones, as far as they occur. Empty if the offset
        ranges hold more than `MAX_EVENTS_FOR_KEYS` events.
        """
        if sum(each.last_offset - each.first_offset + 1 for each in ranges) > MAX_EVENTS_FOR_KEYS:
            return WindowKeys(counts={})
        outlier_counts: Counter[str] = Counter()
        event_counts: Counter[str] = Counter()
        largest: dict[str | None, float] = {}
        with self._db.read() as conn:
            for each in ranges:
                outlier_counts.update(_count_by_key(conn, outliers, each, start_us, end_us))
                for key, energy in _find_largest(conn, each, start_us, end_us):
                    largest[key] = max(energy, largest.get(key, energy))
            wanted = {*_select_frequent(outlier_counts), *tracked}
            for each in ranges if wanted else ():
                event_counts.update(_count_by_key(conn, scores, each, start_us, end_us, among=sorted(wanted)))
        return WindowKeys(
            counts={key: (events, outlier_counts[key]) for key, events in event_counts.items()},
            largest={key: energy for key, energy in largest.items() if key is not None and key in event_counts},
            largest_of_others=max((each for key, each in largest.items() if key not in event_counts), default=None),
        )


def _in_range(table: sa.Table, each: OffsetRange, start_us: int, end_us: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        table.c.source_id == each.source_id,
        table.c.source_offset >= each.first_offset,
        table.c.source_offset <= each.last_offset,
        table.c.event_time_us >= start_us,
        table.c.event_time_us < end_us,
    )


def _read_top_outliers(
    conn: Connection, each: OffsetRange, start_us: int, end_us: int
) -> Sequence[sa.Row[tuple[object, ...]]]:
    query = (
        sa.select(outliers)
        .where(*_in_range(outliers, each, start_us, end_us))
        .order_by(outliers.c.energy.desc(), outliers.c.source_offset)
        .limit(MAX_OUTLIERS)
    )
    return conn.execute(query).all()


def _count_keys(
    conn: Connection, ranges: Sequence[OffsetRange], start_us: int, end_us: int
) -> tuple[list[KeyCount], int]:
    """Count events and outliers of the keys with the most outliers; return them and the number of distinct keys.

    Returns ([], 0) if the events have no keys or if the ranges hold more than `MAX_EVENTS_FOR_KEYS` events.
    """
    outlier_counts: Counter[str] = Counter()
    for each in ranges:
        outlier_counts.update(_count_by_key(conn, outliers, each, start_us, end_us))
    too_many = sum(each.last_offset - each.first_offset + 1 for each in ranges) > MAX_EVENTS_FOR_KEYS
    if not outlier_counts or too_many:
        return [], 0
    candidates = _select_frequent(outlier_counts)
    event_counts: Counter[str] = Counter()
    distinct = 0
    for each in ranges:
        event_counts.update(_count_by_key(conn, scores, each, start_us, end_us, among=candidates))
        query = sa.select(sa.func.count(scores.c.key.distinct())).where(*_in_range(scores, each, start_us, end_us))
        distinct += conn.execute(query).scalar_one()
    return [KeyCount(key=key, events=event_counts[key], outliers=outlier_counts[key]) for key in candidates], distinct


def _find_largest(conn: Connection, each: OffsetRange, start_us: int, end_us: int) -> list[tuple[str | None, float]]:
    """Return the largest energy of the outliers of each key in a range, and of those without a key."""
    query = (
        sa.select(outliers.c.key, sa.func.max(outliers.c.energy))
        .where(*_in_range(outliers, each, start_us, end_us))
        .group_by(outliers.c.key)
    )
    # As for the evidence: PostgreSQL returns the shortest decimal that rounds to the float32.
    return [(key, float(np.float32(energy))) for key, energy in conn.execute(query)]


def _select_frequent(outlier_counts: Mapping[str, int]) -> list[str]:
    return sorted(outlier_counts, key=lambda key: (-outlier_counts[key], key))[:MAX_COUNTED_KEYS]


def _count_by_key(
    conn: Connection,
    table: sa.Table,
    each: OffsetRange,
    start_us: int,
    end_us: int,
    *,
    among: Sequence[str] | None = None,
) -> dict[str, int]:
    wanted = table.c.key.is_not(None) if among is None else table.c.key.in_(among)
    query = (
        sa.select(table.c.key, sa.func.count())
        .where(*_in_range(table, each, start_us, end_us), wanted)
        .group_by(table.c.key)
    )
    return {key: int(count) for key, count in conn.execute(query)}
