"""Consumers: what each field of a stream's events is good for: feature, key, id, time, or nothing, and why.

A feature is a number that says how an event is. Numbers that only say which event it is, or when it came, make every
later event strange: identifiers, counters and times are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from consumers.batch import Int64
from consumers.codecs.text import text_column
from consumers.discovery.column_statistics import (
    MIN_VALUES,
    ColumnStatistics,
    format_number,
    format_percent,
    is_identifier,
    is_in_order,
    is_time,
    lateness_us,
    time_rank,
    value_kind,
)
from consumers.discovery.features import NUMERIC_SHARE
from consumers.discovery.sample import RecordSample
from consumers.times import MAGNITUDES, times_us

Role = Literal["feature", "key", "id", "time", "refused"]

_MIN_STEPS = 9
_UNIQUE_SHARE = 0.99
_MAX_DISTINCT_SHARE = 0.5
_MAX_UNIFORM_DISTANCE = 0.15
"""Identifiers are spread evenly over their range, to this distance of the distribution functions; measures are not."""

_MIN_IDENTIFIER_MEDIAN = 1e9
_MIN_SPAN_S = 1.0
_KEY_NAME = re.compile(
    r"(?:^|[._\- ])(?:key|user|customer|account|device|host|sensor|client|merchant|card)(?:$|[_\-])", re.IGNORECASE
)
_PREFERRED_ID_NAME = re.compile(r"(?:^|\.)(?:event[_-]?id|uuid|guid|id)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRole:
    """What one field is used as, and why."""

    name: str
    role: Role
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRoles:
    """The verdicts on all fields, in the order of first appearance."""

    roles: tuple[FieldRole, ...]
    complete_share: float = 1.0
    """The share of events that have all features."""

    def names(self, role: Role) -> tuple[str, ...]:
        """Return the fields of one role."""
        return tuple(verdict.name for verdict in self.roles if verdict.role == role)

    def first(self, role: Role) -> str | None:
        """Return the field of a role that at most one has."""
        return next(iter(self.names(role)), None)


def assign_roles(sample: RecordSample, now_us: int, *, max_future_us: int) -> FieldRoles:
    """Judge every field of a sample.

    Args:
        sample: The first events.
        now_us: The time of asking: numbers that are times of about now are no features.
        max_future_us: A field whose times lie further ahead of the broker's is not taken as the time.
    """
    found = [ColumnStatistics(column=column, n_events=sample.n_events) for column in sample.columns.values()]
    time = None if sample.unnamed else _select_time_field(found, sample, now_us, max_future_us)
    key = None if sample.unnamed else _select_key_field(found, sample, time, now_us)
    identity = None if sample.unnamed else _select_id_field(found, (time, key), now_us)
    verdicts = []
    for facts in found:
        name = facts.column.name
        if name == time:
            verdicts.append(FieldRole(name=name, role="time", reason=_describe_times(facts)))
        elif name == key:
            verdicts.append(
                FieldRole(name=name, role="key", reason=f"{facts.n_distinct:,} different in {facts.n_present:,}")
            )
        elif name == identity:
            verdicts.append(
                FieldRole(name=name, role="id", reason=f"different in every event, such as {facts.example}")
            )
        else:
            verdicts.append(_assign_role(facts, now_us))
    features = {verdict.name for verdict in verdicts if verdict.role == "feature"}
    return FieldRoles(roles=tuple(verdicts), complete_share=_complete_share(found, features, sample.n_events))


def _assign_role(facts: ColumnStatistics, now_us: int) -> FieldRole:
    why = next(_rejection_reasons(facts, now_us), None)
    role: Role = "feature" if why is None else "refused"
    return FieldRole(name=facts.column.name, role=role, reason=why or _describe_range(facts))


def _rejection_reasons(facts: ColumnStatistics, now_us: int) -> Iterator[str]:
    """Yield why a field cannot be a feature, the plainest reason first; nothing where it can."""
    name, n, kinds = facts.column.name, facts.n_events, facts.kinds
    if not facts.n_present:
        yield "null in every event"
        return
    if is_time(facts, now_us):
        yield f"a time ({_describe_times(facts)})"
    words = {"list": "a nested list", "object": "an object that is nested too deeply", "bool": "boolean"}
    most = kinds.most_common(1)[0][0]
    if most in words:
        yield words[most]
    if most == "text":
        yield _describe_text(facts)
    if facts.n_present < NUMERIC_SHARE * n:
        yield f"present in {format_percent(facts.n_present / n)} of the events, a feature needs 99%"
    if not facts.is_numeric:
        others = ", ".join(f"{kind} in {format_percent(k / n)}" for kind, k in kinds.most_common() if kind != "number")
        yield f"a number in only {format_percent(kinds['number'] / n)} of the events ({others})"
        return
    if not all(name.split(".")):
        yield "its name has an empty part, which no setting can name"
    yield from _identifier_reasons(facts)


def _identifier_reasons(facts: ColumnStatistics) -> Iterator[str]:
    """Yield why a column of numbers says which event it is, or nothing, and not how it is."""
    if facts.n_events > 1 and facts.n_distinct == 1:
        yield f"constant, always {facts.example}"
    if facts.is_integer and is_identifier(facts.column.name):
        yield "an identifier by its name"
    if _is_counter(facts):
        yield f"monotone counter, {format_number(facts.numbers.min())} to {format_number(facts.numbers.max())}"
    unique = facts.n_distinct >= _UNIQUE_SHARE * facts.n_present
    if facts.is_integer and unique and facts.n_present >= MIN_VALUES and _is_uniform(facts.numbers):
        yield f"near-unique integer, {facts.n_distinct:,} different in {facts.n_present:,}"


def _is_counter(facts: ColumnStatistics) -> bool:
    """Return whether numbers only rise within a partition, but for a rare reset."""
    steps = facts.steps
    rising = int((steps > 0).sum())
    if len(steps) < (_MIN_STEPS if facts.is_integer else MIN_VALUES) or rising < max(3, 0.05 * len(steps)):
        return False
    return float((steps >= 0).mean()) >= _UNIQUE_SHARE


def _is_uniform(numbers: np.ndarray[Any, np.dtype[np.float64]]) -> bool:
    """Return whether whole numbers look drawn from a range (identifiers, hashes) rather than measured."""
    low, high = float(numbers.min()), float(numbers.max())
    even = (np.sort(numbers) - low) / (high - low)
    distance = np.abs(even - np.linspace(0, 1, len(numbers))).max()
    return bool(distance < _MAX_UNIFORM_DISTANCE or abs(np.median(numbers)) > _MIN_IDENTIFIER_MEDIAN)


def _select_time_field(
    found: Sequence[ColumnStatistics], sample: RecordSample, now_us: int, max_future_us: int
) -> str | None:
    """Return the field that is the event's time: present, in order, not ahead of the broker; the best name first."""
    candidates = [
        facts
        for facts in found
        if facts.n_present >= NUMERIC_SHARE * facts.n_events
        and is_time(facts, now_us)
        and all(facts.column.name.split("."))
        and is_in_order(facts)
        and not _is_ahead(facts, sample, max_future_us)
    ]
    best = min(candidates, key=lambda facts: time_rank(facts.column.name), default=None)
    return None if best is None else best.column.name


def _is_ahead(facts: ColumnStatistics, sample: RecordSample, max_future_us: int) -> bool:
    """Return whether too many times lie further ahead of the broker's than events may."""
    if sample.stamps_us is None:
        return False
    ahead = 0
    for times, rows in zip(facts.times, facts.column.rows, strict=True):
        stamps = np.array([sample.stamps_us[row] for row in rows], np.int64)
        ahead += int((times > stamps + max_future_us).sum())
    return ahead > (1 - NUMERIC_SHARE) * facts.n_events


def _select_key_field(
    found: Sequence[ColumnStatistics], sample: RecordSample, time: str | None, now_us: int
) -> str | None:
    """Return the field that the log's keys are, or else one that repeats and is called like a key."""
    for facts in found:
        if sample.keys is not None and facts.column.name != time and _matches_record_keys(facts, sample.keys):
            return facts.column.name
    if sample.keys is not None:
        return None
    named = [
        facts
        for facts in found
        if facts.column.name != time
        and facts.n_present >= NUMERIC_SHARE * facts.n_events
        and 1 < facts.n_distinct <= _MAX_DISTINCT_SHARE * facts.n_present
        and not is_time(facts, now_us)
        and _can_identify(facts)
        and (is_identifier(facts.column.name) or (facts.kinds["text"] and _KEY_NAME.search(facts.column.name)))
    ]
    best = max(named, key=lambda facts: facts.n_distinct, default=None)
    return None if best is None else best.column.name


def _matches_record_keys(facts: ColumnStatistics, keys: Sequence[bytes | None]) -> bool:
    if facts.n_present < NUMERIC_SHARE * facts.n_events or not _can_identify(facts) or facts.n_distinct < 2:
        return False
    same = 0
    for values, rows in zip(facts.column.pieces, facts.column.rows, strict=True):
        known = text_column([keys[row] for row in rows])
        same += sum(left == right for left, right in zip(text_column(values), known, strict=True))
    return same >= NUMERIC_SHARE * facts.n_events


def _select_id_field(found: Sequence[ColumnStatistics], taken: tuple[str | None, ...], now_us: int) -> str | None:
    """Return the field that is another one in every event and is called, or looks, like an identifier."""
    unique = [
        facts
        for facts in found
        if facts.column.name not in taken
        and facts.n_present >= NUMERIC_SHARE * facts.n_events
        and facts.n_distinct >= _UNIQUE_SHARE * facts.n_present
        and not is_time(facts, now_us)
        and _can_identify(facts)
        and all(facts.column.name.split("."))
        and (is_identifier(facts.column.name) or _looks_like_uuids(facts))
    ]
    best = min(unique, key=lambda facts: not _PREFERRED_ID_NAME.search(facts.column.name), default=None)
    return None if best is None else best.column.name


def _can_identify(facts: ColumnStatistics) -> bool:
    return facts.kinds["text"] == facts.n_present or (facts.kinds["number"] == facts.n_present and facts.is_integer)


def _looks_like_uuids(facts: ColumnStatistics) -> bool:
    uuid = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
    return all(isinstance(value, str) and uuid.fullmatch(value) for value in facts.values[:MIN_VALUES])


def _complete_share(found: Sequence[ColumnStatistics], features: set[str], n: int) -> float:
    """Return the share of events that have every feature as a number."""
    complete = np.ones(n, np.bool_)
    for facts in found:
        if facts.column.name not in features or facts.kinds["number"] == n:
            continue
        here = np.zeros(n, np.bool_)
        for values, rows in zip(facts.column.pieces, facts.column.rows, strict=True):
            here[[row for row, value in zip(rows, values, strict=True) if value_kind(value) == "number"]] = True
        complete &= here
    return float(complete.mean()) if n else 1.0


def _describe_times(facts: ColumnStatistics) -> str:
    if facts.kinds["date"]:
        return "dates"
    if facts.kinds["text"]:
        return f"as text, such as {facts.example}"
    typical = float(np.median(np.abs(facts.numbers)))
    unit = next(unit for below, unit in MAGNITUDES if typical < below or below == math.inf)
    return f"epoch in {unit}"


def _describe_text(facts: ColumnStatistics) -> str:
    if facts.n_present < NUMERIC_SHARE * facts.n_events:
        return f"text, present in {format_percent(facts.n_present / facts.n_events)} of the events"
    texts = [value for value in facts.values if isinstance(value, str)]
    if texts and all(re.fullmatch(r"\s*[+-]?\d+(\.\d+)?([eE][+-]?\d+)?\s*", text) for text in texts):
        return "numbers written as text; have the producer write them as numbers"
    return f"text, such as {facts.example}"


def _describe_range(facts: ColumnStatistics) -> str:
    numbers = facts.numbers
    if facts.n_distinct == 1:
        return f"{format_number(numbers[0])} (one event says nothing about it)"
    low, median, high = (format_number(float(value)) for value in np.quantile(numbers, (0, 0.5, 1)))
    return f"{low} to {high}, median {median}"


def event_times_us(sample: RecordSample, fields: FieldRoles) -> list[Int64]:
    """Return the events' times of each partition: the time field's, or else the broker's; nothing without either."""
    name = fields.first("time")
    if name is not None:
        return [times_us(piece, "auto") for piece in sample.columns[name].pieces]
    if sample.stamps_us is None:
        return []
    stamps, partitions = np.array(sample.stamps_us, np.int64), np.array(sample.partitions)
    return [stamps[partitions == partition] for partition in np.unique(partitions)]


def estimate_volume(sample: RecordSample, fields: FieldRoles) -> tuple[float | None, int]:
    """Return how many events come in a second, and by how many microseconds one in a hundred is late.

    The rate is None where the times do not tell it: none, or all about the same, as after a bulk load.
    """
    pieces = [piece[piece >= 0] for piece in event_times_us(sample, fields)]
    late = lateness_us(pieces)
    lateness = int(np.quantile(late, 0.99)) if len(late) else 0
    spans = [(len(piece), float(piece.max() - piece.min()) / 1e6) for piece in pieces if len(piece) > 1]
    told = [(n - 1) / span_s for n, span_s in spans if span_s >= _MIN_SPAN_S]
    return (sum(told) if told else None), lateness
