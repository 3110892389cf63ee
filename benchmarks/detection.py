"""Labelled real streams: recall of anomalous segments, false incidents per week and time under alarms.

    python -m benchmarks.detection [--only nab skab asd] [--methods outrider-init isolation-forest ...] [--series N]

The sets are halves of NAB (metrics of servers and applications, 5 minutes to an hour apart), SKAB (8 sensors of a
water loop, a second apart) and ASD (19 metrics of a server, 5 minutes apart). Settings and methods are chosen on these
halves; the other halves are for reports. Each series has a head of normal events, on which every method is fitted or
calibrated, and labelled segments after it. An incident finds a segment if it fires within the segment or one window
after it, and was opened at most one window before it. All other incidents are false. Budget: one false incident a week.

The methods:

* outrider-init: the configuration that `outrider init` writes for the head, run by the back-test;
* outrider-hand: windows of 12 events (30 of a stream of seconds), percentile 99, 3 outliers, the head as warm-up;
* max-z, hour-z, isolation-forest: the largest |z| of an event, the same per hour of the day, scikit-learn's
  isolation forest; a window fires if 3 or more of its events exceed the 99th percentile of the scores of the head.

The columns: series, segments, recall, false incidents per week, share of the series with at most one false incident a
week, covered (share of the normal time after the head within fired windows), median delay in events, AUROC and average
precision of the scores of single events, CPU microseconds per event (of the whole method, the fit included).
"""

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from click.testing import CliRunner
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.statistical.table import show
from config.loading import load
from config.settings import Settings
from config.time_format import HOUR_US, SECOND_US, WEEK_US
from monitor.backtest import backtest
from monitor.backtest.labels import Burst
from monitor.backtest.models import fit_on_file
from monitor.backtest.outcome import FiredWindows, match_bursts
from monitor.cli.main import outrider

DATA = Path(__file__).parents[2] / "shared" / "data"
SETS = ("nab", "skab", "asd")
PERCENTILE = 99.0
MIN_OUTLIERS = 3
RESOLVE_AFTER = 3
STREAM = "series"

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A labelled series; the first `head` events are normal and precede all that is measured."""

    name: str
    times_us: NDArray[np.int64]
    features: Float64
    is_anomaly: Bool
    head: int

    @property
    def step_us(self) -> int:
        """Return the median distance of two events."""
        return int(np.median(np.diff(self.times_us)))

    @property
    def window_us(self) -> int:
        """Return the window of the rules and of the settings by hand."""
        return self.step_us * (30 if self.step_us < 60 * SECOND_US else 12)

    def segments(self) -> list[Burst]:
        """Return the labelled segments after the head."""
        edges = np.flatnonzero(np.diff(np.concatenate([[False], self.is_anomaly, [False]]).astype(np.int8)))
        times_us, step_us = self.times_us, self.step_us
        return [
            Burst(start_us=int(times_us[begin]), end_us=int(times_us[end - 1]) + step_us)
            for begin, end in edges.reshape(-1, 2).tolist()
            if begin >= self.head
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """Incidents, as fired windows each, and the scores of all events; `window_us` is the length of a window."""

    incidents: Sequence[FiredWindows]
    scores: Float64
    window_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Result of one method on one series."""

    segments: int
    delays_events: Sequence[float]
    false: int
    weeks: float
    covered: float
    auroc: float | None
    average_precision: float | None
    cpu_us: float


def load_series(name: str, folder: Path) -> Iterator[Series]:
    """Yield the series of a set."""
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


def run_with_init(series: Series, folder: Path) -> Detection:
    """Run the back-test with the configuration that `outrider init` writes for the head."""
    head, path = folder / "head.csv", folder / "outrider.yaml"
    write_csv(series, head, series.head)
    arguments = ["-c", str(path), "init", "--file", str(head)]
    result = CliRunner().invoke(outrider, arguments, catch_exceptions=False)
    if result.exit_code:
        raise click.ClickException(result.output)
    settings = load(path, os.environ)
    ((_, stream),) = settings.streams.items()
    return run_backtest(series, settings.model_copy(update={"streams": {STREAM: stream}}), folder)


def run_by_hand(series: Series, folder: Path) -> Detection:
    """Run the back-test with settings that fit the series."""
    window_s = series.window_us // SECOND_US
    stream = {
        "source": {"type": "file", "path": str(folder / "all.csv")},
        "event": {"time": {"field": "ts", "unit": "us"}, "features": _feature_names(series)},
        "model": {"warm_up": series.head},
        "window": {"size": f"{window_s}s"},
        "threshold": {"percentile": PERCENTILE, "look_back": f"{max(24 * 3600, 300 * window_s)}s"},
        "alerts": {"min_outliers": MIN_OUTLIERS, "resolve_after": RESOLVE_AFTER, "false_alarms": "1/week"},
    }
    return run_backtest(series, Settings.model_validate({"streams": {STREAM: stream}}), folder)


def run_backtest(series: Series, settings: Settings, folder: Path) -> Detection:
    """Run the code of the daemon over the whole series."""
    path = folder / "all.csv"
    write_csv(series, path, len(series.times_us))
    database = settings.database.model_copy(update={"url": f"sqlite:///{folder / 'none.db'}"})
    settings = settings.model_copy(update={"database": database, "device": "cpu"})
    stream = settings.streams[STREAM]
    result = backtest(
        settings, STREAM, path, percentiles=[stream.threshold.percentile], false_alarms=[stream.alerts.false_alarms]
    )
    models = fit_on_file(stream, path, "cpu")
    columns = [_feature_names(series).index(name) for name in models.active.feature_names]
    return Detection(
        incidents=[life.fired_windows for life in result.memories[0].incidents if life.fired_windows],
        scores=models.scorer.energies(series.features[:, columns], models.active.id).astype(np.float64),
        window_us=round(stream.window.size.total_seconds() * 1e6),
    )


def write_csv(series: Series, path: Path, n: int) -> None:
    """Write the first n events with their times in microseconds."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ts", *_feature_names(series)])
        writer.writerows(
            [when, *row] for when, row in zip(series.times_us[:n].tolist(), series.features[:n].tolist(), strict=True)
        )


def _feature_names(series: Series) -> list[str]:
    return [f"x{column}" for column in range(series.features.shape[1])]


def score_by_z(series: Series) -> Float64:
    """Return the largest |z| of each event over its features, by mean and deviation of the head."""
    return np.abs(_standardise(series.features, series.features[: series.head])).max(axis=1)


def score_by_hour_z(series: Series) -> Float64:
    """Return the largest |z| of each event within its hour of the day; an hour with under 20 events uses the head."""
    hours, head = series.times_us // HOUR_US % 24, np.arange(len(series.times_us)) < series.head
    scores = score_by_z(series)
    for hour in range(24):
        own = hours == hour
        if (own & head).sum() >= 20:
            scores[own] = np.abs(_standardise(series.features[own], series.features[own & head])).max(axis=1)
    return scores


def score_by_isolation_forest(series: Series) -> Float64:
    """Return the scores of an isolation forest that is fitted on the head."""
    forest = IsolationForest(n_estimators=200, random_state=0).fit(series.features[: series.head])
    return -forest.score_samples(series.features)


def _standardise(features: Float64, reference: Float64) -> Float64:
    deviation = reference.std(axis=0)
    return (features - reference.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)


def detect_by_count(series: Series, scores: Float64) -> Detection:
    """Open an incident for windows with `MIN_OUTLIERS` events above the percentile of the head's scores."""
    threshold = np.percentile(scores[: series.head], PERCENTILE)
    starts_us = series.times_us // series.window_us * series.window_us
    distinct_us, place = np.unique(starts_us, return_inverse=True)
    counts = np.bincount(place, weights=scores > threshold)
    fired_us = distinct_us[(counts >= MIN_OUTLIERS) & (distinct_us + series.window_us > series.times_us[series.head])]
    breaks = np.flatnonzero(np.diff(fired_us) > RESOLVE_AFTER * series.window_us) + 1
    incidents = [[(start, start + series.window_us) for start in run.tolist()] for run in np.split(fired_us, breaks)]
    return Detection(incidents=[each for each in incidents if each], scores=scores, window_us=series.window_us)


METHODS: dict[str, Callable[[Series, Path], Detection]] = {
    "outrider-init": run_with_init,
    "outrider-hand": run_by_hand,
    "max-z": lambda series, _: detect_by_count(series, score_by_z(series)),
    "hour-z": lambda series, _: detect_by_count(series, score_by_hour_z(series)),
    "isolation-forest": lambda series, _: detect_by_count(series, score_by_isolation_forest(series)),
}


def measure(series: Series, method: Callable[[Series, Path], Detection]) -> Measures:
    """Run a method on a series and compare its incidents and scores with the labels after the head."""
    began_s = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        found = method(series, Path(folder))
    cpu_s = time.process_time() - began_s
    live_us, end_us = int(series.times_us[series.head]), int(series.times_us[-1]) + series.step_us
    incidents = [[window for window in fired if window[1] > live_us] for fired in found.incidents]
    incidents = [fired for fired in incidents if fired]
    segments = series.segments()
    matches = match_bursts(incidents, segments, slack_us=found.window_us, size_us=found.window_us)
    labels, scores = series.is_anomaly[series.head :], found.scores[series.head :]
    both = bool(labels.any()) and not labels.all()
    return Measures(
        segments=len(segments),
        delays_events=[delay / series.step_us for delay in matches.delays_us],
        false=matches.unmatched,
        weeks=(end_us - live_us) / WEEK_US,
        covered=share_covered(series.times_us[series.head :][~labels], incidents),
        auroc=float(roc_auc_score(labels, scores)) if both else None,
        average_precision=float(average_precision_score(labels, scores)) if both else None,
        cpu_us=cpu_s * 1e6 / len(series.times_us),
    )


def share_covered(times_us: NDArray[np.int64], incidents: Sequence[FiredWindows]) -> float:
    """Return the share of times that lie in a fired window."""
    fired = np.array(sorted({window for windows in incidents for window in windows}), np.int64).reshape(-1, 2)
    if not len(fired) or not len(times_us):
        return 0.0
    place = np.searchsorted(fired[:, 0], times_us, side="right") - 1
    return float(np.mean((place >= 0) & (times_us < fired[np.maximum(place, 0), 1])))


def make_row(name: str, method: str, found: Sequence[Measures]) -> list[object]:
    """Return the table row of a method on a set."""
    segments, weeks = sum(each.segments for each in found), sum(each.weeks for each in found)
    delays = [delay for each in found for delay in each.delays_events]
    return [
        name,
        method,
        len(found),
        segments,
        sum(len(each.delays_events) for each in found) / max(segments, 1),
        sum(each.false for each in found) / weeks,
        float(np.mean([each.false <= max(1.0, each.weeks) for each in found])),
        float(np.mean([each.covered for each in found])),
        float(np.median(delays)) if delays else "-",
        float(np.mean([each.auroc for each in found if each.auroc is not None])),
        float(np.mean([each.average_precision for each in found if each.average_precision is not None])),
        float(np.median([each.cpu_us for each in found])),
    ]


def main() -> None:
    """Print the table of all sets and methods."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=list(METHODS))
    parser.add_argument("--series", type=int, help="measure only the first N series of each set")
    options = parser.parse_args()
    rows: list[list[object]] = []
    for name in options.only:
        series = list(load_series(name, options.data))[: options.series]
        rows += [make_row(name, each, [measure(one, METHODS[each]) for one in series]) for each in options.methods]
    columns = (
        *("set", "method", "series", "segments", "recall", "false per week", "within budget", "covered"),
        *("delay events", "AUROC", "AP", "CPU us per event"),
    )
    show("Labelled real streams, budget 1 false incident per week", columns, rows)


if __name__ == "__main__":
    main()
