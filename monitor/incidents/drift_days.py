"""The stored sums of whole local days, which the cycles of the drift test consist of. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec
import numpy as np
from numpy.typing import NDArray

from config.local_time import local_day, local_weekday
from config.time_format import DAY_US
from monitor.incidents.drift_horizons import Horizon
from monitor.statistics.day_correlation import DayCorrelation
from monitor.statistics.drift_sums import pack_integers, unpack_integers
from storage.control.drift import DriftDayRow

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cycle:
    """The sums of a whole local day or week; `hours` is the number of its hours with events."""

    horizon: Horizon
    end_us: int
    hours: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DriftDay:
    """A local day, and its correlation with the day before where that has been seen."""

    cycle: Cycle
    shape: tuple[int, int, int]
    correlation: DayCorrelation | None


class _Payload(msgspec.Struct, array_like=True):
    """The sums of a day as bytes: the shape of the statistics, integers as in a part, float64 correlations."""

    shape: tuple[int, int, int]
    sums: bytes
    hours: int
    correlations: bytes


def encode_day(day: DriftDay) -> DriftDayRow:
    """Return a day as the row that is stored."""
    pair, horizon = day.correlation, day.cycle.horizon
    payload = _Payload(
        day.shape,
        pack_integers(horizon.sums[None])[0],
        0 if pair is None else pair.hours,
        b"" if pair is None else pair.correlations.astype("<f8").tobytes(),
    )
    return DriftDayRow(
        start_us=horizon.start_us,
        end_us=day.cycle.end_us,
        events=horizon.events,
        outliers=horizon.outliers,
        fired=horizon.has_spike,
        hours=day.cycle.hours,
        payload=msgspec.msgpack.encode(payload),
    )


def decode_day(row: DriftDayRow) -> DriftDay:
    """Return the day of a stored row."""
    payload = msgspec.msgpack.decode(row.payload, type=_Payload)
    pair = None
    if payload.hours:
        pair = DayCorrelation(hours=payload.hours, correlations=np.frombuffer(payload.correlations, "<f8"))
    horizon = Horizon(
        start_us=row.start_us,
        events=row.events,
        outliers=row.outliers,
        has_spike=row.fired,
        sums=unpack_integers(payload.sums),
    )
    return DriftDay(
        cycle=Cycle(horizon=horizon, end_us=row.end_us, hours=row.hours), shape=payload.shape, correlation=pair
    )


def list_cycles(days: Sequence[DriftDay], cycle_us: int, timezone: str) -> list[Cycle]:
    """Return the days, or the weeks from Monday to Sunday that they belong to, in order.

    Args:
        days: Days in order.
        cycle_us: One of `CYCLES_US`.
        timezone: IANA name of the time zone of the stream.
    """
    if cycle_us == DAY_US:
        return [day.cycle for day in days]
    weeks = groupby(days, key=lambda day: _week_number(day.cycle.horizon.start_us, timezone))
    return [_join([day.cycle for day in week]) for _, week in weeks]


def ends_cycle(until_us: int, cycle_us: int, timezone: str) -> bool:
    """Return True if a cycle ends at a time."""
    if local_day(until_us, timezone)[0] != until_us:
        return False
    return cycle_us == DAY_US or local_weekday(until_us, timezone) == 0


def _week_number(day_start_us: int, timezone: str) -> int:
    """Return a number that grows by 1 every local Monday."""
    noon_us = day_start_us + DAY_US // 2
    return (noon_us // DAY_US - local_weekday(noon_us, timezone)) // 7


def _join(cycles: Sequence[Cycle]) -> Cycle:
    horizons = [each.horizon for each in cycles]
    sums: Int64 = np.sum([each.sums for each in horizons], axis=0)
    joined = Horizon(
        start_us=horizons[0].start_us,
        events=sum(each.events for each in horizons),
        outliers=sum(each.outliers for each in horizons),
        has_spike=any(each.has_spike for each in horizons),
        sums=sums,
    )
    return Cycle(horizon=joined, end_us=cycles[-1].end_us, hours=sum(each.hours for each in cycles))
