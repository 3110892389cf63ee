"""A database with the rows of one stream, as its page needs them: stored directly, so that a test takes no second."""

import json

import numpy as np
import sqlalchemy as sa

from config.time_format import HOUR_US, MINUTE_US
from storage.control.drift_cells import encode_cells
from storage.database.engine import Database
from storage.database.tables import (
    drift_cell_names,
    drift_cells,
    incidents,
    models,
    streams,
    thresholds,
    windows,
)
from tests.upgraded import give_newest_schema

WINDOW_US = 5 * MINUTE_US
END_US = 1_796_000_000_000_000 // (6 * HOUR_US) * 6 * HOUR_US
"""End of the last judged window."""

WINDOWS = 36 * 12
SPIKE_US = END_US - 3 * HOUR_US
DRIFTED = ("rank", "age")
_NAMES = [("rank", "amount"), DRIFTED, ("spread", "amount"), ("spread", "age"), ("pair", "amount, age")]
_LAW = {"rate": 0.005, "calibration_n": 100_000, "dispersion": 1.3, "windows": 280, "state": "provisional"}


def fill(url: str, name: str = "payments") -> None:
    """Store a stream of 36 hours with a spike, an open drift, a held period of the threshold and drift cells."""
    give_newest_schema(url)
    with Database(url) as db, db.write() as conn:
        _add_stream(conn, name)
        _add_thresholds(conn)
        _add_windows(conn)
        _add_incidents(conn)
        _add_drift(conn)


def _add_stream(conn: sa.Connection, name: str) -> None:
    conn.execute(
        sa.insert(streams).values(id=1, name=name, window_size_us=WINDOW_US, sealed_until_us=END_US, created_at_us=0)
    )
    for version, state, valid_from_us in ((1, "retired", 0), (2, "active", END_US - 20 * HOUR_US)):
        conn.execute(
            sa.insert(models).values(
                id=version,
                stream_id=1,
                version=version,
                kind="gaussian_mixture",
                state=state,
                artefact=b"",
                checksum="",
                created_at_us=0,
                valid_from_us=valid_from_us,
                feature_names='["amount", "age"]',
                summary=json.dumps({"events": 10_000}),
            )
        )


def _add_thresholds(conn: sa.Connection) -> None:
    for i in range(36 * 4 + 1):
        at_us = END_US - 36 * HOUR_US + i * 15 * MINUTE_US
        held = {"held": "too few energies"} if 40 <= i < 60 else {}
        conn.execute(
            sa.insert(thresholds).values(
                id=i + 1,
                stream_id=1,
                model_id=2 if at_us >= END_US - 20 * HOUR_US else 1,
                computed_at_us=at_us,
                valid_from_us=at_us,
                percentile=99.5,
                threshold=27.0 + i / 100,
                lower=26.5 + i / 100,
                upper=27.5 + i / 100,
                n=50_000,
                method="plain",
                details=json.dumps({"law": _LAW, "limit": held}),
                recorded_at_us=at_us,
            )
        )


def _add_windows(conn: sa.Connection) -> None:
    rows = []
    for i in range(WINDOWS):
        start_us = END_US - (WINDOWS - i) * WINDOW_US
        fires = start_us == SPIKE_US
        rows.append(
            {
                "stream_id": 1,
                "window_start_us": start_us,
                "window_end_us": start_us + WINDOW_US,
                "threshold_id": 1 + (start_us - END_US + 36 * HOUR_US) // (15 * MINUTE_US),
                "events": 600,
                "outliers": 60 if fires else i % 6,
                "late": i % 2,
                "dead": 0,
                "filtered": 0,
                "expected": 3.0,
                "p_value": 1e-40 if fires else 0.5,
                "fires_at": 13,
                "energy_p50": 16.0,
                "energy_p99": 900.0 if fires else 26.0,
                "energy_max": 5000.0 if fires else 40.0,
                "judged_at_us": start_us,
                "details": "{}" if fires else None,
            }
        )
    conn.execute(sa.insert(windows), rows)


def _add_incidents(conn: sa.Connection) -> None:
    shared = {"stream_id": 1, "clean_windows": 0, "windows_fired": 1, "last_told_us": 0, "details": "{}"}
    for id_, kind, severity, start_us, end_us in (
        (1, "spike", "critical", END_US - 30 * HOUR_US, END_US - 29 * HOUR_US),
        (2, "spike", "critical", SPIKE_US, SPIKE_US + 4 * WINDOW_US),
        (3, "drift", "warning", END_US - 2 * HOUR_US, None),
    ):
        conn.execute(
            sa.insert(incidents).values(
                id=id_,
                kind=kind,
                severity=severity,
                status="open" if end_us is None else "resolved",
                window_start_us=start_us,
                opened_at_us=start_us + WINDOW_US,
                resolved_at_us=end_us,
                summary=f"{kind} <b>&",
                **shared,
            )
        )


def _add_drift(conn: sa.Connection) -> None:
    conn.execute(sa.insert(drift_cell_names).values(model_id=2, statistics=len(_NAMES), names=json.dumps(_NAMES)))
    for i in range(24):
        end_us = END_US - (23 - i) * HOUR_US
        z = np.array([0.5, -20.0 if i >= 22 else 1.0, 0.2, 2.5, 1.0])
        conn.execute(
            sa.insert(drift_cells).values(
                stream_id=1,
                horizon_us=HOUR_US,
                window_end_us=end_us,
                window_start_us=end_us - HOUR_US,
                model_id=2,
                statistics=len(_NAMES),
                limit=5.0,
                payload=encode_cells(z, z / 80, np.full(5, 0.5), 0.5 + z / 100),
                recorded_at_us=end_us,
            )
        )
