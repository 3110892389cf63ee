"""The offsets of a source that may hold events of a time range, from the ranges of its commits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.partitions import day_number
from storage.database.tables import WIDE_RANGE_US, commit_ranges

_MIN_OFFSET = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetSpan:
    """The offsets [first, last] of one source; None is open. `day` is the day of storing, None if it is unknown."""

    first: int = _MIN_OFFSET
    last: int | None = None
    day: int | None = None

    def may_be_stored_on(self, day: int | None) -> bool:
        """Return whether rows of the span may lie in the partition of a day; None without partitions."""
        return day is None or self.day is None or self.day == day


def find_spans(
    connection: Connection, source_id: int, since_us: int | None, until_us: int | None, *, max_offsets: int
) -> list[OffsetSpan]:
    """Return the spans of a source that hold all of its events with times in [since_us, until_us), in order.

    Events that were stored before ranges were recorded have none: the first span covers all offsets before the first
    range. Adjacent ranges of one day are joined up to `max_offsets` offsets.
    """
    if since_us is None and until_us is None:
        return [OffsetSpan()]
    first = connection.scalar(
        sa.select(sa.func.min(commit_ranges.c.first_offset)).where(commit_ranges.c.source_id == source_id)
    )
    if first is None:
        return [OffsetSpan()]
    ranges = _read_ranges(connection, source_id, since_us, until_us)
    return [OffsetSpan(last=first - 1), *_join_adjacent(ranges, max_offsets)]


def _read_ranges(
    connection: Connection, source_id: int, since_us: int | None, until_us: int | None
) -> list[OffsetSpan]:
    """Return the ranges whose events, on time or late, may lie within the bounds, by offset.

    The statements do not order the rows: for an order by offset SQLite would read all ranges of the source.
    """
    table = commit_ranges.c
    spans: dict[int, OffsetSpan] = {}
    # A number in the statement, not a parameter: SQLite uses the index of wide ranges only for its own condition.
    is_wide = table.max_time_us - table.min_time_us > sa.literal_column(str(WIDE_RANGE_US), sa.BigInteger)
    selects: list[tuple[sa.Column[int], sa.Column[int], list[sa.ColumnElement[bool]]]] = [
        # All but the wide ranges that begin before `until_us` end before `until_us` + `WIDE_RANGE_US`.
        (
            table.min_time_us,
            table.max_time_us,
            [] if until_us is None else [table.max_time_us < until_us + WIDE_RANGE_US],
        ),
        (table.min_time_us, table.max_time_us, [is_wide]),
        (table.min_late_us, table.max_late_us, [table.max_late_us.is_not(None)]),
    ]
    for low, high, conditions in selects:
        query = sa.select(table.first_offset, table.last_offset, table.stored_at_us).where(
            table.source_id == source_id, *conditions
        )
        if since_us is not None:
            query = query.where(high >= since_us)
        if until_us is not None:
            query = query.where(low < until_us)
        for first, last, stored_at_us in connection.execute(query):
            spans[first] = OffsetSpan(first=first, last=last, day=day_number(stored_at_us))
    return [spans[first] for first in sorted(spans)]


def _join_adjacent(spans: Iterable[OffsetSpan], max_offsets: int) -> list[OffsetSpan]:
    joined: list[OffsetSpan] = []
    for span in spans:
        before = joined[-1] if joined else None
        assert span.last is not None, "ranges have both ends"
        if before is not None and before.day == span.day and span.last - before.first < max_offsets:
            joined[-1] = OffsetSpan(first=before.first, last=span.last, day=span.day)
        else:
            joined.append(span)
    return joined
