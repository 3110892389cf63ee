"""Counts of rejected records by reason and field, each with an example and a hint to the setting to correct."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from config.streams import EventSettings
from consumers.batch import RawBatch, Table
from consumers.codecs.dead_letters import DeadLetterBuilder, DeadLetterReason, RejectedRecord
from consumers.codecs.messages import parse_message
from consumers.codecs.text import clean_text
from consumers.decoded_batch import DeadLetters
from consumers.discovery.encoding import detect_encoding
from consumers.discovery.features import flatten_fields

_MAX_GROUPS = 50
_MAX_HINTS = 3
_MAX_FIELDS = 10
_MAX_NAME_CHARS = 60
_MIN_SIMILARITY = 0.5
_SEPARATORS = re.compile(r"[\s_\-]+")
_FIELD_REASONS = {DeadLetterReason.MISSING_FEATURE, DeadLetterReason.NO_TIME}
_ENCODING_REASONS = {
    DeadLetterReason.NOT_JSON,
    DeadLetterReason.NOT_MSGPACK,
    DeadLetterReason.NOT_AN_OBJECT,
    DeadLetterReason.WRONG_LENGTH,
    DeadLetterReason.TOO_LARGE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionGroup:
    """Rejected records with the same reason and field.

    Attributes:
        reason: The dead-letter reason.
        n: The number of records.
        detail: The detail of the first of them.
        hint: A remedy, such as the nearest name of an absent field; None if there is none.
    """

    reason: str
    n: int
    detail: str
    hint: str | None


class RejectionCounts:
    """Counts of the rejected records of one stream.

    Args:
        event: The event settings of the stream.
        features: The features of the codec that rejected the records.
    """

    def __init__(self, event: EventSettings, features: Sequence[str]) -> None:
        self._event = event
        time = () if event.time is None else (event.time.field,)
        self._names = tuple(dict.fromkeys((*features, *time)))
        self._known = frozenset(self._names)
        self._counts: Counter[tuple[str, str | None]] = Counter()
        self._examples: dict[tuple[str, str | None], tuple[str, str | None]] = {}
        self.n_rejected = 0

    def add(self, raw: RawBatch, dead_letters: DeadLetters) -> None:
        """Add the dead letters of one raw batch."""
        self.n_rejected += len(dead_letters)
        for i, (reason, detail) in enumerate(zip(dead_letters.reasons, dead_letters.details, strict=True)):
            field = detail.partition(": ")[0]
            key = (reason, field if field in self._known else None)
            if key not in self._examples:
                if len(self._examples) >= _MAX_GROUPS:
                    continue
                self._examples[key] = detail, self._find_hint(raw, int(dead_letters.offsets[i]), reason)
            self._counts[key] += 1

    def groups(self) -> tuple[RejectionGroup, ...]:
        """Return the groups, the largest first. Records of more than 50 groups are only counted in `n_rejected`."""
        return tuple(
            RejectionGroup(reason=key[0], n=n, detail=self._examples[key][0], hint=self._examples[key][1])
            for key, n in self._counts.most_common()
        )

    def _find_hint(self, raw: RawBatch, offset: int, reason: str) -> str | None:
        row = int(np.searchsorted(raw.offsets, offset))
        if row >= len(raw):
            return None  # a range that could not be read has no records
        if reason in _FIELD_REASONS:
            found = self._field_names(raw, row)
            return None if found is None else suggest_fields(self._names, found)
        if reason in _ENCODING_REASONS and not isinstance(raw.values, Table):
            detected = detect_encoding([raw.values[row]])
            if detected.encoding is not None and detected.encoding != self._event.format:
                return f"it looks like {detected.description}; set event.format: {detected.encoding}"
        return None

    def _field_names(self, raw: RawBatch, row: int) -> list[str] | None:
        """Return the names of the fields of a record; None if it is not an object."""
        if isinstance(raw.values, Table):
            return list(raw.values.columns)
        try:
            message = parse_message(raw.values[row], self._event.format)
        except RejectedRecord:
            return None
        return [name for name, _ in flatten_fields(message)] if isinstance(message, dict) else None


def count_unparsable(event: EventSettings, batches: Iterable[RawBatch]) -> RejectionCounts:
    """Count the records of a stream in which no field is a feature: no event can be built from any of them."""
    counts = RejectionCounts(event, ())
    for raw in batches:
        letters = DeadLetterBuilder()
        for row in range(len(raw)):
            try:
                if event.format != "float32" and not isinstance(raw.values, Table):
                    parse_message(raw.values[row], event.format)
                letters.add(row, DeadLetterReason.MISSING_FEATURE, "no field is a number in 99% of the records")
            except RejectedRecord as rejected:
                letters.add(row, rejected.reason, rejected.detail)
        counts.add(raw, letters.build(raw))
    return counts


def suggest_fields(wanted: Sequence[str], found: Sequence[str]) -> str | None:
    """Return the nearest field of a record for each configured name that the record lacks.

    Args:
        wanted: The configured names of features and time.
        found: The names of the fields of the record.

    Returns:
        A text such as "the field nearest to 'amount' is 'amout'"; None if the record has all fields.
    """
    present = set(found)
    absent = [name for name in wanted if name not in present]
    if not absent:
        return None
    if not found:
        return "the record has no fields"
    unused = [name for name in found if name not in wanted]
    hints: list[str] = []
    for name in absent:
        nearest = find_nearest_name(name, unused)
        if nearest is not None and len(hints) < _MAX_HINTS:
            hints.append(f"the field nearest to {_quote(name)} is {_quote(nearest)}")
    if hints:
        return "; ".join(hints)
    more = f" and {len(found) - _MAX_FIELDS} more" if len(found) > _MAX_FIELDS else ""
    nearest_first = sorted(found, key=lambda each: -_similarity(absent[0], each))
    return f"the fields of the record are {', '.join(map(_quote, nearest_first[:_MAX_FIELDS]))}{more}"


def find_nearest_name(name: str, names: Sequence[str]) -> str | None:
    """Return the name that differs least: in case and separators, then in nesting, then in letters; None if none."""
    if not names:
        return None
    for simplify in (_simplify, lambda text: _simplify(text.rpartition(".")[2])):
        wanted = simplify(name)
        for each in names:
            if simplify(each) == wanted:
                return each
    simplified = {_simplify(each): each for each in reversed(names)}
    matches = difflib.get_close_matches(_simplify(name), list(simplified), n=1, cutoff=_MIN_SIMILARITY)
    return simplified[matches[0]] if matches else None


def _similarity(left: str, right: str) -> float:
    return difflib.SequenceMatcher(None, _simplify(left), _simplify(right)).ratio()


def _simplify(name: str) -> str:
    return _SEPARATORS.sub("", name).casefold()


def _quote(name: str) -> str:
    return repr(clean_text(name, _MAX_NAME_CHARS))
