"""The views that `History` reads: their columns, their order, and the conversion of rows to arrays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ColumnValues = NDArray[Any] | list[Any]
Columns = dict[str, ColumnValues]
ColumnKind = Literal["text", "int", "maybe_int", "float", "energy", "bool", "time", "json", "bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryView:
    """One SQL view as read by `History`.

    Attributes:
        name: Name of the view.
        columns: The documented columns of the view with their kinds.
        key_columns: Columns that order the rows and identify a row.
        time_column: The column in microseconds that `since` and `until` bound.
    """

    name: str
    columns: Mapping[str, ColumnKind]
    key_columns: tuple[str, ...]
    time_column: str


_SCORES: Mapping[str, ColumnKind] = {
    "stream": "text",
    "topic": "text",
    "partition": "int",
    "source_offset": "int",
    "incarnation": "int",
    "event_time": "time",
    "event_time_us": "int",
    "stored_at": "time",
    "key": "text",
    "event_id": "text",
    "energy": "energy",
    "threshold": "float",
    "is_outlier": "bool",
    "model_version": "int",
}

SCORES = HistoryView(
    name="score_history", columns=_SCORES, key_columns=("source_id", "source_offset"), time_column="event_time_us"
)
OUTLIERS = HistoryView(
    name="outlier_history",
    columns={**_SCORES, "features": "json"},
    key_columns=("source_id", "source_offset"),
    time_column="event_time_us",
)
WINDOWS = HistoryView(
    name="window_history",
    columns={
        "stream": "text",
        "window_start": "time",
        "window_end": "time",
        "events": "int",
        "outliers": "int",
        "expected_outliers": "float",
        "late": "int",
        "p_value": "float",
        "energy_p50": "float",
        "energy_p99": "float",
        "energy_max": "float",
        "model_version": "maybe_int",
    },
    key_columns=("window_start_us", "stream"),
    time_column="window_start_us",
)
THRESHOLDS = HistoryView(
    name="threshold_history",
    columns={
        "stream": "text",
        "computed_at": "time",
        "valid_from": "time",
        "percentile": "float",
        "threshold": "float",
        "lower": "float",
        "upper": "float",
        "n": "int",
        "method": "text",
        "model_version": "int",
    },
    key_columns=("valid_from_us", "id"),
    time_column="valid_from_us",
)
INCIDENTS = HistoryView(
    name="incident_history",
    columns={
        "id": "int",
        "stream": "text",
        "kind": "text",
        "severity": "text",
        "status": "text",
        "window_start": "time",
        "opened_at": "time",
        "resolved_at": "time",
        "summary": "text",
        "details": "json",
        "acknowledged_at": "time",
        "acknowledged_by": "text",
        "verdict": "text",
    },
    key_columns=("opened_at_us", "id"),
    time_column="opened_at_us",
)
VERDICTS = HistoryView(
    name="verdict_history",
    columns={
        "incident_id": "int",
        "stream": "text",
        "kind": "text",
        "at": "time",
        "verb": "text",
        "who": "text",
        "note": "text",
        "effects": "json",
    },
    key_columns=("at_us", "id"),
    time_column="at_us",
)
MUTES = HistoryView(
    name="mute_history",
    columns={
        "id": "int",
        "stream": "text",
        "kind": "text",
        "key": "text",
        "starts_at": "time",
        "ends_at": "time",
        "who": "text",
        "note": "text",
        "held_back": "int",
        "incident_id": "maybe_int",
        "weekly": "text",
    },
    key_columns=("starts_at_us", "id"),
    time_column="starts_at_us",
)
NOTIFICATIONS = HistoryView(
    name="notification_history",
    columns={
        "id": "text",
        "incident_id": "int",
        "transition": "text",
        "channel": "text",
        "state": "text",
        "attempts": "int",
        "last_error": "text",
        "created_at": "time",
        "delivered_at": "time",
    },
    key_columns=("created_at_us", "id"),
    time_column="created_at_us",
)
DEAD_LETTERS = HistoryView(
    name="dead_letter_history",
    columns={
        "stream": "text",
        "topic": "text",
        "partition": "int",
        "source_offset": "int",
        "reason": "text",
        "detail": "text",
        "payload": "bytes",
        "recorded_at": "time",
    },
    key_columns=("recorded_at_us", "id"),
    time_column="recorded_at_us",
)
DRIFT = HistoryView(
    name="drift_history",
    columns={
        "stream": "text",
        "horizon": "text",
        "window_start": "time",
        "window_end": "time",
        "statistic": "text",
        "feature": "text",
        "before": "float",
        "after": "float",
        "effect": "float",
        "z": "float",
        "limit": "float",
        "drifted": "bool",
    },
    key_columns=("window_end_us", "id"),
    time_column="window_end_us",
)
CALIBRATION = HistoryView(
    name="calibration_history",
    columns={
        "stream": "text",
        "at": "time",
        "promised_per_week": "float",
        "realised_per_week": "float",
        "windows_learned": "maybe_int",
        "dispersion": "float",
        "exceedance": "float",
        "state": "text",
        "true_alarms": "maybe_int",
        "false_alarms": "maybe_int",
        "without_verdict": "maybe_int",
        "precision": "float",
        "precision_lower": "float",
        "precision_upper": "float",
    },
    key_columns=("at_us", "stream"),
    time_column="at_us",
)
GAPS = HistoryView(
    name="gap_history",
    columns={
        "stream": "text",
        "topic": "text",
        "partition": "int",
        "from_offset": "int",
        "to_offset": "int",
        "reason": "text",
        "recorded_at": "time",
    },
    key_columns=("recorded_at_us", "id"),
    time_column="recorded_at_us",
)


def to_columns(view: HistoryView, rows: Sequence[Sequence[Any]]) -> Columns:
    """Convert rows that begin with the view's columns to columns; NULL becomes NaN, NaT or None."""
    values = list(zip(*rows, strict=True)) if rows else [()] * len(view.columns)
    return {name: to_array(kind, column) for (name, kind), column in zip(view.columns.items(), values, strict=False)}


def to_array(kind: ColumnKind, values: Sequence[Any]) -> ColumnValues:
    """Convert the values of a column of one kind; NULL becomes NaN, NaT or None."""
    return _CONVERSIONS[kind](values)


def _to_datetimes(values: Sequence[str | datetime | None]) -> ColumnValues:
    # Both databases return UTC. numpy times have no time zone, and numpy warns about text with one.
    without_zone = [
        value[:-1] if isinstance(value, str) else None if value is None else value.replace(tzinfo=None)
        for value in values
    ]
    return np.array(without_zone, "datetime64[us]")


def _parse_json(values: Sequence[Any]) -> ColumnValues:
    return [json.loads(value) if isinstance(value, str) else value for value in values]


_CONVERSIONS: Mapping[ColumnKind, Callable[[Sequence[Any]], ColumnValues]] = {
    "text": list,
    "int": lambda values: np.array(values, np.int64),
    "maybe_int": list,
    "float": lambda values: np.array(values, np.float64),
    "energy": lambda values: np.array(values, np.float32),
    "bool": lambda values: np.array(values, np.bool_),
    "time": _to_datetimes,
    "json": _parse_json,
    "bytes": list,
}
