"""Counts and formats of the values of one column of a sample."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from config.time_format import DAY_US, MINUTE_US
from consumers.batch import Int64
from consumers.codecs.message_fields import FLOAT32_LIMIT
from consumers.codecs.text import describe_value
from consumers.discovery.features import NUMERIC_SHARE
from consumers.discovery.sample import SampleColumn
from consumers.times import MAGNITUDES, NUMBER, times_us

MIN_VALUES = 50
"""The minimum number of values for statements about repetition."""

_EPOCH_FROM_US = 631_152_000_000_000  # 1990
_EPOCH_AHEAD_US = 366 * DAY_US
_MIN_LATENESS_US = MINUTE_US
_IN_ORDER_SHARE = 0.99
_GROWING_SHARE = 0.9
TIME_NAMES = ("ts", "time", "timestamp", "event_time", "eventtime", "datetime", "date", "occurred_at", "created_at")
_LIKE_TIME_NAME = re.compile(
    r"(?:^|_)(?:time|timestamp|ts|date|datetime|at|when|dt)(?:_(?:utc|s|ms|us|ns|nano|nanos))?$"
)
_QUANTITY_NAME = re.compile(
    r"(?:^|_)(?:bytes?|size|count|counter|total|amount|volume|price|free|used|memory|mem|capacity|length|sum|[kmgt]i?b)(?:_|$)"
)
_MAX_EXAMPLE_CHARS = 24
_IDENTIFIER = re.compile(r"(?:^|[._\- ])(?i:id|uuid|guid)$|[a-z0-9](?:Id|ID|Uuid|UUID|Guid|GUID)$")


@dataclass(slots=False, kw_only=True)
class ColumnStatistics:
    """Statistics of one column. The class has no slots, because cached properties need a `__dict__`."""

    column: SampleColumn
    n_events: int
    kinds: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.kinds = Counter(map(value_kind, self.column.values()))

    @property
    def n_present(self) -> int:
        """The number of events with a non-null value."""
        return sum(self.kinds.values())

    @cached_property
    def values(self) -> list[Any]:
        """The scalar values."""
        return [value for value in self.column.values() if value_kind(value) not in {"list", "object"}]

    @cached_property
    def n_distinct(self) -> int:
        """The number of distinct scalar values."""
        return len(set(self.values))

    @property
    def example(self) -> str:
        """The first scalar value, formatted."""
        return shorten(describe_value(self.values[0])) if self.values else ""

    @property
    def is_numeric(self) -> bool:
        """True if at least NUMERIC_SHARE of the events have a number."""
        return self.kinds["number"] >= NUMERIC_SHARE * self.n_events > 0

    @cached_property
    def numbers(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The finite numbers, shape (n,)."""
        return np.array([float(value) for value in self.values if value_kind(value) == "number"], np.float64)

    @cached_property
    def is_integer(self) -> bool:
        """True if all numbers are integral, including floats such as 1.0."""
        return bool((self.numbers == np.floor(self.numbers)).all())

    @cached_property
    def steps(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The differences of consecutive numbers within each partition, shape (n,)."""
        pieces = [[float(value) for value in piece if value_kind(value) == "number"] for piece in self.column.pieces]
        return np.concatenate([np.diff(np.array(piece, np.float64)) for piece in pieces] or [np.empty(0)])

    @cached_property
    def times(self) -> list[Int64]:
        """The times of each partition, or an empty list if fewer than NUMERIC_SHARE of the values are times."""
        if not self.n_present or self.kinds["bool"] + self.kinds["list"] + self.kinds["object"] > 0:
            return []
        pieces = [times_us(piece, "auto") for piece in self.column.pieces]
        good = sum(int((piece >= 0).sum()) for piece in pieces)
        return pieces if good >= NUMERIC_SHARE * self.n_present else []


def value_kind(value: object) -> str:
    """Return the kind of a value: bool, number, not finite, text, date, list or object."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number" if abs(value) < FLOAT32_LIMIT else "not finite"
    if isinstance(value, str | bytes):
        return "text"
    if isinstance(value, datetime):
        return "date"
    if isinstance(value, list | tuple):
        return "list"
    return "number" if hasattr(value, "as_tuple") else "object"  # decimals of Parquet


def is_identifier(name: str) -> bool:
    """Return True if a name ends like the name of an identifier: payment_id, userId, uuid, but not paid or grid."""
    return _IDENTIFIER.search(name) is not None


def is_time(stats: ColumnStatistics, now_us: int, *, has_reference: bool = False) -> bool:
    """Return True if a column holds times: time texts, dates, or numbers that are epochs since 1990.

    The magnitude of a number alone does not make it a time (bytes of memory are near 1e9, of a disk near 1e12): its
    name is that of a time, or it grows with the events.

    Args:
        stats: The column.
        now_us: The current time.
        has_reference: The event time is known from another field or from the broker. Without it, numbers in ms, us or
            ns are times by their magnitude as well, unless their name is that of a quantity.
    """
    if not stats.times:
        return False
    is_text = stats.kinds["text"] + stats.kinds["date"] >= NUMERIC_SHARE * stats.n_present
    if is_text and not all(isinstance(value, str) and NUMBER.fullmatch(value) for value in stats.values[:MIN_VALUES]):
        return True
    if not (is_text or stats.is_numeric) or not _is_recent(stats, now_us):
        return False
    if has_time_name(stats.column.name) or _QUANTITY_NAME.search(_split_words(stats.column.name)):
        return has_time_name(stats.column.name)
    maybe_seconds = not is_text and float(np.median(stats.numbers)) < MAGNITUDES[0][0]
    if maybe_seconds:
        return _share_in_order(stats.times) >= _GROWING_SHARE
    return not has_reference or grows_with_events(stats)


def _is_recent(stats: ColumnStatistics, now_us: int) -> bool:
    """Return True if all times are between 1990 and a year from now."""
    times = np.concatenate(stats.times)
    times = times[times >= 0]
    return bool(times.min() >= _EPOCH_FROM_US and times.max() <= now_us + _EPOCH_AHEAD_US)


def has_time_name(name: str) -> bool:
    """Return True if a field has the name of a time."""
    return time_rank(name) < len(TIME_NAMES)


def grows_with_events(stats: ColumnStatistics) -> bool:
    """Return True if nine in ten times are not before the one before, or the times grow nearly linearly."""
    if _share_in_order(stats.times) >= _GROWING_SHARE:
        return True
    for piece in stats.times:
        known = piece[piece >= 0].astype(np.float64)
        if len(known) < MIN_VALUES or known.std() == 0:
            return False
        if np.corrcoef(known, np.arange(len(known)))[0, 1] < _GROWING_SHARE:
            return False
    return bool(stats.times)


def _share_in_order(pieces: Sequence[Int64]) -> float:
    """Return the share of steps within a partition that are not negative."""
    steps = np.concatenate([np.diff(piece) for piece in pieces] or [np.empty(0)])
    return float((steps >= 0).mean()) if len(steps) else 1.0


def lateness_us(pieces: Sequence[Int64]) -> Int64:
    """Return the lateness of each time: the difference to the largest earlier time of its partition."""
    late = [np.maximum.accumulate(piece) - piece for piece in (piece[piece >= 0] for piece in pieces) if len(piece)]
    return np.concatenate(late) if late else np.empty(0, np.int64)


def is_in_order(stats: ColumnStatistics) -> bool:
    """Return True if at most 1% of the times are late by more than a tenth of the time span (at least 60 s)."""
    times = np.concatenate(stats.times)
    low, high = np.quantile(times[times >= 0], (1 - _IN_ORDER_SHARE, _IN_ORDER_SHARE))
    pieces = [piece[(piece >= low) & (piece <= high)] for piece in stats.times]  # a stray time makes no other one late
    allowed = max(_MIN_LATENESS_US, int(high - low) // 10)
    return float((lateness_us(pieces) <= allowed).mean()) >= _IN_ORDER_SHARE


def time_rank(name: str) -> int:
    """Return the rank of a name as a time field: 0 is the best, `len(TIME_NAMES)` means no time name."""
    last = name.rpartition(".")[2].lower().lstrip("@_").replace("-", "_")
    if last in TIME_NAMES:
        return TIME_NAMES.index(last)
    return len(TIME_NAMES) - 1 if _LIKE_TIME_NAME.search(_split_words(name)) else len(TIME_NAMES)


def _split_words(name: str) -> str:
    """Return the last part of a dotted name in lower case, with its words separated by underscores."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[-\s]+", "_", name.rpartition(".")[2])
    return words.lower().lstrip("@_")


def format_number(value: float) -> str:
    """Format a number for output."""
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.4g}"


def format_percent(share: float) -> str:
    """Format a share as a percentage for output."""
    return f"{100 * share:.3g}%" if share < 0.9999 else "nearly 100%"


def shorten(text: str) -> str:
    """Return the text, shortened to the width of a table cell."""
    return text if len(text) <= _MAX_EXAMPLE_CHARS else f"{text[: _MAX_EXAMPLE_CHARS - 1]}…"
