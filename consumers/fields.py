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
from consumers.discovery import NUMERIC_SHARE
from consumers.facts import (
    FEW,
    Facts,
    is_identifier,
    is_in_order,
    is_time,
    kind_of,
    late_by_us,
    number_words,
    percent_words,
    time_rank,
)
from consumers.sample import Sample
from consumers.text import text_column
from consumers.times import MAGNITUDES, times_us

Role = Literal["feature", "key", "id", "time", "refused"]

_FEW_STEPS = 9
_UNIQUE_SHARE = 0.99
_MOST = 0.5
_EVEN = 0.15
"""Identifiers are spread evenly over their range, to this distance of the distribution functions; measures are not."""

_HUGE = 1e9
_LEAST_SPAN_S = 1.0
_KEY_NAME = re.compile(
    r"(?:^|[._\- ])(?:key|user|customer|account|device|host|sensor|client|merchant|card)(?:$|[_\-])", re.IGNORECASE
)
_BEST_ID = re.compile(r"(?:^|\.)(?:event[_-]?id|uuid|guid|id)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one field is used as, and why."""

    name: str
    role: Role
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The verdicts on all fields, in the order of first appearance."""

    verdicts: tuple[Verdict, ...]
    complete_share: float = 1.0
    """The share of events that have all features."""

    def names(self, role: Role) -> tuple[str, ...]:
        """Return the fields of one role."""
        return tuple(verdict.name for verdict in self.verdicts if verdict.role == role)

    def first(self, role: Role) -> str | None:
        """Return the field of a role that at most one has."""
        return next(iter(self.names(role)), None)


def judge_fields(sample: Sample, now_us: int, *, max_future_us: int) -> Fields:
    """Judge every field of a sample.

    Args:
        sample: The first events.
        now_us: The time of asking: numbers that are times of about now are no features.
        max_future_us: A field whose times lie further ahead of the broker's is not taken as the time.
    """
    found = [Facts(column=column, n=sample.n) for column in sample.columns.values()]
    time = None if sample.bare else _pick_time(found, sample, now_us, max_future_us)
    key = None if sample.bare else _pick_key(found, sample, time, now_us)
    identity = None if sample.bare else _pick_id(found, (time, key), now_us)
    verdicts = []
    for facts in found:
        name = facts.column.name
        if name == time:
            verdicts.append(Verdict(name=name, role="time", why=_time_words(facts)))
        elif name == key:
            verdicts.append(Verdict(name=name, role="key", why=f"{facts.distinct:,} different in {facts.present:,}"))
        elif name == identity:
            verdicts.append(Verdict(name=name, role="id", why=f"different in every event, such as {facts.example}"))
        else:
            verdicts.append(_judge(facts, now_us))
    features = {verdict.name for verdict in verdicts if verdict.role == "feature"}
    return Fields(verdicts=tuple(verdicts), complete_share=_complete(found, features, sample.n))


def _judge(facts: Facts, now_us: int) -> Verdict:
    why = next(_refusals(facts, now_us), None)
    role: Role = "feature" if why is None else "refused"
    return Verdict(name=facts.column.name, role=role, why=why or _range(facts))


def _refusals(facts: Facts, now_us: int) -> Iterator[str]:
    """Yield why a field cannot be a feature, the plainest reason first; nothing where it can."""
    name, n, kinds = facts.column.name, facts.n, facts.kinds
    if not facts.present:
        yield "null in every event"
        return
    if is_time(facts, now_us):
        yield f"a time ({_time_words(facts)})"
    words = {"list": "a nested list", "object": "an object that is nested too deeply", "bool": "boolean"}
    most = kinds.most_common(1)[0][0]
    if most in words:
        yield words[most]
    if most == "text":
        yield _text_words(facts)
    if facts.present < NUMERIC_SHARE * n:
        yield f"present in {percent_words(facts.present / n)} of the events, a feature needs 99%"
    if not facts.is_numeric:
        others = ", ".join(f"{kind} in {percent_words(k / n)}" for kind, k in kinds.most_common() if kind != "number")
        yield f"a number in only {percent_words(kinds['number'] / n)} of the events ({others})"
        return
    if not all(name.split(".")):
        yield "its name has an empty part, which no setting can name"
    yield from _says_which(facts)


def _says_which(facts: Facts) -> Iterator[str]:
    """Yield why a column of numbers says which event it is, or nothing, and not how it is."""
    if facts.n > 1 and facts.distinct == 1:
        yield f"constant, always {facts.example}"
    if facts.is_whole and is_identifier(facts.column.name):
        yield "an identifier by its name"
    if _is_counter(facts):
        yield f"monotone counter, {number_words(facts.numbers.min())} to {number_words(facts.numbers.max())}"
    unique = facts.distinct >= _UNIQUE_SHARE * facts.present
    if facts.is_whole and unique and facts.present >= FEW and _is_spread_like_ids(facts.numbers):
        yield f"near-unique integer, {facts.distinct:,} different in {facts.present:,}"


def _is_counter(facts: Facts) -> bool:
    """Return whether numbers only rise within a partition, but for a rare reset."""
    steps = facts.steps
    rising = int((steps > 0).sum())
    if len(steps) < (_FEW_STEPS if facts.is_whole else FEW) or rising < max(3, 0.05 * len(steps)):
        return False
    return float((steps >= 0).mean()) >= _UNIQUE_SHARE


def _is_spread_like_ids(numbers: np.ndarray[Any, np.dtype[np.float64]]) -> bool:
    """Return whether whole numbers look drawn from a range (identifiers, hashes) rather than measured."""
    low, high = float(numbers.min()), float(numbers.max())
    even = (np.sort(numbers) - low) / (high - low)
    distance = np.abs(even - np.linspace(0, 1, len(numbers))).max()
    return bool(distance < _EVEN or abs(np.median(numbers)) > _HUGE)


def _pick_time(found: Sequence[Facts], sample: Sample, now_us: int, max_future_us: int) -> str | None:
    """Return the field that is the event's time: present, in order, not ahead of the broker; the best name first."""
    candidates = [
        facts
        for facts in found
        if facts.present >= NUMERIC_SHARE * facts.n
        and is_time(facts, now_us)
        and all(facts.column.name.split("."))
        and is_in_order(facts)
        and not _is_ahead(facts, sample, max_future_us)
    ]
    best = min(candidates, key=lambda facts: time_rank(facts.column.name), default=None)
    return None if best is None else best.column.name


def _is_ahead(facts: Facts, sample: Sample, max_future_us: int) -> bool:
    """Return whether too many times lie further ahead of the broker's than events may."""
    if sample.stamps_us is None:
        return False
    ahead = 0
    for times, rows in zip(facts.times, facts.column.rows, strict=True):
        stamps = np.array([sample.stamps_us[row] for row in rows], np.int64)
        ahead += int((times > stamps + max_future_us).sum())
    return ahead > (1 - NUMERIC_SHARE) * facts.n


def _pick_key(found: Sequence[Facts], sample: Sample, time: str | None, now_us: int) -> str | None:
    """Return the field that the log's keys are, or else one that repeats and is called like a key."""
    for facts in found:
        if sample.keys is not None and facts.column.name != time and _are_keys(facts, sample.keys):
            return facts.column.name
    if sample.keys is not None:
        return None
    named = [
        facts
        for facts in found
        if facts.column.name != time
        and facts.present >= NUMERIC_SHARE * facts.n
        and 1 < facts.distinct <= _MOST * facts.present
        and not is_time(facts, now_us)
        and _can_identify(facts)
        and (is_identifier(facts.column.name) or (facts.kinds["text"] and _KEY_NAME.search(facts.column.name)))
    ]
    best = max(named, key=lambda facts: facts.distinct, default=None)
    return None if best is None else best.column.name


def _are_keys(facts: Facts, keys: Sequence[bytes | None]) -> bool:
    if facts.present < NUMERIC_SHARE * facts.n or not _can_identify(facts) or facts.distinct < 2:
        return False
    same = 0
    for values, rows in zip(facts.column.pieces, facts.column.rows, strict=True):
        known = text_column([keys[row] for row in rows])
        same += sum(left == right for left, right in zip(text_column(values), known, strict=True))
    return same >= NUMERIC_SHARE * facts.n


def _pick_id(found: Sequence[Facts], taken: tuple[str | None, ...], now_us: int) -> str | None:
    """Return the field that is another one in every event and is called, or looks, like an identifier."""
    unique = [
        facts
        for facts in found
        if facts.column.name not in taken
        and facts.present >= NUMERIC_SHARE * facts.n
        and facts.distinct >= _UNIQUE_SHARE * facts.present
        and not is_time(facts, now_us)
        and _can_identify(facts)
        and all(facts.column.name.split("."))
        and (is_identifier(facts.column.name) or _looks_like_uuids(facts))
    ]
    best = min(unique, key=lambda facts: not _BEST_ID.search(facts.column.name), default=None)
    return None if best is None else best.column.name


def _can_identify(facts: Facts) -> bool:
    return facts.kinds["text"] == facts.present or (facts.kinds["number"] == facts.present and facts.is_whole)


def _looks_like_uuids(facts: Facts) -> bool:
    uuid = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
    return all(isinstance(value, str) and uuid.fullmatch(value) for value in facts.values[:FEW])


def _complete(found: Sequence[Facts], features: set[str], n: int) -> float:
    """Return the share of events that have every feature as a number."""
    complete = np.ones(n, np.bool_)
    for facts in found:
        if facts.column.name not in features or facts.kinds["number"] == n:
            continue
        here = np.zeros(n, np.bool_)
        for values, rows in zip(facts.column.pieces, facts.column.rows, strict=True):
            here[[row for row, value in zip(rows, values, strict=True) if kind_of(value) == "number"]] = True
        complete &= here
    return float(complete.mean()) if n else 1.0


def _time_words(facts: Facts) -> str:
    if facts.kinds["date"]:
        return "dates"
    if facts.kinds["text"]:
        return f"as text, such as {facts.example}"
    typical = float(np.median(np.abs(facts.numbers)))
    unit = next(unit for below, unit in MAGNITUDES if typical < below or below == math.inf)
    return f"epoch in {unit}"


def _text_words(facts: Facts) -> str:
    if facts.present < NUMERIC_SHARE * facts.n:
        return f"text, present in {percent_words(facts.present / facts.n)} of the events"
    texts = [value for value in facts.values if isinstance(value, str)]
    if texts and all(re.fullmatch(r"\s*[+-]?\d+(\.\d+)?([eE][+-]?\d+)?\s*", text) for text in texts):
        return "numbers written as text; have the producer write them as numbers"
    return f"text, such as {facts.example}"


def _range(facts: Facts) -> str:
    numbers = facts.numbers
    if facts.distinct == 1:
        return f"{number_words(numbers[0])} (one event says nothing about it)"
    low, median, high = (number_words(float(value)) for value in np.quantile(numbers, (0, 0.5, 1)))
    return f"{low} to {high}, median {median}"


def times_of(sample: Sample, fields: Fields) -> list[Int64]:
    """Return the events' times of each partition: the time field's, or else the broker's; nothing without either."""
    name = fields.first("time")
    if name is not None:
        return [times_us(piece, "auto") for piece in sample.columns[name].pieces]
    if sample.stamps_us is None:
        return []
    stamps, partitions = np.array(sample.stamps_us, np.int64), np.array(sample.partitions)
    return [stamps[partitions == partition] for partition in np.unique(partitions)]


def volume_of(sample: Sample, fields: Fields) -> tuple[float | None, int]:
    """Return how many events come in a second, and by how many microseconds one in a hundred is late.

    The rate is None where the times do not tell it: none, or all about the same, as after a bulk load.
    """
    pieces = [piece[piece >= 0] for piece in times_of(sample, fields)]
    late = late_by_us(pieces)
    lateness = int(np.quantile(late, 0.99)) if len(late) else 0
    spans = [(len(piece), float(piece.max() - piece.min()) / 1e6) for piece in pieces if len(piece) > 1]
    told = [(n - 1) / span_s for n, span_s in spans if span_s >= _LEAST_SPAN_S]
    return (sum(told) if told else None), lateness
