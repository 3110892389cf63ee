"""Consumers: what can be counted about one column of a sample, and what its values look like."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from consumers.batch import Int64
from consumers.codecs.message_fields import FLOAT32_LIMIT
from consumers.codecs.text import describe_value
from consumers.discovery.features import NUMERIC_SHARE
from consumers.discovery.sample import SampleColumn
from consumers.times import MAGNITUDES, NUMBER, times_us

MIN_VALUES = 50
"""Fewer values tell nothing about how often they repeat."""

_DAY_US = 86_400_000_000
_EPOCH_FROM_US = 631_152_000_000_000  # 1990
_EPOCH_AHEAD_US = 366 * _DAY_US
_MIN_LATENESS_US = 60_000_000
_IN_ORDER_SHARE = 0.99
TIME_NAMES = ("ts", "time", "timestamp", "event_time", "eventtime", "datetime", "date", "occurred_at", "created_at")
_MAX_EXAMPLE_CHARS = 24
_IDENTIFIER = re.compile(r"(?:^|[._\- ])(?i:id|uuid|guid)$|[a-z0-9](?:Id|ID|Uuid|UUID|Guid|GUID)$")


@dataclass(slots=False, kw_only=True)
class ColumnStatistics:
    """What can be counted about one column; slots would keep the cached ones from being kept."""

    column: SampleColumn
    n_events: int
    kinds: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.kinds = Counter(map(value_kind, self.column.values()))

    @property
    def n_present(self) -> int:
        """Return in how many events the field is, and not null."""
        return sum(self.kinds.values())

    @cached_property
    def values(self) -> list[Any]:
        """Return the scalars among the values."""
        return [value for value in self.column.values() if value_kind(value) not in {"list", "object"}]

    @cached_property
    def n_distinct(self) -> int:
        """Return how many different values there are."""
        return len(set(self.values))

    @property
    def example(self) -> str:
        """Return the first value for reading."""
        return shorten(describe_value(self.values[0])) if self.values else ""

    @property
    def is_numeric(self) -> bool:
        """Return whether nearly all events have a number here."""
        return self.kinds["number"] >= NUMERIC_SHARE * self.n_events > 0

    @cached_property
    def numbers(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the finite numbers."""
        return np.array([float(value) for value in self.values if value_kind(value) == "number"], np.float64)

    @cached_property
    def is_integer(self) -> bool:
        """Return whether all numbers are whole, however they are written."""
        return bool((self.numbers == np.floor(self.numbers)).all())

    @cached_property
    def steps(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the differences of consecutive numbers of one partition."""
        pieces = [[float(value) for value in piece if value_kind(value) == "number"] for piece in self.column.pieces]
        return np.concatenate([np.diff(np.array(piece, np.float64)) for piece in pieces] or [np.empty(0)])

    @cached_property
    def times(self) -> list[Int64]:
        """Return the column as times of each partition, where nearly all of it are; else nothing."""
        if not self.n_present or self.kinds["bool"] + self.kinds["list"] + self.kinds["object"] > 0:
            return []
        pieces = [times_us(piece, "auto") for piece in self.column.pieces]
        good = sum(int((piece >= 0).sum()) for piece in pieces)
        return pieces if good >= NUMERIC_SHARE * self.n_present else []


def value_kind(value: object) -> str:
    """Return what a value is, as a person calls it."""
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
    """Return whether a name ends like an identifier's: payment_id, userId, uuid; not paid or grid."""
    return _IDENTIFIER.search(name) is not None


def is_time(facts: ColumnStatistics, now_us: int) -> bool:
    """Return whether a column holds times: text or dates that are, or numbers that are epochs of our days."""
    if not facts.times:
        return False
    in_words = facts.kinds["text"] + facts.kinds["date"] >= NUMERIC_SHARE * facts.n_present
    if in_words and not all(isinstance(value, str) and NUMBER.fullmatch(value) for value in facts.values[:MIN_VALUES]):
        return True
    if not in_words and not facts.is_numeric:
        return False
    times = np.concatenate(facts.times)
    times = times[times >= 0]
    if times.min() < _EPOCH_FROM_US or times.max() > now_us + _EPOCH_AHEAD_US:
        return False
    seconds = not in_words and float(np.median(facts.numbers)) < MAGNITUDES[0][0]
    # Small numbers can be anything (bytes of memory): they are times if they are called so, or come in order.
    return not seconds or time_rank(facts.column.name) < len(TIME_NAMES) or _share_in_order(facts.times) >= 0.9


def _share_in_order(pieces: Sequence[Int64]) -> float:
    """Return the share of steps within a partition that do not go back."""
    steps = np.concatenate([np.diff(piece) for piece in pieces] or [np.empty(0)])
    return float((steps >= 0).mean()) if len(steps) else 1.0


def lateness_us(pieces: Sequence[Int64]) -> Int64:
    """Return by how much each time lies behind the largest one before it in its partition."""
    late = [np.maximum.accumulate(piece) - piece for piece in (piece[piece >= 0] for piece in pieces) if len(piece)]
    return np.concatenate(late) if late else np.empty(0, np.int64)


def is_in_order(facts: ColumnStatistics) -> bool:
    """Return whether times come about in their order: few lie behind by a tenth of all the time there is."""
    times = np.concatenate(facts.times)
    times = times[times >= 0]
    allowed = max(_MIN_LATENESS_US, int(times.max() - times.min()) // 10)
    return float((lateness_us(facts.times) <= allowed).mean()) >= _IN_ORDER_SHARE


def time_rank(name: str) -> int:
    """Return how much a name is one of a time: 0 the most, `len(TIME_NAMES)` not at all."""
    last = name.rpartition(".")[2].lower().lstrip("@_").replace("-", "_")
    if last in TIME_NAMES:
        return TIME_NAMES.index(last)
    like_time = re.search(r"(?:^|_)(?:time|timestamp|ts|date|at)(?:_(?:s|ms|us|ns))?$", last)
    return len(TIME_NAMES) - 1 if like_time else len(TIME_NAMES)


def format_number(value: float) -> str:
    """Return a number for reading."""
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.4g}"


def format_percent(share: float) -> str:
    """Return a share for reading."""
    return f"{100 * share:.3g}%" if share < 0.9999 else "nearly 100%"


def shorten(text: str) -> str:
    """Return a text that fits into a table."""
    return text if len(text) <= _MAX_EXAMPLE_CHARS else f"{text[: _MAX_EXAMPLE_CHARS - 1]}…"
