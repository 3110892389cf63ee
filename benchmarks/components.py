"""Number of components of `n_components: auto`, against scikit-learn's mixture of the best held-out likelihood.

    python -m benchmarks.components [--only iris wine cancer digits digits8 ...] [--gains 0.8 0.95] [--tasks N]

* iris, wine, cancer, digits, digits8 (the first 8 principal components): one class is held out as outliers, once each;
  the normal events are of the other classes. 60% of them are the training events.
* mammography, thyroid, shuttle: ADBench sets; at most 4,800 normal training events.
* kdd: KDD Cup 99 in the order of the log (`benchmarks.screening`), 5,000 training events, every fourth live one.
* nab, skab, asd: the heads of real series, at most 3,000 events, and the labelled events after them.

The columns: the mean AUROC and the mean number of components of scikit-learn, of one component, and of auto with each
share of the held-out gain (`SUFFICIENT_GAIN`; 1 takes the smallest number within one standard error), and the CPU
seconds of the fits. Sets without their file are left out.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture as ScikitMixture
from sklearn.model_selection import KFold

from benchmarks.real_streams.series import DATA, load_stored
from benchmarks.screening import kdd_case
from benchmarks.statistical.table import show
from monitor.detectors import GaussianMixture
from monitor.detectors.fit import selection

Floats = NDArray[np.floating]
CLASSES = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "digits8": datasets.load_digits,
}
ADBENCH = ("mammography", "thyroid", "shuttle")
SERIES = ("nab", "skab", "asd")
TRAIN_SHARE = 0.6
MAX_NORMAL, MAX_HEAD, MAX_SERIES = 8_000, 3_000, 14
KDD_TRAIN, KDD_STEP = 5_000, 4
MAX_COMPONENTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Training events, and labelled test events."""

    train: Floats
    test: Floats
    labels: NDArray[np.bool_]


def split(features: Floats, is_outlier: NDArray[np.bool_], rng: np.random.Generator) -> Task:
    """Return a task with a part of the normal events for training, and the others and the outliers for the test."""
    normal = rng.permutation(np.flatnonzero(~is_outlier))[:MAX_NORMAL]
    cut = int(TRAIN_SHARE * len(normal))
    test = np.concatenate([normal[cut:], np.flatnonzero(is_outlier)])
    return Task(train=features[normal[:cut]], test=features[test], labels=is_outlier[test])


def hold_out_classes(name: str) -> Iterator[Task]:
    """Yield a task for each class of a set of scikit-learn."""
    loaded = CLASSES[name]()
    features, classes = loaded.data.astype(np.float64), loaded.target
    if name == "digits8":
        centred = features - features.mean(axis=0)
        features = centred @ np.linalg.svd(centred, full_matrices=False)[2][:8].T
    for each in np.unique(classes):
        yield split(features, classes == each, np.random.default_rng([0, int(each)]))


def series_tasks(name: str, folder: Path) -> Iterator[Task]:
    """Yield a task for each labelled series of a set."""
    for series in islice(load_stored(name, folder), MAX_SERIES):
        labels = series.is_anomaly[series.head :]
        if labels.any() and not labels.all():
            step = max(1, series.head // MAX_HEAD)
            features = series.features
            yield Task(train=features[: series.head : step], test=features[series.head :], labels=labels)


def load_tasks(name: str, folder: Path) -> Iterator[Task]:
    """Yield the tasks of a set; none if its file does not exist."""
    path = folder / {"kdd": "kddcup99_10percent.npz"}.get(
        name, f"streams_{name}.npz" if name in SERIES else f"{name}.npz"
    )
    if name in CLASSES:
        yield from hold_out_classes(name)
    elif not path.exists():
        return
    elif name in SERIES:
        yield from series_tasks(name, folder)
    elif name in ADBENCH:
        stored = np.load(path)
        yield split(stored["X"].astype(np.float64), stored["y"] == 1, np.random.default_rng(0))
    else:
        case, every = kdd_case(folder, KDD_TRAIN), slice(None, None, KDD_STEP)
        yield Task(train=case.train, test=case.labelled[every], labels=case.labels[every])


def fit_scikit(train: Floats) -> tuple[int, Callable[[Floats], Floats]]:
    """Return the number of components of the best held-out likelihood over three folds, and the energy."""
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-12
    z = (train - mean) / deviation

    def held_out(k: int) -> float:
        folds = KFold(3, shuffle=True, random_state=0).split(z)
        return float(np.mean([_scikit(k, 1).fit(z[kept]).score(z[held]) for kept, held in folds]))

    k = max(range(1, MAX_COMPONENTS + 1), key=held_out)
    mixture = _scikit(k, 2).fit(z)
    return k, lambda rows: -mixture.score_samples((rows - mean) / deviation)


def _scikit(k: int, n_init: int) -> ScikitMixture:
    return ScikitMixture(k, random_state=0, reg_covar=1e-4, n_init=n_init)


def fit_auto(train: Floats, gain: float) -> tuple[int, Callable[[Floats], Floats]]:
    """Return the number of components of auto with a share of the held-out gain, and the energy."""
    usual, selection.SUFFICIENT_GAIN = selection.SUFFICIENT_GAIN, gain
    try:
        mixture = GaussianMixture("auto", random_state=0).fit(train)
    finally:
        selection.SUFFICIENT_GAIN = usual
    return len(mixture.weights_), mixture.energy


def fit_one(train: Floats) -> tuple[int, Callable[[Floats], Floats]]:
    """Return 1 and the energy under one component."""
    return 1, GaussianMixture(1).fit(train).energy


def measure(tasks: Sequence[Task], fit: Callable[[Floats], tuple[int, Callable[[Floats], Floats]]]) -> list[float]:
    """Return mean AUROC, mean number of components and the CPU seconds of all fits."""
    found, seconds = [], 0.0
    for task in tasks:
        started_s = time.process_time()
        k, energy = fit(task.train)
        seconds += time.process_time() - started_s
        found.append((float(roc_auc_score(task.labels, energy(task.test))), k))
    return [*np.mean(found, axis=0).tolist(), seconds]


def main() -> None:
    """Print the table."""
    names = (*CLASSES, *ADBENCH, "kdd", *SERIES)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--gains", nargs="+", type=float, default=[0.8, selection.SUFFICIENT_GAIN, 1.0])
    parser.add_argument("--tasks", type=int, default=100, help="measure the first N tasks of each set")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: list[list[object]] = []
    for name in options.only:
        tasks = list(islice(load_tasks(name, options.data), options.tasks))
        methods: dict[str, Callable[[Floats], tuple[int, Callable[[Floats], Floats]]]] = {
            "scikit-learn": fit_scikit,
            "one": fit_one,
        }
        methods |= {f"auto {gain:g}": lambda train, gain=gain: fit_auto(train, gain) for gain in options.gains}
        rows += [[name, len(tasks), method, *measure(tasks, fit)] for method, fit in methods.items() if tasks]
    show("Number of components", ("set", "tasks", "method", "AUROC", "components", "fit CPU s"), rows)


if __name__ == "__main__":
    main()
