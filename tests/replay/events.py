"""The replay file: bursts, a drift, dead letters and late events, the same bytes for every run."""

import json
from pathlib import Path

import numpy as np

N_EVENTS = 24_000
START_US = 1_767_225_600_000_000  # 2026-01-01, a multiple of the window size
_STEP_US = 20_000_000
_BURST_EVERY = 4_000
_BURST_EVENTS = 160
_DRIFT_FROM = 15_000


def write_events(path: Path) -> None:
    """Write the events as JSON lines."""
    rng = np.random.RandomState(7)
    values = rng.standard_normal((N_EVENTS, 3)) @ np.array([[1.0, 0.4, 0.0], [0.0, 1.0, -0.3], [0.2, 0.0, 0.7]])
    kind = rng.random_sample(N_EVENTS)
    index = np.arange(N_EVENTS)
    outlier = (index % _BURST_EVERY >= _BURST_EVERY - _BURST_EVENTS) & (kind < 0.3)
    values[outlier] += 9.0
    values[_DRIFT_FROM:, 1] += 0.8
    delay_us = np.select([kind > 0.999, kind > 0.98], [7_200_000_000, 600_000_000], 0)
    times_us = START_US + np.maximum(0, index * _STEP_US - delay_us)
    path.write_bytes(b"".join(_line(i, int(times_us[i]), values[i]) for i in range(N_EVENTS)))


def _line(i: int, time_us: int, values: np.ndarray) -> bytes:
    x0, x1, x2 = (round(float(value), 4) for value in values)
    if i % 1_009 == 1_000:
        return b'{"ts": broken\n'
    if i % 1_511 == 1_500:
        return json.dumps({"ts": time_us, "id": i, "x0": x0, "x2": x2}).encode() + b"\n"
    if i % 1_987 == 1_900:
        return json.dumps({"ts": time_us, "id": i, "x0": x0, "x1": "high", "x2": x2}).encode() + b"\n"
    if i % 2_503 == 2_500:
        return json.dumps({"id": i, "x0": x0, "x1": x1, "x2": x2}).encode() + b"\n"
    return json.dumps({"ts": time_us, "id": i, "user": f"user-{i % 17}", "x0": x0, "x1": x1, "x2": x2}).encode() + b"\n"
