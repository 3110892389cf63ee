"""Labelled series: halves of NAB, SKAB and ASD, KDD Cup 99 in log order, and a year of flights."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from config.time_format import DAY_US, SECOND_US
from monitor.backtest.labels import Burst

DATA = Path(__file__).parents[3] / "shared" / "data"
MINUTE_US = 60 * SECOND_US
KDD_FEATURES = slice(100, 118)
KDD_HEAD = 50_000
KDD_BURSTS = 40
KDD_BURST_EVENTS = 500
KDD_RATE_PER_S = 20
KDD_START_US = 1_767_225_600 * SECOND_US
FLIGHT_FEATURES = ("delays.dep_min", "delays.arr_min", "air_time_min", "route.distance_mi")
FLIGHTS_HEAD_DAYS = 14
STORM_CANCELLED_SHARE = 0.1

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A labelled series; the first `head` events are normal and precede all that is measured.

    `features` has the shape (n, n_features); a missing value is NaN. `spans` are the labelled times if single events
    have no labels; otherwise the runs of `is_anomaly` are the segments.
    """

    name: str
    times_us: NDArray[np.int64]
    features: Float64
    is_anomaly: Bool
    head: int
    spans: tuple[Burst, ...] | None = None

    @property
    def step_us(self) -> int:
        """Return the median distance of two events, at least a microsecond."""
        return max(int(np.median(np.diff(self.times_us))), 1)

    @property
    def window_us(self) -> int:
        """Return the window of the rules and of the settings by hand: 12 events, 30 of a stream of seconds."""
        if self.spans is not None:
            return 60 * MINUTE_US
        return max(self.step_us * (30 if self.step_us < MINUTE_US else 12), SECOND_US * 10)

    @property
    def feature_names(self) -> list[str]:
        """Return the names of the features."""
        return [f"x{column}" for column in range(self.features.shape[1])]

    def segments(self) -> list[Burst]:
        """Return the labelled segments after the head."""
        live_us = int(self.times_us[self.head])
        if self.spans is not None:
            return [span for span in self.spans if span.start_us >= live_us]
        edges = np.flatnonzero(np.diff(np.concatenate([[False], self.is_anomaly, [False]]).astype(np.int8)))
        times_us, step_us = self.times_us, self.step_us
        return [
            Burst(start_us=int(times_us[begin]), end_us=int(times_us[end - 1]) + step_us)
            for begin, end in edges.reshape(-1, 2).tolist()
            if begin >= self.head
        ]

    def write(self, path: Path, n: int) -> None:
        """Write the first n events as CSV with their times in microseconds; a missing value is an empty cell."""
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["ts", *self.feature_names])
            writer.writerows(
                [when, *("" if value != value else value for value in row)]
                for when, row in zip(self.times_us[:n].tolist(), self.features[:n].tolist(), strict=True)
            )


def load_stored(name: str, folder: Path) -> Iterator[Series]:
    """Yield the series of `streams_NAME.npz`."""
    stored = np.load(folder / f"streams_{name}.npz")
    for number in sorted({int(key.split("_")[0]) for key in stored.files}):
        times_us, features, labels = (stored[f"{number}_{column}"] for column in ("time_us", "X", "y"))
        yield Series(
            name=str(stored[f"{number}_name"]),
            times_us=times_us.astype(np.int64),
            features=features.astype(np.float64),
            is_anomaly=labels.astype(np.bool_),
            head=int(stored[f"{number}_head"]),
        )


def load_kdd(folder: Path) -> Iterator[Series]:
    """Yield KDD Cup 99 in log order: 50,000 normal connections, then the normal ones with 40 runs of attacks.

    The runs of 20 attacks or more are spread evenly, and each is cut to 500. Events are 50 ms apart.
    """
    rows = np.load(folder / "kddcup99_10percent.npz")["kdd"]
    normal = rows[:, -1] == 1
    head_end = int(np.flatnonzero(normal)[KDD_HEAD - 1]) + 1
    head = np.flatnonzero(normal[:head_end])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ~normal[head_end:], [False]]).astype(np.int8)))
    runs = [(begin, end) for begin, end in edges.reshape(-1, 2).tolist() if end - begin >= 20]
    kept = normal[head_end:].copy()
    for at in np.unique(np.linspace(0, len(runs) - 1, KDD_BURSTS).round().astype(np.int64)).tolist():
        begin, end = runs[at]
        kept[begin : min(end, begin + KDD_BURST_EVENTS)] = True
    order = np.concatenate([head, head_end + np.flatnonzero(kept)])
    yield Series(
        name="kdd",
        times_us=KDD_START_US + np.arange(len(order), dtype=np.int64) * (SECOND_US // KDD_RATE_PER_S),
        features=rows[order, KDD_FEATURES].astype(np.float64),
        is_anomaly=~normal[order],
        head=len(head),
    )


def load_flights(path: Path) -> Iterator[Series]:
    """Yield a year of flights: two delays, air time and distance, about 38 events an hour, the first 14 days as head.

    A cancelled flight has no delays and no air time. The labelled segments are the days of storms, on which more than a
    tenth of the flights are cancelled; single events have no labels.

    Args:
        path: JSON lines with `scheduled_at`, `cancelled`, `delays`, `air_time_min` and `route.distance_mi`.
    """
    times_us, features, cancelled = [], [], []
    with path.open() as file:
        for line in file:
            event = json.loads(line)
            times_us.append(int(datetime.fromisoformat(event["scheduled_at"]).timestamp() * SECOND_US))
            cancelled.append(event["cancelled"])
            features.append([_find_value(event, name) for name in FLIGHT_FEATURES])
    times = np.array(times_us, np.int64)
    head = int(np.searchsorted(times, times[0] + FLIGHTS_HEAD_DAYS * DAY_US))
    yield Series(
        name="flights",
        times_us=times,
        features=np.array(features, np.float64),
        is_anomaly=np.zeros(len(times), np.bool_),
        head=head,
        spans=_find_storms(times, np.array(cancelled, np.bool_)),
    )


def _find_value(event: object, name: str) -> float:
    for part in name.split("."):
        event = event.get(part) if isinstance(event, dict) else None
    return float("nan") if event is None else float(event)  # type: ignore[arg-type]


def _find_storms(times_us: NDArray[np.int64], cancelled: Bool) -> tuple[Burst, ...]:
    days, place = np.unique(times_us // DAY_US, return_inverse=True)
    share = np.bincount(place, weights=cancelled) / np.bincount(place)
    stormy = days[share > STORM_CANCELLED_SHARE]
    runs = np.split(stormy, np.flatnonzero(np.diff(stormy) > 1) + 1)
    return tuple(Burst(start_us=int(run[0]) * DAY_US, end_us=int(run[-1] + 1) * DAY_US) for run in runs if len(run))


LOADERS: dict[str, Callable[[Path], Iterator[Series]]] = {
    "nab": lambda folder: load_stored("nab", folder),
    "skab": lambda folder: load_stored("skab", folder),
    "asd": lambda folder: load_stored("asd", folder),
    "kdd": load_kdd,
}
"""The sets in the data folder, by name."""
