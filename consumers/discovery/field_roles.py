"""Assignment of a role to each field of a stream's events: feature, key, id, time or refused.

A feature is a number that describes an event. Identifiers, counters and times are rejected as features, because
with them every later event would be anomalous.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from config.number_format import format_together
from config.time_format import format_short_time
from consumers.codecs.text import text_column
from consumers.discovery.column_statistics import (
    MIN_VALUES,
    ColumnStatistics,
    format_number,
    format_percent,
    is_identifier,
    is_in_order,
    is_time,
    time_rank,
    value_kind,
)
from consumers.discovery.features import NUMERIC_SHARE, is_storable_name
from consumers.discovery.sample import RecordSample
from consumers.discovery.unread_times import find_unread_times
from consumers.times import COMPACT_RANGE, MAGNITUDES

Role = Literal["feature", "key", "id", "time", "refused"]

_MIN_STEPS = 9
_UNIQUE_SHARE = 0.99
_MAX_DISTINCT_SHARE = 0.5
_MAX_UNIFORM_DISTANCE = 0.15
"""The largest distance to the uniform distribution function (Kolmogorov-Smirnov) for a column of identifiers."""

_KEY_NAME = re.compile(
    r"(?:^|[._\- ])(?:key|user|customer|account|device|host|sensor|client|merchant|card)(?:$|[_\-])", re.IGNORECASE
)
_NUMBERS_AS_TEXT = (
    (
        re.compile(r"\s*[+-]?\d+(\.\d+)?([eE][+-]?\d+)?\s*"),
        "numbers written as text; have the producer write them as numbers",
    ),
    (re.compile(r"\s*[+-]?\d+(,\d+)?\s*"), "numbers with a decimal comma; write them with a point"),
    (re.compile(r"\s*[+-]?\d{1,3}([, ']\d{3})*(\.\d+)?\s*"), "numbers with thousands separators; write them without"),
    (
        re.compile(r"\s*[+-]?\d+([.,]\d+)?(\s*[%°][CF]?|\s+[A-Za-z/%°]{1,8})\s*"),
        "numbers with a unit; write the number alone",
    ),
)
_PREFERRED_ID_NAME = re.compile(r"(?:^|\.)(?:event[_-]?id|uuid|guid|id)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRole:
    """The role of one field and the reason for it."""

    name: str
    role: Role
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRoles:
    """The roles of all fields, in order of first appearance."""

    roles: tuple[FieldRole, ...]
    complete_share: float = 1.0
    """The share of events with all features."""

    def names(self, role: Role) -> tuple[str, ...]:
        """Return the names of the fields with a role."""
        return tuple(field_role.name for field_role in self.roles if field_role.role == role)

    def first(self, role: Role) -> str | None:
        """Return the name of the first field with a role, or None."""
        return next(iter(self.names(role)), None)


def assign_roles(sample: RecordSample, now_us: int, *, max_future_us: int) -> FieldRoles:
    """Assign a role to every field of a sample.

    Args:
        sample: The first events.
        now_us: The current time. Numbers that are epochs up to about now are times, not features.
        max_future_us: The accepted lead of event times over the broker's timestamps. A field with larger leads
            is not the time field.
    """
    columns = [ColumnStatistics(column=column, n_events=sample.n_events) for column in sample.columns.values()]
    time = None if sample.unnamed else _select_time_field(columns, sample, now_us, max_future_us)
    unread = {each.name: each.reason for each in find_unread_times(sample, now_us)}
    has_reference = time is not None or sample.stamps_us is not None
    key = None if sample.unnamed else _select_key_field(columns, sample, time, now_us)
    identity = None if sample.unnamed else _select_id_field(columns, (time, key), now_us)
    roles = []
    for stats in columns:
        name = stats.column.name
        if name == time:
            roles.append(FieldRole(name=name, role="time", reason=_describe_times(stats)))
        elif name == key:
            roles.append(
                FieldRole(name=name, role="key", reason=f"{stats.n_distinct:,} different in {stats.n_present:,}")
            )
        elif name == identity:
            roles.append(FieldRole(name=name, role="id", reason=f"different in every event, such as {stats.example}"))
        else:
            roles.append(_assign_role(stats, now_us, unread.get(name), has_reference=has_reference))
    features = {field_role.name for field_role in roles if field_role.role == "feature"}
    return FieldRoles(roles=tuple(roles), complete_share=_complete_share(columns, features, sample.n_events))


def _assign_role(stats: ColumnStatistics, now_us: int, unread: str | None, *, has_reference: bool) -> FieldRole:
    reason = next(_rejection_reasons(stats, now_us, unread, has_reference=has_reference), None)
    role: Role = "feature" if reason is None else "refused"
    return FieldRole(name=stats.column.name, role=role, reason=reason or _describe_range(stats))


def _rejection_reasons(
    stats: ColumnStatistics, now_us: int, unread: str | None, *, has_reference: bool
) -> Iterator[str]:
    """Yield the reasons against a field as a feature, the most obvious one first.

    `unread` is the reason why a field that looks like a time is not read as one. `has_reference` is True if the event
    time is known.
    """
    name, n, kinds = stats.column.name, stats.n_events, stats.kinds
    if not stats.n_present:
        yield "null in every event"
        return
    if is_time(stats, now_us, has_reference=has_reference):
        yield f"a time ({_describe_times(stats)})"
    if unread is not None:
        yield f"a time that is not read: {unread}"
    reasons_by_kind = {"list": "a nested list", "object": "an object that is nested too deeply", "bool": "boolean"}
    commonest_kind = kinds.most_common(1)[0][0]
    if commonest_kind in reasons_by_kind:
        yield reasons_by_kind[commonest_kind]
    if commonest_kind == "text":
        yield _describe_text(stats)
    if stats.n_present < NUMERIC_SHARE * n:
        missing = n - stats.n_present
        yield f"missing in {missing:,} of {n:,} events ({format_percent(missing / n)}), a feature may in 1%"
    if not stats.is_numeric:
        others = ", ".join(f"{kind} in {format_percent(k / n)}" for kind, k in kinds.most_common() if kind != "number")
        yield f"a number in only {format_percent(kinds['number'] / n)} of the events ({others})"
        return
    if not all(name.split(".")):
        yield "its name has an empty part, which no setting can name"
    if not is_storable_name(name):
        yield "its name has a NUL character or half a surrogate pair, which databases cannot store"
    yield from _identifier_reasons(stats)


def _identifier_reasons(stats: ColumnStatistics) -> Iterator[str]:
    """Yield the reasons why a column of numbers identifies events instead of describing them."""
    if stats.n_events > 1 and stats.n_distinct == 1:
        yield f"constant, always {stats.example}"
    if stats.is_integer and is_identifier(stats.column.name):
        yield "an identifier by its name"
    if _is_counter(stats):
        yield f"monotone counter, {format_number(stats.numbers.min())} to {format_number(stats.numbers.max())}"
    unique = stats.n_distinct >= _UNIQUE_SHARE * stats.n_present
    if stats.is_integer and unique and stats.n_present >= MIN_VALUES and _is_uniform(stats.numbers):
        yield f"near-unique integer, {stats.n_distinct:,} different in {stats.n_present:,}"


def _is_counter(stats: ColumnStatistics) -> bool:
    """Return True if the numbers of each partition never decrease, except for a rare reset."""
    steps = stats.steps
    rising = int((steps > 0).sum())
    if len(steps) < (_MIN_STEPS if stats.is_integer else MIN_VALUES) or rising < max(3, 0.05 * len(steps)):
        return False
    return float((steps >= 0).mean()) >= _UNIQUE_SHARE


def _is_uniform(numbers: np.ndarray[Any, np.dtype[np.float64]]) -> bool:
    """Return True if integers are nearly uniform over their range, like identifiers and hashes."""
    low, high = float(numbers.min()), float(numbers.max())
    scaled = (np.sort(numbers) - low) / (high - low)
    distance = np.abs(scaled - np.linspace(0, 1, len(numbers))).max()
    return bool(distance < _MAX_UNIFORM_DISTANCE)


def _select_time_field(
    columns: Sequence[ColumnStatistics], sample: RecordSample, now_us: int, max_future_us: int
) -> str | None:
    """Return the time field: present, in order and not ahead of the broker. The best name wins."""
    candidates = [
        stats
        for stats in columns
        if stats.n_present >= NUMERIC_SHARE * stats.n_events
        and is_time(stats, now_us, has_reference=True)
        and all(stats.column.name.split("."))
        and is_in_order(stats)
        and not _is_ahead(stats, sample, max_future_us)
    ]
    best = min(candidates, key=lambda stats: time_rank(stats.column.name), default=None)
    return None if best is None else best.column.name


def _is_ahead(stats: ColumnStatistics, sample: RecordSample, max_future_us: int) -> bool:
    """Return True if more than 1% of the times exceed the broker's timestamps by more than `max_future_us`."""
    if sample.stamps_us is None:
        return False
    ahead = 0
    for times, rows in zip(stats.times, stats.column.rows, strict=True):
        stamps = np.array([sample.stamps_us[row] for row in rows], np.int64)
        ahead += int((times > stamps + max_future_us).sum())
    return ahead > (1 - NUMERIC_SHARE) * stats.n_events


def _select_key_field(
    columns: Sequence[ColumnStatistics], sample: RecordSample, time: str | None, now_us: int
) -> str | None:
    """Return the field that equals the record keys, or without record keys a repeating field with a key-like name."""
    for stats in columns:
        if sample.keys is not None and stats.column.name != time and _matches_record_keys(stats, sample.keys):
            return stats.column.name
    if sample.keys is not None:
        return None
    named = [
        stats
        for stats in columns
        if stats.column.name != time
        and stats.n_present >= NUMERIC_SHARE * stats.n_events
        and 1 < stats.n_distinct <= _MAX_DISTINCT_SHARE * stats.n_present
        and not is_time(stats, now_us)
        and _can_identify(stats)
        and (is_identifier(stats.column.name) or (stats.kinds["text"] and _KEY_NAME.search(stats.column.name)))
    ]
    best = max(named, key=lambda stats: stats.n_distinct, default=None)
    return None if best is None else best.column.name


def _matches_record_keys(stats: ColumnStatistics, keys: Sequence[bytes | None]) -> bool:
    if stats.n_present < NUMERIC_SHARE * stats.n_events or not _can_identify(stats) or stats.n_distinct < 2:
        return False
    same = 0
    for values, rows in zip(stats.column.pieces, stats.column.rows, strict=True):
        key_texts = text_column([keys[row] for row in rows])
        same += sum(left == right for left, right in zip(text_column(values), key_texts, strict=True))
    return same >= NUMERIC_SHARE * stats.n_events


def _select_id_field(columns: Sequence[ColumnStatistics], excluded: tuple[str | None, ...], now_us: int) -> str | None:
    """Return the field with a distinct value in every event and the name or the format of an identifier."""
    unique = [
        stats
        for stats in columns
        if stats.column.name not in excluded
        and stats.n_present >= NUMERIC_SHARE * stats.n_events
        and stats.n_distinct >= _UNIQUE_SHARE * stats.n_present
        and not is_time(stats, now_us)
        and _can_identify(stats)
        and all(stats.column.name.split("."))
        and (is_identifier(stats.column.name) or _looks_like_uuids(stats))
    ]
    best = min(unique, key=lambda stats: not _PREFERRED_ID_NAME.search(stats.column.name), default=None)
    return None if best is None else best.column.name


def _can_identify(stats: ColumnStatistics) -> bool:
    return stats.kinds["text"] == stats.n_present or (stats.kinds["number"] == stats.n_present and stats.is_integer)


def _looks_like_uuids(stats: ColumnStatistics) -> bool:
    uuid = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
    return all(isinstance(value, str) and uuid.fullmatch(value) for value in stats.values[:MIN_VALUES])


def _complete_share(columns: Sequence[ColumnStatistics], features: set[str], n: int) -> float:
    """Return the share of events in which every feature is a number."""
    complete = np.ones(n, np.bool_)
    for stats in columns:
        if stats.column.name not in features or stats.kinds["number"] == n:
            continue
        is_number = np.zeros(n, np.bool_)
        for values, rows in zip(stats.column.pieces, stats.column.rows, strict=True):
            is_number[[row for row, value in zip(rows, values, strict=True) if value_kind(value) == "number"]] = True
        complete &= is_number
    return float(complete.mean()) if n else 1.0


def _describe_times(stats: ColumnStatistics) -> str:
    if stats.kinds["date"]:
        return "dates"
    if stats.kinds["text"]:
        return f"as text, such as {stats.example}"
    typical = float(np.median(np.abs(stats.numbers)))
    unit = next(unit for below, unit in MAGNITUDES if typical < below or below == math.inf)
    moments = np.concatenate(stats.times)
    moments = moments[moments >= 0]
    first, last = (format_short_time(int(moment)) for moment in (moments.min(), moments.max()))
    if COMPACT_RANGE[0] <= typical <= COMPACT_RANGE[1]:
        return f"YYYYMMDDhhmmss, {first} to {last}"
    return f"epoch in {unit}, {first} to {last}"


def _describe_text(stats: ColumnStatistics) -> str:
    if stats.n_present < NUMERIC_SHARE * stats.n_events:
        return f"text, present in {format_percent(stats.n_present / stats.n_events)} of the events"
    texts = [value for value in stats.values if isinstance(value, str)]
    for pattern, cause in _NUMBERS_AS_TEXT:
        if texts and all(map(pattern.fullmatch, texts)):
            return cause
    return f"text, such as {stats.example}"


def _describe_range(stats: ColumnStatistics) -> str:
    numbers = stats.numbers
    if stats.n_distinct == 1:
        return f"{format_number(numbers[0])} (the same value in every event)"
    quantiles = [float(value) for value in np.quantile(numbers, (0, 0.5, 1))]
    if all(value == round(value) and abs(value) < 1e15 for value in quantiles):
        low, median, high = map(format_number, quantiles)
    else:
        low, median, high = format_together(quantiles, 4)
    return f"{low} to {high}, median {median}"
