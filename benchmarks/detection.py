"""Labelled real streams: recall of anomalous segments, false incidents per week and time under alarms.

    python -m benchmarks.detection [--only nab skab asd kdd] [--methods outrider-init isolation-forest ...]
        [--series N] [--parity even|odd] [--flights flights.jsonl] [--jobs 2]

The sets are halves of NAB (metrics of servers and applications, 5 minutes to an hour apart), SKAB (8 sensors of a
water loop, a second apart) and ASD (19 metrics of a server, 5 minutes apart), KDD Cup 99 in log order, and a year of
flights. Settings and methods are chosen on these halves; the other halves are for reports. Each series has a head of
normal events, on which every method is fitted or calibrated, and labelled segments after it. An incident finds a
segment if it fires within the segment or one window after it, and was opened at most one window before it. All other
incidents are false. Budget: one false incident a week.

The methods:

* outrider-init: the configuration that `outrider init` writes for the head, run by the back-test; outrider-no-...: the
  same with one part switched off;
* outrider-hand: windows of 12 events (30 of a stream of seconds), percentile 99, 3 outliers, the head as warm-up;
* energy-count, max-z, hour-z, isolation-forest, lagged-pca, ecod, hbos, half-space-trees: the energies of Outrider's
  model, the largest |z| of an event, the same per hour of the day, scikit-learn's isolation forest, the residuals of 12
  lagged events from principal components, PyOD's ECOD and HBOS, river's half-space trees; a window fires if 3 or more
  of its events exceed the 99th percentile of the scores of the head. Methods of packages that are not installed are
  left out (`pip install pyod river`).

The columns: series, segments, recall, false incidents per week, share of the series with at most one false incident a
week, covered (share of the normal time after the head within fired windows), open (share of it within open incidents),
median delay in events, AUROC and average precision of the scores of single events, CPU microseconds per event (of the
whole method, the fit included).
"""

import argparse
import importlib.util
import multiprocessing
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.real_streams.methods import METHODS
from benchmarks.real_streams.series import DATA, LOADERS, Series, load_flights
from benchmarks.statistical.table import show
from config.time_format import WEEK_US
from monitor.backtest.outcome import match_bursts

NEEDED_PACKAGES = {"ecod": "pyod", "hbos": "pyod", "half-space-trees": "river"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Result of one method on one series."""

    segments: int
    delays_events: Sequence[float]
    false: int
    weeks: float
    covered: float
    under_incident: float
    auroc: float | None
    average_precision: float | None
    cpu_us: float


def measure(series: Series, method: str) -> Measures:
    """Run a method on a series and compare its incidents and scores with the labels after the head."""
    began_s = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        found = METHODS[method](series, Path(folder))
    cpu_s = time.process_time() - began_s
    live_us, end_us = int(series.times_us[series.head]), int(series.times_us[-1]) + series.step_us
    incidents = [[window for window in fired if window[1] > live_us] for fired in found.incidents]
    incidents = [fired for fired in incidents if fired]
    segments = series.segments()
    matches = match_bursts(incidents, segments, slack_us=found.window_us, size_us=found.window_us)
    labels, scores = series.is_anomaly[series.head :], found.scores[series.head :]
    normal_us = series.times_us[series.head :][~labels]
    both = bool(labels.any()) and not labels.all()
    return Measures(
        segments=len(segments),
        delays_events=[delay / series.step_us for delay in matches.delays_us],
        false=matches.unmatched,
        weeks=(end_us - live_us) / WEEK_US,
        covered=share_covered(normal_us, [window for fired in incidents for window in fired]),
        under_incident=share_covered(normal_us, found.open_spans),
        auroc=float(roc_auc_score(labels, scores)) if both else None,
        average_precision=float(average_precision_score(labels, scores)) if both else None,
        cpu_us=cpu_s * 1e6 / len(series.times_us),
    )


def share_covered(times_us: NDArray[np.int64], spans: Iterable[tuple[int, int]]) -> float:
    """Return the share of times that lie in one of the [start, end) spans, which may overlap."""
    ordered = np.array(sorted(set(spans)), np.int64).reshape(-1, 2)
    if not len(ordered) or not len(times_us):
        return 0.0
    place = np.searchsorted(ordered[:, 0], times_us, side="right") - 1
    latest_end_us = np.maximum.accumulate(ordered[:, 1])
    return float(np.mean((place >= 0) & (times_us < latest_end_us[np.maximum(place, 0)])))


def make_row(name: str, method: str, found: Sequence[Measures]) -> list[object]:
    """Return the table row of a method on a set."""
    segments, weeks = sum(each.segments for each in found), sum(each.weeks for each in found)
    delays = [delay for each in found for delay in each.delays_events]
    auroc = [each.auroc for each in found if each.auroc is not None]
    precision = [each.average_precision for each in found if each.average_precision is not None]
    return [
        name,
        method,
        len(found),
        segments,
        sum(len(each.delays_events) for each in found) / max(segments, 1),
        sum(each.false for each in found) / weeks,
        float(np.mean([each.false <= max(1.0, each.weeks) for each in found])),
        float(np.mean([each.covered for each in found])),
        float(np.mean([each.under_incident for each in found])),
        float(np.median(delays)) if delays else "-",
        float(np.mean(auroc)) if auroc else "-",
        float(np.mean(precision)) if precision else "-",
        float(np.median([each.cpu_us for each in found])),
    ]


def installed(methods: Sequence[str]) -> list[str]:
    """Return the methods that need no package that is missing; print the others."""
    missing = {
        each for each in methods if each in NEEDED_PACKAGES and not importlib.util.find_spec(NEEDED_PACKAGES[each])
    }
    for each in sorted(missing):
        print(f"left out: {each} needs {NEEDED_PACKAGES[each]}")
    return [each for each in methods if each not in missing]


def main() -> None:
    """Print the table of all sets and methods."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", nargs="*", choices=sorted(LOADERS), default=["nab", "skab", "asd", "kdd"])
    parser.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=list(METHODS))
    parser.add_argument("--series", type=int, help="measure only the first N series of each set")
    parser.add_argument("--parity", choices=["even", "odd"], help="measure only every other series of each set")
    parser.add_argument("--flights", type=Path, help="measure the flights in this file of JSON lines too")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--each", action="store_true", help="print a row for each series too")
    options = parser.parse_args()
    sets = {name: list(LOADERS[name](options.data)) for name in options.only}
    if options.flights is not None:
        sets["flights"] = list(load_flights(options.flights))
    step = slice(None) if options.parity is None else slice(int(options.parity == "odd"), None, 2)
    chosen = [(name, each) for name, series in sets.items() for each in series[step][: options.series]]
    methods = installed(options.methods)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        work = {(name, each.name, how): pool.submit(measure, each, how) for name, each in chosen for how in methods}
        found = {key: result.result() for key, result in work.items()}
    rows = [
        make_row(name, how, [m for key, m in found.items() if (key[0], key[2]) == (name, how)])
        for name in sets
        for how in methods
    ]
    if options.each:
        rows += [make_row(f"{name}: {series}", how, [each]) for (name, series, how), each in found.items()]
    columns = (
        *("set", "method", "series", "segments", "recall", "false per week", "within budget", "covered", "open"),
        *("delay events", "AUROC", "AP", "CPU us per event"),
    )
    show("Labelled real streams, budget 1 false incident per week", columns, rows)


if __name__ == "__main__":
    main()
