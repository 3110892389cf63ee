"""Incidents of each kind as rows of a database, with the numbers that their tests store."""

import json
from collections.abc import Mapping
from typing import Any

from storage.database.engine import Database
from storage.database.tables import incidents, streams, transitions

T0 = 1_796_040_000_000_000
"""2026-11-30T12:00:00Z"""
MINUTE_US = 60_000_000

_THRESHOLD = {"value": 11.8, "lower": 11.7, "upper": 12.0, "n": 47_000, "percentile": 99.5, "method": "plain"}
_LAW = {"rate": 0.005, "dispersion": 1.0, "windows": 40, "state": "learned"}
_WINDOW = {"start": "2026-11-30T12:00:00Z", "end": "2026-11-30T12:06:00Z"}
_SUMMARY = {"mean": 12.5, "median": 12.0, "low": 5.0, "high": 20.0, "exceeded": []}
_KEYS = [{"key": "T-118", "events": 40, "outliers": 30, "times_the_others": 41.0, "p_value": 1e-30}]

NUMBERS: Mapping[str, dict[str, Any]] = {
    "spike": {
        "test": "count", "window": _WINDOW, "events": 613, "outliers": 71, "outliers_expected": 3.1, "fires_at": 13,
        "p_value": 3.5e-46, "alpha": 3e-4, "attainable": 1e-4, "promise_per_week": 1.0, "law": _LAW,
        "threshold": _THRESHOLD, "model_version": 1, "dead_letters": 0, "keys": _KEYS, "keys_looked_at": 189,
    },
    "slow_rise": {
        "window": _WINDOW, "events": 613, "outliers": 90, "windows": 12, "ratio": 2.5, "since": "2026-11-30T11:00:00Z",
        "limit_windows": 40_320.0, "promise_per_week": 1.0, "law": _LAW, "threshold": _THRESHOLD, "model_version": 1,
    },
    "drift": {
        "advice": "drift: refit",
        "horizons": [
            {
                "horizon": "1h", "window": _WINDOW, "events": 9_000, "n_drifted": 2, "statistics": 40, "limit": 5.1,
                "alpha": 1e-5, "base": {"frozen_at": "2026-11-30T09:00:00Z", "horizons": 48},
                "drifted": [
                    {"statistic": "rank", "feature": "amount", "before": 0.5, "after": 0.6, "effect": 0.4, "z": 31.9,
                     "values_before": _SUMMARY, "values_after": _SUMMARY | {"median": 19.0}},
                    {"statistic": "energy_mean", "feature": None, "before": 6.1, "after": 7.0, "effect": 0.2, "z": 6.0},
                ],
            }
        ],
    },
    "calibration": {
        "reason": "shape", "t_plain": 60.0, "t_anchored": 45.0, "t_high": 50.0, "eps": 0.004, "n": 47_000,
        "reference_n": 10_000, "nominal_rate": 0.005, "limit": _THRESHOLD, "law": _LAW,
    },
    "silence": {
        "silent_s": 4_000.0, "allowed_s": 3_600.0, "usual_s": 1_800.0, "silence_after": "auto", "at_end": False,
        "last_event": "2026-11-30T11:00:00Z",
    },
    "stopped": {"reason": "the broker refuses the topic", "failures": 3},
    "stalled": {
        "stalled_after_s": 300.0,
        "partitions": [{"partition": "payments[3]", "waited_s": 400.0, "reason": "its records are not decoded"}],
    },
    "dead_letters": {"window": _WINDOW, "dead_letters": 300, "records": 600, "share": 0.5, "limit": 0.01},
    "late": {
        "window": _WINDOW, "arrivals": 600, "late": 300, "share": 0.5, "limit": 0.05, "mean_lag_s": 90.0,
        "max_lag_s": 400.0, "grace_s": 10.0, "cause": "one partition is behind the others",
    },
    "gap": {
        "window": _WINDOW, "offsets": 500,
        "ranges": [
            {"topic": "payments", "partition": 0, "from_offset": 100, "to_offset": 600, "reason": "retention"}
        ],
    },
}  # fmt: skip
"""The numbers at opening by kind."""


def store_stream(db: Database, name: str = "payments") -> int:
    """Store a stream without windows; return its id."""
    with db.write() as connection:
        row = connection.execute(
            streams.insert().values(name=name, window_size_us=6 * MINUTE_US, created_at_us=T0).returning(streams.c.id)
        )
        return int(row.scalar_one())


def store_incident(
    db: Database,
    stream_id: int,
    kind: str,
    numbers: Mapping[str, Any] | None,
    *,
    summary: str = "a summary of 2026-11-30T12:00:00Z",
    resolved_at_us: int | None = None,
    opened_at_us: int = T0 + 6 * MINUTE_US,
) -> int:
    """Store an incident with the transition that opened it; return its id."""
    row = {
        "stream_id": stream_id,
        "kind": kind,
        "severity": "critical",
        "status": "open" if resolved_at_us is None else "resolved",
        "window_start_us": T0,
        "opened_at_us": opened_at_us,
        "resolved_at_us": resolved_at_us,
        "last_told_us": opened_at_us,
        "clean_windows": 0,
        "windows_fired": 1,
        "summary": summary,
        "details": None if numbers is None else json.dumps({"opened": numbers}),
    }
    with db.write() as connection:
        id_ = int(connection.execute(incidents.insert().values(**row).returning(incidents.c.id)).scalar_one())
        connection.execute(
            transitions.insert().values(
                incident_id=id_,
                stream_id=stream_id,
                transition="opened",
                window_start_us=T0,
                at_us=opened_at_us,
                summary=summary,
                details=None,
                recorded_at_us=opened_at_us,
                severity="critical",
            )
        )
    return id_
