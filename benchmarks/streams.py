"""Real data sets as streams: alarms per day, delay, recall and false alarms, compared with simple rules.

Each set is written to a file:

* the normals in their order, 40 per minute, repeated from the beginning if a set is small;
* every 60 minutes a burst of 20 anomalies within one minute;
* outside of the bursts a single anomaly every 200 events; none with --no-singles.

The back-test warms up on the first normals, which contain no anomaly, and runs the code of the daemon. An incident that
matches no burst is a false alarm, also a slow rise caused by the single anomalies and a drift of the normals.

    python -m benchmarks.streams [--others] [--only kdd shuttle] [--minutes N] [--no-singles] [--seed N]

The simple rules use the same minutes and the same minimum of events. Their incidents end after 3 quiet minutes:

* an alarm in every minute, each a separate incident;
* the plain percentile of the energies of the last day;
* mean + 3 sigma of the counts above that percentile;
* with --others, river's HalfSpaceTrees with its quantile filter, if river is installed.
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

from benchmarks.statistical.table import show
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
EVENTS_PER_MINUTE = 40
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
class Plan:
    """Length of the streams after the warm-up, and whether they have single anomalies beside the bursts."""

    minutes: int
    has_singles: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledStream:
    """Events in order of time; `bursts` holds the number of the burst of each event, 0 for none."""

    name: str
    warm_up: int
    times_us: NDArray[np.int64]
    features: Float32
    is_anomaly: Bool
    bursts: NDArray[np.int64]


def load(name: str, folder: Path) -> tuple[Float32, Float32]:
    """Load the normals and the anomalies of a set, in their order."""
    if name == "kdd":
        rows = np.load(folder / "kddcup99_10percent.npz")["kdd"]
        x, normal = rows[:, 100:118].astype(np.float32), rows[:, -1] == 1
    else:
        stored = np.load(folder / f"{name}.npz")
        x, normal = stored["X"].astype(np.float32), stored["y"] == 0
    return x[normal], x[~normal]


def plant_anomalies(
    name: str, normals: Float32, anomalies: Float32, rng: np.random.Generator, plan: Plan
) -> LabelledStream:
    """Build the stream of a set: its normals, with anomalies in bursts and individually after the warm-up."""
    warm_up = min(10_000, len(normals) // 2)
    n_events = warm_up + plan.minutes * EVENTS_PER_MINUTE
    # Events of the warm-up are not repeated.
    rest = np.arange(n_events - warm_up) % (len(normals) - warm_up) + warm_up
    order = np.concatenate([np.arange(warm_up), rest])
    times_us = START_US + np.arange(n_events, dtype=np.int64) * (MINUTE_US // EVENTS_PER_MINUTE)
    pieces = [(times_us, normals[order], np.zeros(n_events, np.int64), np.zeros(n_events, np.bool_))]
    first_scored_us = int(times_us[warm_up]) // MINUTE_US * MINUTE_US + MINUTE_US
    end_us = int(times_us[-1])
    starts_us = np.arange(first_scored_us + 30 * MINUTE_US, end_us - MINUTE_US, BURST_EVERY * MINUTE_US)
    for number, start_us in enumerate(starts_us.tolist(), 1):
        at = int(rng.integers(0, len(anomalies)))
        run = np.arange(at, at + BURST_SIZE) % len(anomalies)
        when = start_us + np.sort(rng.integers(0, MINUTE_US, BURST_SIZE))
        pieces.append((when, anomalies[run], np.full(BURST_SIZE, number), np.ones(BURST_SIZE, np.bool_)))
    single_us = times_us[warm_up::SINGLE_EVERY] + 1
    apart = np.abs(single_us[:, None] - starts_us[None, :]).min(axis=1) > 5 * MINUTE_US
    single_us = single_us[apart] if plan.has_singles else single_us[:0]
    chosen = rng.integers(0, len(anomalies), len(single_us))
    none = np.zeros(len(single_us), np.int64)
    pieces.append((single_us, anomalies[chosen], none, np.ones(len(single_us), np.bool_)))
    when, features, bursts, is_anomaly = (np.concatenate(column) for column in zip(*pieces, strict=True))
    by_time = np.argsort(when, kind="stable")
    return LabelledStream(
        name=name,
        warm_up=warm_up,
        times_us=when[by_time],
        features=features[by_time],
        is_anomaly=is_anomaly[by_time],
        bursts=bursts[by_time],
    )


def write(feed: LabelledStream, folder: Path) -> tuple[Path, Path]:
    """Write the stream and its labels to files."""
    events, labels = folder / f"{feed.name}.jsonl", folder / f"{feed.name}.labels.csv"
    with events.open("w") as file:
        for at, (when, row) in enumerate(zip(feed.times_us.tolist(), feed.features.tolist(), strict=True)):
            file.write(json.dumps({"ts": when, "id": at, **{f"x{j}": value for j, value in enumerate(row)}}) + "\n")
    with labels.open("w") as file:
        file.write("id,label,burst\n")
        file.writelines(f"{at},1,{feed.bursts[at]}\n" for at in np.flatnonzero(feed.is_anomaly))
    return events, labels


def make_settings(feed: LabelledStream, path: Path, folder: Path) -> Settings:
    """Return the settings: defaults, adapted to the size of the stream."""
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


def evaluate_rule(feed: LabelledStream, fired: Bool, starts_us: NDArray[np.int64], resolve_after: int) -> list[object]:
    """Return alarms per day, false alarms per week, recall, median delay and precision of a rule."""
    at = np.flatnonzero(fired)
    if not len(at):
        return [0.0, 0.0, 0.0, "-", "-"]
    groups = np.split(at, np.flatnonzero(np.diff(at) > resolve_after) + 1)
    incidents = [[(start, start + MINUTE_US) for start in starts_us[run].tolist()] for run in groups]
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


def _burst(feed: LabelledStream, number: int) -> Burst:
    times_us = feed.times_us[feed.bursts == number]
    return Burst(start_us=int(times_us.min()), end_us=int(times_us.max()) + 1, events=len(times_us))


def counts_by_minute(feed: LabelledStream, flagged: Bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the minutes and the number of flagged events in each."""
    minute = feed.times_us // MINUTE_US
    first = int(minute[0])
    counts = np.bincount(minute - first, weights=flagged).astype(np.int64)
    return (first + np.arange(len(counts), dtype=np.int64)) * MINUTE_US, counts


def plain_percentile(feed: LabelledStream, energies: Float32) -> Bool:
    """Return a mask of energies above the percentile of the previous day, updated every 5 minutes."""
    flagged = np.zeros(len(energies), np.bool_)
    ticks = np.arange(int(feed.times_us[0]), int(feed.times_us[-1]) + 1, 5 * MINUTE_US)
    for tick in ticks.tolist():
        past = slice(*np.searchsorted(feed.times_us, [tick - DAY_US, tick]))
        current = slice(*np.searchsorted(feed.times_us, [tick, tick + 5 * MINUTE_US]))
        if past.stop - past.start >= 1_000:
            flagged[current] = energies[current] > np.percentile(energies[past], PERCENTILE)
    return flagged


def three_sigma(counts: NDArray[np.int64]) -> Bool:
    """Return a mask of minutes above mean + 3 sigma of the counts of the previous day."""
    fired = np.zeros(len(counts), np.bool_)
    for at in range(30, len(counts)):
        past = counts[max(0, at - 1440) : at]
        fired[at] = counts[at] > past.mean() + 3 * past.std()
    return fired


def half_space_trees(feed: LabelledStream, seed: int) -> Bool | None:
    """Return the events flagged by river, or None if it is not installed. Features are scaled to [0, 1]."""
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


def make_rows(
    name: str, folder: Path, false_alarms: Sequence[str], seed: int, plan: Plan, *, others: bool
) -> list[list[object]]:
    """Return the table rows of one set."""
    with tempfile.TemporaryDirectory() as made:
        feed = plant_anomalies(name, *load(name, folder), np.random.default_rng(seed), plan)
        events, labels = write(feed, Path(made))
        settings = make_settings(feed, events, Path(made))
        result = backtest(
            settings, "real", events, percentiles=[PERCENTILE, 99.5], false_alarms=false_alarms, labels=labels
        )
        models = fit_on_file(settings.streams["real"], events, "cpu")
        energies = models.scorer.energies(feed.features, models.active.id)
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
        for cell in result.cells
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
        alarms, false, recall, delay, precision = evaluate_rule(
            feed, fired, starts_us, 0 if rule == "always" else RESOLVE_AFTER
        )
        events_found = float(flags[feed.is_anomaly].mean())
        rows.append([name, rule, "-", alarms, "-", false, recall, delay, precision, events_found, ""])
    return rows


def main() -> None:
    """Print the table of all sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--others", action="store_true", help="include river, if it is installed")
    parser.add_argument(
        "--false-alarms", "--promises", dest="false_alarms", nargs="+", default=["1/hour", "1/day", "1/week"]
    )
    parser.add_argument("--minutes", type=int, default=MINUTES, help="minutes after the warm-up")
    parser.add_argument("--no-singles", action="store_true", help="plant bursts only")
    parser.add_argument("--seed", type=int, default=20261121)
    options = parser.parse_args()
    plan = Plan(minutes=options.minutes, has_singles=not options.no_singles)
    began_s = time.monotonic()
    for rate in options.false_alarms:
        parse_rate(rate)
    rows = [
        row
        for name in options.only
        for row in make_rows(name, options.data, options.false_alarms, options.seed, plan, others=options.others)
    ]
    show(
        f"Real data as streams: {plan.minutes} minutes of {EVENTS_PER_MINUTE} events; bursts of {BURST_SIZE} every "
        f"{BURST_EVERY} minutes" + f" and one in {SINGLE_EVERY} events" * plan.has_singles + f"; seed {options.seed}",
        [
            *("set", "rule", "budget", "alarms per day", "budget per week", "false per week", "recall", "delay s"),
            *("precision", "events found", "incidents"),
        ],
        rows,
    )
    print(f"took {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
