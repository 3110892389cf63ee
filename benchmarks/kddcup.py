"""Benchmark of outlier detection on KDD Cup 99 and three smaller data sets, with both published protocols.

    python benchmarks/kddcup.py --seeds 10

* Protocol A (18 continuous features, as published with the networks): train on normal traffic. The threshold is the
  95th percentile of the scores of a batch with 5% attacks. Test on a batch with 10% attacks.
* Protocol B (118 features, from DAGMM): attacks are the majority class and count as inliers. Train on the inliers of
  one half of the data. The threshold is the quantile of the other half at its known outlier fraction.
* Smaller data sets: train on half of the inliers.

The table has F1 and the AUROC, which needs no threshold; for the smaller sets only the AUROC. A single Gaussian of
scikit-learn is the baseline.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.mixture import GaussianMixture as ScikitMixture

from monitor.detectors import AEGMM, VAEGMM, ClassConditionalGaussian, GaussianMixture

F32 = NDArray[np.float32]
Score = Callable[[F32], NDArray[np.floating[Any]]]
DATA = Path(__file__).parents[2] / "shared" / "data" / "kddcup99_10percent.npz"
CONTINUOUS = slice(100, 118)
PROTOCOLS = slice(0, 3)  # icmp, tcp and udp, one-hot: the classes of ClassConditionalGaussian
BATCH = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One draw of a protocol: training rows, and test rows with their true labels."""

    train: F32
    labels: NDArray[np.int64]
    threshold_rows: F32 | None
    percentile: float
    test: F32
    is_outlier: NDArray[np.bool_]


def protocol_a(kdd: F32, seed: int, cap: int) -> Trial:
    rng = np.random.default_rng(seed)
    inliers = rng.permutation(np.flatnonzero(kdd[:, 118] == 1))
    attacks = rng.permutation(np.flatnonzero(kdd[:, 118] == 0))
    held_out, remaining = np.split(inliers, [int(BATCH * 1.85)])
    train = remaining[:cap]
    low = np.concatenate([held_out[: int(BATCH * 0.95)], attacks[: int(BATCH * 0.05)]])
    high = np.concatenate([held_out[int(BATCH * 0.95) :], attacks[int(BATCH * 0.05) : int(BATCH * 0.15)]])
    return Trial(
        train=kdd[train, CONTINUOUS],
        labels=kdd[train, PROTOCOLS].argmax(1),
        threshold_rows=kdd[low, CONTINUOUS],
        percentile=95.0,
        test=kdd[high, CONTINUOUS],
        is_outlier=kdd[high, 118] == 0,
    )


def protocol_b(kdd: F32, seed: int, cap: int) -> Trial:
    order = np.random.default_rng(seed).permutation(len(kdd))
    train, test = np.array_split(order, 2)
    train = train[kdd[train, 118] == 0][:cap]
    is_outlier = kdd[test, 118] == 1
    return Trial(
        train=kdd[train, :118],
        labels=kdd[train, PROTOCOLS].argmax(1),
        threshold_rows=None,
        percentile=100.0 * (1.0 - float(is_outlier.mean())),
        test=kdd[test, :118],
        is_outlier=is_outlier,
    )


def split_inliers(rows: F32, is_outlier: NDArray[np.bool_], seed: int) -> Trial:
    rng = np.random.default_rng(seed)
    inliers = rng.permutation(np.flatnonzero(~is_outlier))
    train, held_out = np.array_split(inliers, 2)
    test = np.concatenate([held_out, np.flatnonzero(is_outlier)])
    return Trial(
        train=rows[train],
        labels=np.zeros(len(train), dtype=np.int64),
        threshold_rows=None,
        percentile=100.0 * (1.0 - float(is_outlier[test].mean())),
        test=rows[test],
        is_outlier=is_outlier[test],
    )


def fit_standardised(trial: Trial, score: Callable[[F32], Score]) -> Score:
    """Fit on rows scaled by the mean and deviation of the training rows, as in the published runs."""
    mean, deviation = trial.train.mean(0, dtype=np.float64), trial.train.std(0, dtype=np.float64)
    deviation = np.where(deviation > 1e-12, deviation, 1.0)
    fitted = score((trial.train - mean) / deviation)
    return lambda rows: fitted((rows - mean) / deviation)


def scikit(k: int) -> Callable[[Trial, int], Score]:
    def fit(trial: Trial, seed: int) -> Score:
        def fit_scaled(z: F32) -> Score:
            mixture = ScikitMixture(k, random_state=seed).fit(z)
            return lambda rows: -mixture.score_samples(rows)

        return fit_standardised(trial, fit_scaled)

    return fit


def scikit_by_likelihood(trial: Trial, seed: int) -> Score:
    """Return scikit-learn's mixture with the K of 1 to 8 of the best likelihood on a held-out fifth."""

    def fit_scaled(z: F32) -> Score:
        cut = len(z) * 4 // 5
        fits = [ScikitMixture(k, random_state=seed).fit(z[:cut]) for k in range(1, 9)]
        k = max(fits, key=lambda mixture: mixture.score(z[cut:])).n_components
        mixture = ScikitMixture(k, random_state=seed).fit(z)
        return lambda rows: -mixture.score_samples(rows)

    return fit_standardised(trial, fit_scaled)


def mixture(k: Any, **settings: Any) -> Callable[[Trial, int], Score]:
    return lambda trial, seed: GaussianMixture(k, random_state=seed, **settings).fit(trial.train).energy


def class_conditional(trial: Trial, seed: int) -> Score:
    del seed

    def fit_scaled(z: F32) -> Score:
        return ClassConditionalGaussian().fit_features(z, trial.labels).predict_features

    return fit_standardised(trial, fit_scaled)


def network(kind: Any, rows: int, settings: dict[str, Any], **options: Any) -> Callable[[Trial, int], Score]:
    """Return a fit on the first `rows` training rows, which are in random order."""

    def fit(trial: Trial, seed: int) -> Score:
        score: Score = kind(random_state=seed, **settings).fit(trial.train[:rows], verbose=False, **options).score
        return score

    return fit


def detectors(batch_size: int, epochs: int, network_rows: int) -> dict[str, Callable[[Trial, int], Score]]:
    options = {"batch_size": batch_size, "epochs": epochs}
    return {
        "scikit-learn, one Gaussian": scikit(1),
        "GaussianMixture K=1": mixture(1),
        "GaussianMixture K=2": mixture(2),
        "GaussianMixture K=4": mixture(4),
        "GaussianMixture auto": mixture("auto"),
        "GaussianMixture auto, reg 1e-3": mixture("auto", reg_covar=1e-3),
        "ClassConditional (by protocol)": class_conditional,
        "AEGMM": network(AEGMM, network_rows, {}, **options),
        "VAEGMM": network(VAEGMM, network_rows, {}, **options),
        "VAEGMM, n_gmm 2, w_recon 1e-3": network(VAEGMM, network_rows, {"n_gmm": 2}, w_recon=1e-3, **options),
    }


def judge(trial: Trial, score: Score) -> tuple[float, float]:
    """Return F1 at the threshold of the protocol, and the AUROC."""
    scores = score(trial.test).astype(np.float64)
    threshold_scores = scores if trial.threshold_rows is None else score(trial.threshold_rows)
    threshold = np.percentile(threshold_scores.astype(np.float64), trial.percentile)
    return float(f1_score(trial.is_outlier, scores > threshold)), float(roc_auc_score(trial.is_outlier, scores))


def print_table(
    title: str,
    trials: Iterable[tuple[int, Trial]],
    fits: dict[str, Callable[[Trial, int], Score]],
) -> None:
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in fits}
    for seed, trial in trials:
        for name, fit in fits.items():
            started_at = time.perf_counter()
            try:
                score = fit(trial, seed)
            except ValueError as error:
                print(f"  {name}, seed {seed}: {error}".splitlines()[0], flush=True)
                continue
            seconds = time.perf_counter() - started_at
            results[name].append((*judge(trial, score), seconds))
    print(f"\n{title}\n{'detector':32} {'F1':>8} {'+-':>7} {'AUROC':>8} {'+-':>7} {'fit s':>7} {'runs':>5}")
    for name, runs in results.items():
        if not runs:
            print(f"{name:32} failed on every seed")
            continue
        (f1, auroc, seconds), (f1_off, auroc_off, _) = np.mean(runs, axis=0), np.std(runs, axis=0)
        print(
            f"{name:32} {f1:8.4f} {f1_off:7.4f} {auroc:8.4f} {auroc_off:7.4f} {seconds:7.1f} {len(runs):5}",
            flush=True,
        )


def fetch_kdd() -> F32:
    """Return the array from scikit-learn's fetcher: one-hot columns first, then the continuous columns."""
    from sklearn.datasets import fetch_kddcup99
    from sklearn.preprocessing import minmax_scale

    data = fetch_kddcup99(percent10=True)
    raw, inliers = data.data, data.target == b"normal."
    word_columns = [1, 2, 3]
    flag_columns = [
        j for j in range(41) if j not in word_columns and set(np.unique(raw[:, j].astype(float))) <= {0.0, 1.0}
    ]
    remaining = [j for j in range(41) if j not in word_columns and j not in flag_columns]
    one_hot = [raw[:, [j]] == np.unique(raw[:, j])[None] for j in word_columns]
    numbers = minmax_scale(raw[:, flag_columns + remaining].astype(np.float64))
    return np.hstack([*one_hot, numbers, inliers[:, None]]).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=DATA, help="kddcup99_10percent.npz; the smaller data sets are in the same folder"
    )
    parser.add_argument("--seeds", type=int, default=10, help="the number of draws")
    parser.add_argument(
        "--first-seed", type=int, default=0, help="the first seed; settings were chosen on seeds 0 to 4"
    )
    parser.add_argument("--protocol", choices=["a", "b", "small", "all"], default="all")
    parser.add_argument("--train-rows", type=int, default=60_000, help="the maximum number of training rows")
    parser.add_argument(
        "--network-rows", type=int, default=60_000, help="the maximum number of training rows of networks"
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--only", default="", help="comma-separated words; only detectors with one of them in the name")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    words = [word for word in arguments.only.split(",") if word]
    available = detectors(arguments.batch_size, arguments.epochs, arguments.network_rows)
    fits = {name: fit for name, fit in available.items() if not words or any(word in name for word in words)}
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    print(
        f"seeds {seeds.start} to {seeds.stop - 1}, at most {arguments.train_rows} training rows, networks "
        f"{arguments.network_rows} of them in {arguments.epochs} epochs of batches of {arguments.batch_size}"
    )
    if arguments.protocol != "small":
        kdd = np.load(arguments.data)["kdd"].astype(np.float32) if arguments.data.exists() else fetch_kdd()
        for name, draw in (("a", protocol_a), ("b", protocol_b)):
            if arguments.protocol in (name, "all"):
                trials: Iterator[Any] = ((seed, draw(kdd, seed, arguments.train_rows)) for seed in seeds)
                print_table(f"KDD Cup 99, protocol {name.upper()}", trials, fits)
    if arguments.protocol in ("small", "all"):
        small = {
            "GaussianMixture auto": mixture("auto"),
            "GaussianMixture auto, reg 1e-3": mixture("auto", reg_covar=1e-3),
            "scikit-learn, best by likelihood": scikit_by_likelihood,
            "scikit-learn, one Gaussian": scikit(1),
        }
        for name in ("shuttle", "thyroid", "mammography"):
            path = arguments.data.parent / f"{name}.npz"
            if not path.exists():
                print(f"\n{name}: {path} does not exist")
                continue
            data = np.load(path)
            rows, is_outlier = data["X"].astype(np.float32), data["y"] == 1
            print_table(name, ((seed, split_inliers(rows, is_outlier, seed)) for seed in seeds), small)


if __name__ == "__main__":
    main()
