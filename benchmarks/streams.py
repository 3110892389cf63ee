"""Real data as streams: alarms a day, delay and recall, promised against realised, beside what is common.

Each set becomes a file: normals in their order (after the end once more from the beginning, where a set is small), 40
a minute; every 60 minutes a burst of 20 anomalies within one, and an anomaly by itself every 200 events elsewhere.
The back-test warms up on the first normals, which hold no anomaly, and runs the live code. The promise is about the
incidents that answer no burst: a slow rise that the single anomalies make together counts as false, and so does a
drift of the normals themselves.

    python -m benchmarks.streams [--others] [--only kdd shuttle] [--seed N]

Beside it, over the same minutes and with the same smallest number of events (an incident ends after 3 quiet minutes):
an alarm in every minute, each for itself; the plain percentile of the last day's energies; mean + 3 sigma of the
counts above it; and with --others river's HalfSpaceTrees with its quantile filter, where river is installed.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.promises.table import show
from config.settings import Settings
from config.time_format import DAY_US, WEEK_US
from config.units import parse_rate
from monitor.backtest import backtest
from monitor.backtest.labels import Burst
from monitor.backtest.models import fit_on_file
from monitor.backtest.outcome import match_bursts

DATA = Path(__file__).parents[2] / "shared" / "data"
SETS = ("kdd", "shuttle", "thyroid", "mammography")
MINUTE_US = 60_000_000
START_US = 1_767_225_600_000_000
A_MINUTE = 40
BURST_EVERY = 60
BURST_SIZE = 20
SINGLE_EVERY = 200
MINUTES = 1_500
MIN_OUTLIERS = 3
RESOLVE_AFTER = 3
PERCENTILE = 99.0

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Events in the order of time; `bursts` numbers those that belong to one, 0 for the others."""

    name: str
    warm_up: int
    times_us: NDArray[np.int64]
    features: Float32
    strange: Bool
    bursts: NDArray[np.int64]


def load(name: str, folder: Path) -> tuple[Float32, Float32]:
    """Return the normals and the anomalies of a set, in their order."""
    if name == "kdd":
        rows = np.load(folder / "kddcup99_10percent.npz")["kdd"]
        x, normal = rows[:, 100:118].astype(np.float32), rows[:, -1] == 1
    else:
        stored = np.load(folder / f"{name}.npz")
        x, normal = stored["X"].astype(np.float32), stored["y"] == 0
    return x[normal], x[~normal]


def planted(name: str, normals: Float32, anomalies: Float32, rng: np.random.Generator) -> Feed:
    """Return the stream of a set: its normals, with anomalies in bursts and singly after the warm-up."""
    warm_up = min(10_000, len(normals) // 2)
    wanted = warm_up + MINUTES * A_MINUTE
    # What the model was fitted on does not come again.
    rest = np.arange(wanted - warm_up) % (len(normals) - warm_up) + warm_up
    order = np.concatenate([np.arange(warm_up), rest])
    times_us = START_US + np.arange(wanted, dtype=np.int64) * (MINUTE_US // A_MINUTE)
    pieces = [(times_us, normals[order], np.zeros(wanted, np.int64), np.zeros(wanted, np.bool_))]
    live_us = int(times_us[warm_up]) // MINUTE_US * MINUTE_US + MINUTE_US
    end_us = int(times_us[-1])
    starts_us = np.arange(live_us + 30 * MINUTE_US, end_us - MINUTE_US, BURST_EVERY * MINUTE_US)
    for number, start_us in enumerate(starts_us.tolist(), 1):
        at = int(rng.integers(0, len(anomalies)))
        run = np.arange(at, at + BURST_SIZE) % len(anomalies)
        when = start_us + np.sort(rng.integers(0, MINUTE_US, BURST_SIZE))
        pieces.append((when, anomalies[run], np.full(BURST_SIZE, number), np.ones(BURST_SIZE, np.bool_)))
    single_us = times_us[warm_up::SINGLE_EVERY] + 1
    away = np.abs(single_us[:, None] - starts_us[None, :]).min(axis=1) > 5 * MINUTE_US
    single_us = single_us[away]
    chosen = rng.integers(0, len(anomalies), len(single_us))
    none = np.zeros(len(single_us), np.int64)
    pieces.append((single_us, anomalies[chosen], none, np.ones(len(single_us), np.bool_)))
    when, features, bursts, strange = (np.concatenate(column) for column in zip(*pieces, strict=True))
    by_time = np.argsort(when, kind="stable")
    return Feed(
        name=name,
        warm_up=warm_up,
        times_us=when[by_time],
        features=features[by_time],
        strange=strange[by_time],
        bursts=bursts[by_time],
    )


def write(feed: Feed, folder: Path) -> tuple[Path, Path]:
    """Write the stream and its labels as files."""
    events, labels = folder / f"{feed.name}.jsonl", folder / f"{feed.name}.labels.csv"
    with events.open("w") as file:
        for at, (when, row) in enumerate(zip(feed.times_us.tolist(), feed.features.tolist(), strict=True)):
            file.write(json.dumps({"ts": when, "id": at, **{f"x{j}": value for j, value in enumerate(row)}}) + "\n")
    with labels.open("w") as file:
        file.write("id,label,burst\n")
        file.writelines(f"{at},1,{feed.bursts[at]}\n" for at in np.flatnonzero(feed.strange))
    return events, labels


def settings_of(feed: Feed, path: Path, folder: Path) -> Settings:
    """Return the settings: the defaults, with what the stream's size asks for."""
    stream = {
        "source": {"type": "file", "path": str(path)},
        "event": {
            "time": {"field": "ts", "unit": "us"},
            "id": "id",
            "features": [f"x{j}" for j in range(feed.features.shape[1])],
        },
        "model": {"warm_up": feed.warm_up},
        "threshold": {"percentile": PERCENTILE},
        "alerts": {"min_outliers": MIN_OUTLIERS, "resolve_after": RESOLVE_AFTER},
    }
    database = {"url": f"sqlite:///{folder / 'none.db'}"}
    return Settings.model_validate({"database": database, "device": "cpu", "streams": {"real": stream}})


def compared(feed: Feed, fired: Bool, starts_us: NDArray[np.int64], resolve_after: int) -> list[object]:
    """Return alarms a day, false ones a week, recall, median delay and precision of minutes that fired."""
    at = np.flatnonzero(fired)
    if not len(at):
        return [0.0, 0.0, 0.0, "-", "-"]
    runs = np.split(at, np.flatnonzero(np.diff(at) > resolve_after) + 1)
    incidents = [[(start, start + MINUTE_US) for start in starts_us[run].tolist()] for run in runs]
    bursts = [_burst(feed, number) for number in range(1, int(feed.bursts.max()) + 1)]
    answers = match_bursts(incidents, bursts, slack_us=RESOLVE_AFTER * MINUTE_US, size_us=MINUTE_US)
    span_us = int(starts_us[-1] - starts_us[0]) + MINUTE_US
    return [
        len(incidents) * DAY_US / span_us,
        answers.unmatched * WEEK_US / span_us,
        len(answers.delays_us) / len(bursts),
        float(np.median(answers.delays_us)) / 1e6 if answers.delays_us else "-",
        1 - answers.unmatched / len(incidents),
    ]


def _burst(feed: Feed, number: int) -> Burst:
    own = feed.times_us[feed.bursts == number]
    return Burst(start_us=int(own.min()), end_us=int(own.max()) + 1, events=len(own))


def counts_by_minute(feed: Feed, flagged: Bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the minutes and how many flagged events each has."""
    minute = feed.times_us // MINUTE_US
    first = int(minute[0])
    counts = np.bincount(minute - first, weights=flagged).astype(np.int64)
    return (first + np.arange(len(counts), dtype=np.int64)) * MINUTE_US, counts


def plain_percentile(feed: Feed, energies: Float32) -> Bool:
    """Return which energies lie above the percentile of the day before, drawn anew every 5 minutes."""
    flagged = np.zeros(len(energies), np.bool_)
    ticks = np.arange(int(feed.times_us[0]), int(feed.times_us[-1]) + 1, 5 * MINUTE_US)
    for tick in ticks.tolist():
        known = slice(*np.searchsorted(feed.times_us, [tick - DAY_US, tick]))
        now = slice(*np.searchsorted(feed.times_us, [tick, tick + 5 * MINUTE_US]))
        if known.stop - known.start >= 1_000:
            flagged[now] = energies[now] > np.percentile(energies[known], PERCENTILE)
    return flagged


def three_sigma(counts: NDArray[np.int64]) -> Bool:
    """Return which minutes have more than mean + 3 sigma of the counts of the day before."""
    fired = np.zeros(len(counts), np.bool_)
    for at in range(30, len(counts)):
        known = counts[max(0, at - 1440) : at]
        fired[at] = counts[at] > known.mean() + 3 * known.std()
    return fired


def half_space_trees(feed: Feed, seed: int) -> Bool | None:
    """Return what river flags, or None where it is not installed. Its trees want features in [0, 1]."""
    try:
        from river import anomaly, preprocessing  # type: ignore[import-not-found]
    except ImportError:
        return None
    filter_ = anomaly.QuantileFilter(anomaly.HalfSpaceTrees(seed=seed, n_trees=25), q=PERCENTILE / 100)
    scaler = preprocessing.MinMaxScaler()
    flagged = np.zeros(len(feed.features), np.bool_)
    for at, row in enumerate(feed.features.tolist()):
        x = dict(enumerate(row))
        scaler.learn_one(x)
        scaled = scaler.transform_one(x)
        flagged[at] = filter_.classify(filter_.score_one(scaled)) and at >= feed.warm_up
        filter_.learn_one(scaled)
    return flagged


def rows_of(name: str, folder: Path, promises: Sequence[str], seed: int, *, others: bool) -> list[list[object]]:
    """Return the table's rows of one set."""
    with tempfile.TemporaryDirectory() as made:
        feed = planted(name, *load(name, folder), np.random.default_rng(seed))
        events, labels = write(feed, Path(made))
        settings = settings_of(feed, events, Path(made))
        found = backtest(settings, "real", events, percentiles=[PERCENTILE, 99.5], false_alarms=promises, labels=labels)
        subject = fit_on_file(settings.streams["real"], events, "cpu")
        energies = subject.scores.energies(feed.features, subject.model_id)
    rows: list[list[object]] = [
        [
            name,
            f"outrider p{cell.percentile:g}",
            cell.false_alarms,
            cell.alerts_per_day,
            cell.promised_per_week,
            cell.realised_per_week,
            cell.recall if cell.recall is not None else "-",
            "-" if cell.delay_s is None else cell.delay_s,
            "-" if cell.precision is None else cell.precision,
            "-" if cell.events_found is None else cell.events_found,
            ", ".join(f"{count} {kind}" for kind, count in cell.incidents.items()),
        ]
        for cell in found.cells
    ]
    flagged = plain_percentile(feed, energies)
    starts_us, counts = counts_by_minute(feed, flagged)
    rules = {
        "plain percentile": (counts >= MIN_OUTLIERS, flagged),
        "mean + 3 sigma": (three_sigma(counts) & (counts >= MIN_OUTLIERS), flagged),
        "always": (np.ones(len(counts), np.bool_), np.ones(len(flagged), np.bool_)),
    }
    trees = half_space_trees(feed, seed) if others else None
    if trees is not None:
        rules["river HST + filter"] = (counts_by_minute(feed, trees)[1] >= MIN_OUTLIERS, trees)
    for rule, (fired, flags) in rules.items():
        alarms, false, recall, delay, precision = compared(
            feed, fired, starts_us, 0 if rule == "always" else RESOLVE_AFTER
        )
        events_found = float(flags[feed.strange].mean())
        rows.append([name, rule, "-", alarms, "-", false, recall, delay, precision, events_found, ""])
    return rows


def main() -> None:
    """Print a table of all sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--others", action="store_true", help="river too, where it is installed")
    parser.add_argument("--promises", nargs="+", default=["1/hour", "1/day", "1/week"])
    parser.add_argument("--seed", type=int, default=20261121)
    options = parser.parse_args()
    began_s = time.monotonic()
    for promise in options.promises:
        parse_rate(promise)
    rows = [
        row
        for name in options.only
        for row in rows_of(name, options.data, options.promises, options.seed, others=options.others)
    ]
    show(
        f"Real data as streams: {MINUTES} minutes of {A_MINUTE} events; a burst of {BURST_SIZE} anomalies every "
        f"{BURST_EVERY} minutes and one in {SINGLE_EVERY} events; seed {options.seed}",
        [
            *("set", "rule", "promise", "alarms a day", "promised a week", "realised a week", "recall", "delay s"),
            *("precision", "events found", "incidents"),
        ],
        rows,
    )
    print(f"took {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
