"""Detection of a stream's features from its first records."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from config.errors import ConfigError
from config.streams import EventSettings
from consumers.batch import RawBatch, Table
from consumers.codecs.dead_letters import RejectedRecord
from consumers.codecs.messages import parse_message
from consumers.codecs.table import check_columns, parse_cell

NUMERIC_SHARE = 0.99
"""A field is a feature if it is a finite number in at least this share of the events."""

MAX_FEATURES = 1_000
"""Maximum number of features that `features: auto` selects. Configured names have no such bound."""

MAX_DEPTH = 8

_UNSTORABLE = re.compile("[\\x00\\ud800-\\udfff]")


def discover_features(event: EventSettings, raw_batches: Sequence[RawBatch]) -> tuple[str, ...]:
    """Return the names of the features, in order of first appearance.

    Configured names are returned unchanged. With `features: auto` the features are the fields that are numbers
    in at least 99% of the records, except time, key and id. Nested fields have dotted names. Lists of numbers
    and float32 records have the features x0, x1, ..., with the most frequent length. The result is
    deterministic.

    Raises:
        ConfigError: No field is a feature, more than MAX_FEATURES are, or a table lacks a configured column.
    """
    tables = [raw.values for raw in raw_batches if isinstance(raw.values, Table)]
    if tables:
        _check_table_columns(event, list(tables[0].columns))
    if event.features != "auto":
        return tuple(event.features)
    fields = {event.time.field if event.time else None, event.key, event.id}
    if tables:
        rows = sum(len(table) - len(table.row_errors) for table in tables)
        names = _select_numeric_fields(map(_mark_numeric_cells, _table_rows(tables)), rows, fields)
    elif event.format == "float32":
        names = _name_by_length(len(value) / 4 for value in _present_values(raw_batches))
    else:
        names = _find_message_features(event, raw_batches, fields)
    if not names:
        n = sum(map(len, raw_batches))
        raise ConfigError(
            f"event.features: no field is a number in 99% of the first {n} events; name them, or check "
            f"event.format ({event.format})"
        )
    refuse_too_many_features(names)
    return names


def refuse_too_many_features(names: Sequence[str]) -> None:
    """Check that automatically chosen features are at most MAX_FEATURES.

    Raises:
        ConfigError: There are more.
    """
    if len(names) > MAX_FEATURES:
        raise ConfigError(
            f"event.features: auto found {len(names):,} numeric fields ({', '.join(names[:3])}, ...), "
            f"at most {MAX_FEATURES:,} are taken automatically; name the fields that describe an event"
        )


def is_storable_name(name: str) -> bool:
    """Return True if databases can store the name: without NUL and without lone surrogates."""
    return not _UNSTORABLE.search(name)


def _present_values(raw_batches: Iterable[RawBatch]) -> Iterator[bytes]:
    for raw in raw_batches:
        assert not isinstance(raw.values, Table)
        yield from (value for value in raw.values if value)


def _find_message_features(
    event: EventSettings, raw_batches: Iterable[RawBatch], fields: set[str | None]
) -> tuple[str, ...]:
    objects: list[dict[Any, Any]] = []
    lengths: list[float] = []
    for value in _present_values(raw_batches):
        if len(value) > event.max_size:
            continue
        try:
            message = parse_message(value, event.format)
        except RejectedRecord:
            continue
        if isinstance(message, dict):
            objects.append(message)
        elif isinstance(message, list):
            lengths.append(len(message))
    if len(lengths) > len(objects):
        return _name_by_length(lengths)
    numbers = ({name: _is_number(value) for name, value in flatten_fields(message)} for message in objects)
    return _select_numeric_fields(numbers, len(objects), fields)


def _name_by_length(lengths: Iterable[float]) -> tuple[str, ...]:
    """Return x0, x1, ... for the most frequent integral length. Ties go to the first length."""
    counted = Counter(length for length in lengths if length >= 1 and length == int(length))
    if not counted:
        return ()
    return tuple(f"x{i}" for i in range(int(counted.most_common(1)[0][0])))


def _select_numeric_fields(events: Iterable[Mapping[str, bool]], n: int, fields: set[str | None]) -> tuple[str, ...]:
    """Return the fields that are numeric in at least NUMERIC_SHARE of the events.

    A field that is absent from the first 1% of the events and one more cannot reach that share. Its name is not
    counted, so that producers that invent a name for each event do not fill the memory.

    Args:
        events: For each event a mapping of field name to True if its value is a number.
        n: The number of events.
        fields: The fields of time, key and id, which are excluded.
    """
    numeric: dict[str, int] = {}
    n_first = int((1 - NUMERIC_SHARE) * n) + 2
    for i, found in enumerate(events):
        for name, is_number in found.items():
            if i < n_first or name in numeric:
                numeric[name] = numeric.get(name, 0) + is_number
    return tuple(
        name
        for name, k in numeric.items()
        if name not in fields and k >= NUMERIC_SHARE * n > 0 and is_storable_name(name)
    )


def flatten_fields(message: Mapping[Any, Any], path: str = "", depth: int = 1) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a message in order, with dotted names. A key with dots takes precedence over a path."""
    for name, value in message.items():
        if not isinstance(name, str) or not name:
            continue
        if isinstance(value, dict) and depth < MAX_DEPTH:
            for inner, leaf in flatten_fields(value, f"{path}{name}.", depth + 1):
                if path or inner not in message:
                    yield inner, leaf
        else:
            yield f"{path}{name}", value


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < math.inf


def _check_table_columns(event: EventSettings, columns: Sequence[str]) -> None:
    wanted = [(f"event.{field}", name) for field, name in (("key", event.key), ("id", event.id)) if name]
    if event.time is not None:
        wanted.append(("event.time.field", event.time.field))
    if event.features != "auto":
        wanted.extend(("event.features", name) for name in event.features)
    check_columns(columns, wanted)


def _table_rows(tables: Iterable[Table]) -> Iterator[dict[str, object]]:
    for table in tables:
        for row in range(len(table)):
            if row not in table.row_errors:
                yield {name: column[row] for name, column in table.columns.items()}


def _mark_numeric_cells(cells: Mapping[str, object]) -> dict[str, bool]:
    return {name: _is_numeric_cell(cell) for name, cell in cells.items()}


def _is_numeric_cell(cell: object) -> bool:
    try:
        parse_cell("", cell, mean_if_missing=False)
    except RejectedRecord:
        return False
    return True
