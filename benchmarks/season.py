"""The season over recorded events: incidents a week, and the exceedance by hour, with and without `threshold.season`.

An unchanging daily cycle is generated with 60 and 600 events an hour. Other streams come from files with a field of the
time: CSV or JSON lines. The back-test runs the code of the daemon.

    python -m benchmarks.season [--days 14] [--rates 60 600]
    python -m benchmarks.season --file events.csv --time ts [--unit us] [--window 1h] [--percentile 99] [--warm-up 2000]

The hours of the last column are those of UTC, for windows from the fifth day on.
"""

import argparse
import csv
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.statistical.table import show
from config.settings import Settings
from config.time_format import DAY_US, HOUR_US, WEEK_US
from monitor.backtest import backtest
from monitor.backtest.memory_store import MemoryStore
from monitor.statistics.season import load_season

START_US = 1_767_571_200_000_000
STREAM = "season"
_KINDS = ("spike", "slow_rise", "calibration", "drift")
_WIDTH_OF_DAY = 0.35
"""Relative amplitude of the deviation over the day in the generated cycle."""


def write_daily_cycle(path: Path, *, per_hour: int, days: int, seed: int) -> None:
    """Write events whose two features have a mean and a deviation with an unchanging course over the day."""
    rng = np.random.default_rng(seed)
    n = per_hour * 24 * days
    times_us = START_US + np.sort(rng.integers(0, days * DAY_US, n))
    angle = 2 * np.pi * (times_us % DAY_US) / DAY_US
    deviation = 1 - _WIDTH_OF_DAY * np.cos(angle)
    x = 2 * np.sin(angle) + rng.normal(size=n) * deviation
    y = rng.normal(size=n) * deviation
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ts", "x", "y"])
        writer.writerows(zip(times_us.tolist(), x.round(6).tolist(), y.round(6).tolist(), strict=True))


def measure(path: Path, season: str, options: argparse.Namespace) -> list[object]:
    """Return the row of one stream and setting."""
    event = {"time": {"field": options.time, "unit": options.unit}, "features": options.features or "auto"}
    settings = Settings.model_validate(
        {
            "database": {"url": f"sqlite:///{path.parent / 'none.db'}"},
            "device": "cpu",
            "streams": {
                STREAM: {
                    "timezone": options.timezone,
                    "source": {"type": "file", "path": str(path)},
                    "event": event,
                    "model": {"warm_up": options.warm_up},
                    "window": {"size": options.window},
                    "threshold": {
                        "percentile": options.percentile,
                        "look_back": options.look_back,
                        "refresh": "1h",
                        "season": season,
                    },
                }
            },
        }
    )
    started_s = time.perf_counter()
    result = backtest(settings, STREAM, path, percentiles=[options.percentile], false_alarms=["1/week"])
    return [season, *describe(result.memories[0]), f"{time.perf_counter() - started_s:.0f}"]


def describe(memory: MemoryStore) -> list[object]:
    """Return the measures of one back-test: its length, the season, incidents a week and the hours after activation."""
    judged = [row for row in memory.windows if row.judged and row.events]
    states = [load_season(row.details) for row in memory.thresholds]
    active = next((i for i, each in enumerate(states) if each is not None and each.season is not None), None)
    first_us, last_us = judged[0].window_start_us, judged[-1].window_end_us
    weeks = (last_us - first_us) / WEEK_US
    kinds = Counter(life.row.kind for life in memory.incidents)
    newest = states[-1]
    kind = newest.season.kind if newest is not None and newest.season is not None else "-"
    since_us = None if active is None else memory.thresholds[active].valid_from_us
    after = "-" if since_us is None else f"{(since_us - first_us) / DAY_US:.1f}"
    later = [row for row in judged if row.window_start_us >= first_us + 4 * DAY_US]
    hour = np.array([(row.window_start_us + row.window_end_us) // 2 % DAY_US // HOUR_US for row in later], np.int64)
    outliers = np.bincount(hour, [row.outliers for row in later], minlength=24)
    expected = np.bincount(hour, [row.expected or 0.0 for row in later], minlength=24)
    ratio = outliers[expected > 0] / expected[expected > 0]
    thresholds = len({row.threshold for row in memory.thresholds})
    return [
        f"{weeks:.1f}",
        kind,
        after,
        *(f"{kinds[each] / weeks:.2f}" for each in _KINDS),
        f"{thresholds}/{len(memory.thresholds)}",
        f"{ratio.min():.2f} to {ratio.max():.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--rates", type=int, nargs="+", default=[60, 600])
    parser.add_argument("--seed", type=int, default=20261130)
    parser.add_argument("--seasons", nargs="+", default=["none", "auto"])
    parser.add_argument("--file", type=Path)
    parser.add_argument("--time", default="ts")
    parser.add_argument("--unit", default="us")
    parser.add_argument("--features", nargs="+")
    parser.add_argument("--timezone", default="UTC")
    parser.add_argument("--window", default="30m")
    parser.add_argument("--percentile", type=float, default=99.0)
    parser.add_argument("--look-back", default="7d")
    parser.add_argument("--warm-up", type=int, default=4_000)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        streams = [(options.file.name, options.file)] if options.file else []
        if not streams:
            for per_hour in options.rates:
                path = Path(folder) / f"{per_hour}.csv"
                write_daily_cycle(path, per_hour=per_hour, days=options.days, seed=options.seed)
                streams.append((f"{per_hour} an hour", path))
        for name, path in streams:
            rows += [[name, *measure(path, season, options)] for season in options.seasons]
    columns = ["stream", "season", "weeks", "kind", "after d", *_KINDS, "thresholds", "observed/expected by hour", "s"]
    show("Incidents a week and outliers by hour from the fifth day on (promise 1/week)", columns, rows)


if __name__ == "__main__":
    main()
