"""Storage room: what `History` gives; each view, its order, and how its columns become arrays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any] | list[Any]
Columns = dict[str, Column]
Kind = Literal["text", "int", "maybe_int", "float", "energy", "bool", "time", "json", "bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One view as History gives it.

    Attributes:
        view: The view.
        columns: Its columns of the contract, each with what it holds.
        key: Columns that order its rows and name one.
        time: The column in microseconds that `since` and `until` bound.
    """

    view: str
    columns: Mapping[str, Kind]
    key: tuple[str, ...]
    time: str


_SCORES: Mapping[str, Kind] = {
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

SCORES = Listing(view="score_history", columns=_SCORES, key=("source_id", "source_offset"), time="event_time_us")
OUTLIERS = Listing(
    view="outlier_history",
    columns={**_SCORES, "features": "json"},
    key=("source_id", "source_offset"),
    time="event_time_us",
)
WINDOWS = Listing(
    view="window_history",
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
    key=("window_start_us", "stream"),
    time="window_start_us",
)
THRESHOLDS = Listing(
    view="threshold_history",
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
    key=("valid_from_us", "id"),
    time="valid_from_us",
)
INCIDENTS = Listing(
    view="incident_history",
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
    },
    key=("opened_at_us", "id"),
    time="opened_at_us",
)
NOTIFICATIONS = Listing(
    view="notification_history",
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
    key=("created_at_us", "id"),
    time="created_at_us",
)
DEAD_LETTERS = Listing(
    view="dead_letter_history",
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
    key=("recorded_at_us", "id"),
    time="recorded_at_us",
)
DRIFT = Listing(
    view="drift_history",
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
    key=("window_end_us", "id"),
    time="window_end_us",
)
CALIBRATION = Listing(
    view="calibration_history",
    columns={
        "stream": "text",
        "at": "time",
        "promised_per_week": "float",
        "realised_per_week": "float",
        "windows_learned": "maybe_int",
        "dispersion": "float",
        "exceedance": "float",
        "state": "text",
    },
    key=("at_us", "stream"),
    time="at_us",
)
GAPS = Listing(
    view="gap_history",
    columns={
        "stream": "text",
        "topic": "text",
        "partition": "int",
        "from_offset": "int",
        "to_offset": "int",
        "reason": "text",
        "recorded_at": "time",
    },
    key=("recorded_at_us", "id"),
    time="recorded_at_us",
)


def to_columns(listing: Listing, rows: Sequence[Sequence[Any]]) -> Columns:
    """Return rows, each with the listing's columns first, as columns; NULL is NaN, NaT or None."""
    values = list(zip(*rows, strict=True)) if rows else [()] * len(listing.columns)
    return {
        name: _CONVERSIONS[kind](column) for (name, kind), column in zip(listing.columns.items(), values, strict=False)
    }


def _times(values: Sequence[str | datetime | None]) -> Column:
    # Both databases say UTC; numpy's times know no zone and would warn of one.
    bare = [
        value[:-1] if isinstance(value, str) else None if value is None else value.replace(tzinfo=None)
        for value in values
    ]
    return np.array(bare, "datetime64[us]")


def _json(values: Sequence[Any]) -> Column:
    return [json.loads(value) if isinstance(value, str) else value for value in values]


_CONVERSIONS: Mapping[Kind, Callable[[Sequence[Any]], Column]] = {
    "text": list,
    "int": lambda values: np.array(values, np.int64),
    "maybe_int": list,
    "float": lambda values: np.array(values, np.float64),
    "energy": lambda values: np.array(values, np.float32),
    "bool": lambda values: np.array(values, np.bool_),
    "time": _times,
    "json": _json,
    "bytes": list,
}
