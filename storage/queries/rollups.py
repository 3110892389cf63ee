"""Roll-ups of the windows of streams for charts: finished intervals from `window_rollups`, the rest from windows.

Up to the event time `streams.rolled_up_us` every window is in a roll-up of 15 minutes, and in one of 6 hours if that
interval has ended by then. Later windows, a few minutes of a running stream, are read as they are. No other table with
a row per event or a payload per window is read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.control import rollups
from storage.database.tables import incidents, models, streams, thresholds, window_rollups, windows

FINE_US, COARSE_US = rollups.FINE_US, rollups.COARSE_US
"""The two resolutions, in microseconds."""


@dataclass(frozen=True, slots=True)
class Rollup:
    """Sums over the windows that start in one interval; a single window is the finest one.

    Built by position from the rows of a query, which takes half the time of keywords: a page has thousands.

    Attributes:
        start_us: Start of the interval.
        end_us: End of its last window.
        windows: Number of judged windows, 0 if there were late events only.
        fired: Number of those with an alarm.
        events: On-time events.
        outliers: On-time outliers.
        late: Late events.
        dead: Dead letters.
        filtered: Records that the filter left out.
        expected: Mean number of outliers of clean windows with as many events.
        most_outliers: Largest number of outliers of one window.
        fires_at: Smallest number of outliers at which one of the windows is a spike.
        p_value: Lowest p-value of a window.
        energy_p50: Median of the energies under the newest model, in nats; None without events, and in a bar that is
            summed from windows.
        energy_p99: Their 99th percentile.
        energy_max: The largest of them.
        model_version: Version of the newest model.
    """

    start_us: int
    end_us: int
    windows: int
    fired: int
    events: int
    outliers: int
    late: int
    dead: int
    filtered: int
    expected: float | None
    most_outliers: int
    fires_at: int | None
    p_value: float | None
    energy_p50: float | None
    energy_p99: float | None
    energy_max: float | None
    model_version: int | None


class BarSums(NamedTuple):
    """The sums of 15 minutes that a bar shows; a tuple, since an overview has tens of thousands.

    Attributes:
        start_us: Start of the interval.
        end_us: End of its last window.
        windows: Number of judged windows, 0 if there were late events only.
        events: On-time events.
        outliers: On-time outliers.
        expected: Mean number of outliers of clean windows with as many events.
    """

    start_us: int
    end_us: int
    windows: int
    events: int
    outliers: int
    expected: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentMark:
    """An incident as a mark in a chart; `end_us` is None while it is open."""

    id: int
    stream_id: int
    kind: str
    severity: str
    status: str
    verdict: str | None
    start_us: int
    end_us: int | None


_NAMES = tuple(field.name for field in fields(Rollup))
_ROLLUP_COLUMNS = tuple(window_rollups.c[name] for name in _NAMES)
_BAR_COLUMNS = tuple(window_rollups.c[name] for name in BarSums._fields)


def read_rollups(conn: Connection, stream_id: int, *, resolution_us: int, from_us: int, until_us: int) -> list[Rollup]:
    """Return the roll-ups of one stream that start in [from, until), in order.

    The last hours come in finer intervals: a 6-hour interval that has not ended as its 15-minute ones, and the end of
    the stream as single windows. Nothing is summed at the time of reading, so every row is exact.

    Args:
        conn: Connection to the database.
        stream_id: The stream.
        resolution_us: `FINE_US` or `COARSE_US`.
        from_us: Event time of the first interval.
        until_us: Event time after the last one.
    """
    rolled_us = conn.execute(sa.select(streams.c.rolled_up_us).where(streams.c.id == stream_id)).scalar_one_or_none()
    cuts = [from_us]
    rows: list[Rollup] = []
    for length_us in (COARSE_US, FINE_US):
        if rolled_us is None or length_us > resolution_us:
            continue
        begin_us, end_us = cuts[-1], min(until_us, rolled_us // length_us * length_us)
        if begin_us < end_us:
            rows += _read_finished(conn, stream_id, length_us, begin_us, end_us)
            cuts.append(end_us)
    return rows + read_windows(conn, stream_id, from_us=cuts[-1], until_us=until_us)


def read_windows(conn: Connection, stream_id: int, *, from_us: int, until_us: int) -> list[Rollup]:
    """Return the windows of one stream that start in [from, until), in order, each as a roll-up of itself."""
    table = windows.c
    query = (
        sa.select(
            table.window_start_us.label("start_us"),
            table.window_end_us.label("end_us"),
            *_sums(sa.case((table.judged_at_us.is_(None), 0), else_=1), table.details.is_not(None).cast(sa.Integer)),
            table.energy_p50,
            table.energy_p99,
            table.energy_max,
            models.c.version.label("model_version"),
        )
        .select_from(
            windows.outerjoin(thresholds, thresholds.c.id == table.threshold_id).outerjoin(
                models, models.c.id == thresholds.c.model_id
            )
        )
        .where(table.stream_id == stream_id, table.window_start_us >= from_us, table.window_start_us < until_us)
        .order_by(table.window_start_us)
    )
    return [Rollup(**row) for row in conn.execute(query).mappings()]


def read_bars(
    conn: Connection, stream_ids: Collection[int], *, from_us: int, until_us: int
) -> dict[int, list[BarSums]]:
    """Return bars of 15 minutes of several streams in [from, until), by stream, in order.

    An interval without windows has no bar. The newest bars are summed from windows.
    """
    bars: dict[int, list[BarSums]] = {stream_id: [] for stream_id in stream_ids}
    finished = (
        sa.select(window_rollups.c.stream_id, *_BAR_COLUMNS)
        .join(streams, streams.c.id == window_rollups.c.stream_id)
        .where(
            window_rollups.c.stream_id.in_(stream_ids),
            window_rollups.c.resolution_us == FINE_US,
            window_rollups.c.start_us >= from_us,
            window_rollups.c.start_us < until_us,
            window_rollups.c.start_us < streams.c.rolled_up_us,
        )
        .order_by(window_rollups.c.stream_id, window_rollups.c.start_us)
    )
    for query in (finished, _select_unfinished_bars(stream_ids, from_us, until_us)):
        # All rows at once: row by row, the driver takes three times as long.
        for stream_id, *values in conn.execute(query).all():
            bars[stream_id].append(BarSums(*values))
    return bars


def read_incident_marks(
    conn: Connection, stream_ids: Collection[int], *, from_us: int, until_us: int
) -> list[IncidentMark]:
    """Return the incidents of several streams that were open at some time in [from, until), by stream and opening."""
    table = incidents.c
    columns = (
        table.id,
        table.stream_id,
        table.kind,
        table.severity,
        table.status,
        table.verdict,
        table.window_start_us.label("start_us"),
        table.resolved_at_us.label("end_us"),
    )
    of_streams = (table.stream_id.in_(stream_ids), table.opened_at_us < until_us)
    # Two reads, each by an index of its own: the open incidents, and the resolved ones by their time of opening.
    is_open = table.status == sa.literal_column("'open'")
    resolved = (~is_open, table.resolved_at_us >= from_us)
    rows = conn.execute(
        sa.union_all(sa.select(*columns).where(*of_streams, is_open), sa.select(*columns).where(*of_streams, *resolved))
    ).mappings()
    spans = [IncidentMark(**row) for row in rows]
    return sorted(spans, key=lambda each: (each.stream_id, each.start_us, each.id))


def _read_finished(conn: Connection, stream_id: int, length_us: int, from_us: int, until_us: int) -> list[Rollup]:
    query = (
        sa.select(*_ROLLUP_COLUMNS)
        .where(
            window_rollups.c.stream_id == stream_id,
            window_rollups.c.resolution_us == length_us,
            window_rollups.c.start_us >= from_us,
            window_rollups.c.start_us < until_us,
        )
        .order_by(window_rollups.c.start_us)
    )
    return [Rollup(*row) for row in conn.execute(query)]


def _sums(judged: sa.ColumnElement[int], fired: sa.ColumnElement[int]) -> Sequence[sa.ColumnElement[Any]]:
    """Return the columns of one window from `windows` to `p_value`, in the order of `Rollup`."""
    table = windows.c
    return (
        judged.label("windows"),
        fired.label("fired"),
        table.events,
        table.outliers,
        table.late,
        table.dead,
        table.filtered,
        table.expected,
        table.outliers.label("most_outliers"),
        table.fires_at,
        table.p_value,
    )


def _select_unfinished_bars(stream_ids: Collection[int], from_us: int, until_us: int) -> sa.Select[Any]:
    """Return the query of the sums over the windows that are in no roll-up yet, by stream and 15 minutes."""
    table = windows.c
    start_us = table.window_start_us // FINE_US * FINE_US
    since_us = sa.func.coalesce(streams.c.rolled_up_us, from_us)
    return (
        sa.select(
            table.stream_id,
            start_us.label("start_us"),
            sa.func.max(table.window_end_us),
            sa.func.count(table.judged_at_us),
            sa.cast(sa.func.sum(table.events), sa.BigInteger),
            sa.cast(sa.func.sum(table.outliers), sa.BigInteger),
            sa.func.sum(table.expected),
        )
        .join(streams, streams.c.id == table.stream_id)
        .where(
            table.stream_id.in_(stream_ids),
            table.window_start_us >= since_us,
            table.window_start_us >= from_us,
            table.window_start_us < until_us,
        )
        .group_by(table.stream_id, start_us)
        .order_by(table.stream_id, start_us)
    )
