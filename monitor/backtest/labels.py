"""Labels of recorded events: single events or intervals of time.

A labels file is CSV or JSON lines. Each row is one of:

* an interval: `start` and `end`, as RFC 3339 or as numbers since 1970;
* an event: `id` (as in `event.id`), or `offset` or `row` (from 0). `label` and `burst` are optional: `label` is the
  class, `burst` the number of the burst, 0 for none.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import ConfigError
from consumers.decoded_batch import Events
from consumers.times import time_us

_ID_COLUMNS = ("id", "event_id")
_OFFSET_COLUMNS = ("offset", "row", "source_offset")
_LABEL_COLUMNS = ("label", "is_attack", "is_anomaly", "is_outlier", "anomaly", "outlier", "attack", "y")
_BURST_COLUMNS = ("burst",)
_NORMAL_LABELS = frozenset({"", "0", "0.0", "false", "no", "normal", "none", "null"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Anomalous interval of time; `events` is the number of labelled events, None for a labelled interval."""

    start_us: int
    end_us: int
    events: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Intervals, or labelled events by id or by offset, each with its burst number (0: group by time)."""

    path: Path
    intervals: Sequence[Burst] = ()
    by_id: Mapping[str, int] | None = None
    by_offset: Mapping[int, int] | None = None

    @property
    def of_events(self) -> bool:
        """Return whether single events are labelled."""
        return self.by_id is not None or self.by_offset is not None

    def label_events(self, events: Events) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return a mask of the labelled events, and the burst number of each event (0 where not labelled).

        Raises:
            ConfigError: The labels are by id, but the stream's events have no ids.
        """
        if self.by_offset is not None:
            found = [self.by_offset.get(offset) for offset in events.offsets.tolist()]
        elif events.ids is None and len(events):
            raise ConfigError(
                f"{self.path} labels events by id, but the stream's events have no ids: set event.id to the field "
                "with the id, or label events by row"
            )
        else:
            assert self.by_id is not None, "only called for labelled events"
            found = [None if name is None else self.by_id.get(name) for name in events.ids or ()]
        labelled = np.array([burst is not None for burst in found], np.bool_)
        return labelled, np.array([burst or 0 for burst in found], np.int64)


def read_labels(path: Path) -> Labels:
    """Read a labels file.

    Raises:
        ConfigError: The file cannot be read, or its columns name neither intervals nor events.
    """
    rows = list(_read_rows(path))
    if not rows:
        raise ConfigError(f"{path} has no labels: write one row per labelled event or interval")
    columns = {name: None for row in rows for name in row}
    if {"start", "end"} <= columns.keys():
        return Labels(path=path, intervals=_parse_intervals(path, rows))
    label = next((name for name in _LABEL_COLUMNS if name in columns), None)
    outliers = [row for row in rows if label is None or _is_anomalous(row.get(label))]
    id_column = next((name for name in _ID_COLUMNS if name in columns), None)
    offset_column = next((name for name in _OFFSET_COLUMNS if name in columns), None)
    if id_column is not None:
        return Labels(path=path, by_id={_to_text(row.get(id_column)): _parse_burst(path, row) for row in outliers})
    if offset_column is not None:
        return Labels(
            path=path, by_offset={_parse_number(path, row, offset_column): _parse_burst(path, row) for row in outliers}
        )
    raise ConfigError(
        f"{path} has the columns {', '.join(columns)}: labels need start and end, or id or row with label "
        "(and optionally burst)"
    )


def group_bursts(times_us: NDArray[np.int64], bursts: NDArray[np.int64], *, apart_us: int) -> list[Burst]:
    """Group labelled events into bursts, in order of time.

    Args:
        times_us: Times of the labelled events (n,).
        bursts: Burst number of each event (n,); events of burst 0 are grouped by time.
        apart_us: Events of burst 0 further apart than this belong to different bursts.
    """
    numbers = bursts.copy()
    ungrouped = np.flatnonzero(numbers == 0)
    ungrouped = ungrouped[np.argsort(times_us[ungrouped], kind="stable")]
    breaks = np.concatenate([[False], np.diff(times_us[ungrouped]) > apart_us])[: len(ungrouped)]
    numbers[ungrouped] = -1 - np.cumsum(breaks)
    found = []
    for number in np.unique(numbers):
        own = times_us[numbers == number]
        found.append(Burst(start_us=int(own.min()), end_us=int(own.max()) + 1, events=len(own)))
    return sorted(found, key=lambda burst: burst.start_us)


def _read_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix.lower() in {".jsonl", ".ndjson", ".json"}:
                yield from _read_json_rows(path, file)
            else:
                yield from csv.DictReader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as labels: {error}") from error


def _read_json_rows(path: Path, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{path}, line {number}: a label is a JSON object, such as {{'row': 7, 'label': 1}}")
        yield row


def _parse_intervals(path: Path, rows: Sequence[Mapping[str, Any]]) -> list[Burst]:
    found = []
    for number, row in enumerate(rows, 1):
        start_us, end_us = (time_us(_parse_time(row.get(name)), "auto") for name in ("start", "end"))
        unread = next((name for name, us in (("start", start_us), ("end", end_us)) if us < 0), None)
        if unread is not None:
            raise ConfigError(
                f"{path}, interval {number}: its {unread} {row.get(unread)!r} cannot be read as a time; "
                "write ISO 8601, such as 2026-01-31T08:00:00Z, or an epoch"
            )
        if end_us <= start_us:
            raise ConfigError(f"{path}, interval {number}: its end is not after its start")
        found.append(Burst(start_us=start_us, end_us=end_us))
    return sorted(found, key=lambda burst: burst.start_us)


def _parse_time(value: object) -> object:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value.strip()
    return value


def _is_anomalous(value: object) -> bool:
    return _to_text(value).strip().lower() not in _NORMAL_LABELS and value is not None and value is not False


def _to_text(value: object) -> str:
    return "" if value is None else str(value)


def _parse_burst(path: Path, row: Mapping[str, Any]) -> int:
    name = next((name for name in _BURST_COLUMNS if row.get(name) not in {None, ""}), None)
    return 0 if name is None else max(_parse_number(path, row, name), 0)


def _parse_number(path: Path, row: Mapping[str, Any], name: str) -> int:
    try:
        return int(float(row[name]))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {row.get(name)!r} is not a valid {name}: write a whole number") from error
