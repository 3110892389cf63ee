"""Screening of training events: what is left out of clean and contaminated heads, and its effect on live events.

    python -m benchmarks.screening [--only kdd nab asd] [--components 1 4 auto] [--series N] [--rows N]

* kdd: KDD Cup 99 in the order of the log: a fit on the first 50,000 normal connections; the connections after them are
  live, with 40 runs of attacks, each cut to 500.
* nab, asd: the heads of real series (`benchmarks.detection`), clean and with planted outliers: scattered in all
  directions, 5 to 15 deviations away, or one flood of similar events. The normal events after the head are live, and
  outliers of the planted kind must be found among them (scattered ones for a clean head).

Thresholds are the percentile of the reference alone, as at the start of a stream; there is no look-back yet. The
columns: share left out, share that recurs, AUROC of the labelled live events, flagged normal live events divided by
the nominal share, share of the outliers that are found.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.real_streams.series import DATA, load_stored
from benchmarks.statistical.table import show
from config.streams import ModelSettings
from monitor.models.fitting import fit_model
from monitor.models.training_set import TrainingSet

Floats = NDArray[np.float32]
Bool = NDArray[np.bool_]
PERCENTILES = {"kdd": 99.5, "asd": 99.5, "nab": 98.0}
CONTAMINATIONS = (("clean", 0.0), ("scatter", 0.005), ("scatter", 0.05), ("flood", 0.01))
MAX_HEAD, MAX_LIVE = 4_000, 3_000
KDD_CONTINUOUS = slice(100, 118)
KDD_RUNS, KDD_RUN = 40, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Training events, normal live events, outliers to be found, and labelled live events for the AUROC."""

    name: str
    train: Floats
    normal: Floats
    outliers: Floats
    labelled: Floats
    labels: Bool


def kdd_case(folder: Path, n: int) -> Case:
    """Return the log of KDD Cup 99: n training events and all that follow."""
    rows = np.load(folder / "kddcup99_10percent.npz")["kdd"]
    normal, features = rows[:, -1] == 1, rows[:, KDD_CONTINUOUS].astype(np.float32)
    index, cut = np.arange(len(rows)), int(np.flatnonzero(normal)[n])
    starts = np.flatnonzero(np.concatenate([[True], normal[1:] != normal[:-1]]))
    run = np.searchsorted(starts, index, side="right") - 1
    lengths = np.diff(np.append(starts, len(rows)))
    runs = np.flatnonzero(~normal[starts] & (starts >= cut) & (lengths >= 20))
    runs = runs[np.linspace(0, len(runs) - 1, min(len(runs), KDD_RUNS)).round().astype(int)]
    live = (index >= cut) & (normal | (np.isin(run, runs) & (index - starts[run] < KDD_RUN)))
    return Case(
        name="kdd",
        train=features[(index < cut) & normal],
        normal=features[live & normal],
        outliers=features[live & ~normal],
        labelled=features[live],
        labels=~normal[live],
    )


def planted_cases(name: str, folder: Path, n_series: int) -> Iterator[Case]:
    """Yield the heads of a set, each clean and with planted outliers."""
    for number, series in enumerate(load_stored(name, folder)):
        if number >= n_series:
            return
        features = series.features.astype(np.float32)
        head, labels = features[: series.head][:MAX_HEAD], series.is_anomaly[series.head :]
        live = features[series.head :]
        for kind, share in CONTAMINATIONS:
            rng = np.random.default_rng([number, len(kind)])
            train, planted = plant(head, kind, share, rng) if share else (head, head[:0])
            normal = live[~labels][:MAX_LIVE]
            scattered = plant(normal, "scatter", 0.2, rng)[1]
            yield Case(
                name=f"{name} {kind} {share:.1%}",
                train=train,
                normal=normal,
                outliers=planted if kind == "flood" else scattered,
                labelled=live,
                labels=labels,
            )


def plant(features: Floats, kind: str, share: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the events with outliers planted among them, and the outliers."""
    events, deviation = features.astype(np.float64), features.std(axis=0, dtype=np.float64)
    n, d = events.shape
    n_planted = max(1, round(share * n))
    if kind == "scatter":
        rows, offsets = rng.choice(n, n_planted, replace=False), rng.uniform(5, 15, (n_planted, 1))
        directions = rng.normal(size=(n_planted, d))
    else:
        rows, offsets = rng.integers(0, n - n_planted) + np.arange(n_planted), np.full((n_planted, 1), 8.0)
        directions = np.tile(rng.normal(size=d), (n_planted, 1))
    directions /= np.abs(directions).max(axis=1, keepdims=True)
    events[rows] += (directions * offsets + 0.3 * (kind == "flood") * rng.normal(size=(n_planted, d))) * deviation
    return events.astype(np.float32), events[rows].astype(np.float32)


def measure(case: Case, components: Any, percentile: float) -> list[float]:
    """Return left out, recurring, AUROC, flagged normal events / nominal and found outliers of a fit."""
    names = tuple(f"x{column}" for column in range(case.train.shape[1]))
    training = TrainingSet(features=case.train, names=names, rejected=0, exhausted=True)
    model = fit_model(training, ModelSettings(n_components=components))
    threshold = np.quantile(model.reference, percentile / 100)
    summary, energy = model.new_model.summary, model.detector.energy
    both = bool(case.labels.any()) and not case.labels.all()
    return [
        summary["left_out"] / len(case.train),
        summary.get("recurring", 0) / len(case.train),
        float(roc_auc_score(case.labels, energy(case.labelled))) if both else float("nan"),
        float((energy(case.normal) > threshold).mean()) / (1 - percentile / 100),
        float((energy(case.outliers) > threshold).mean()),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", nargs="+", choices=sorted(PERCENTILES), default=sorted(PERCENTILES))
    parser.add_argument("--components", nargs="+", default=["auto"])
    parser.add_argument("--series", type=int, default=3, help="measure the first N series of each set")
    parser.add_argument("--rows", type=int, default=50_000, help="training events of kdd")
    options = parser.parse_args()
    rows: list[list[object]] = []
    for name in options.only:
        for text in options.components:
            components = text if text == "auto" else int(text)
            results: dict[str, list[list[float]]] = {}
            kdd = [kdd_case(options.data, options.rows)] if name == "kdd" else []
            for case in kdd or planted_cases(name, options.data, options.series):
                results.setdefault(case.name, []).append(measure(case, components, PERCENTILES[name]))
            rows += [
                [case, text, len(found), *np.nanmean(found, axis=0).tolist(), float(np.median(found, axis=0)[3])]
                for case, found in results.items()
            ]
    columns = (
        *("head", "components", "series", "left out", "recurs", "AUROC"),
        *("flagged / nominal, mean", "outliers found", "flagged / nominal, median"),
    )
    show("Screening of training events", columns, rows)


if __name__ == "__main__":
    main()
