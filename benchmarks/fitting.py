"""Benchmark of fitting a mixture, compared with scikit-learn in the same run.

All models have the same rows, number of components and threads. The table has the time, the mean held-out
log-likelihood and the growth of the process's memory. Outrider tries four initialisations. Therefore scikit-learn is
listed twice: with its default of one, which can end in a worse maximum, and with four. `--data` is the KDD Cup 99
array (an .npz file with `kdd`); without it only synthetic rows are fitted. `--quick` uses fewer rows.
"""

import argparse
import os
import resource
import sys
import time
import warnings


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", help="the KDD Cup 99 array")
    return parser.parse_args()


OPTIONS = parse_arguments()
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(OPTIONS.threads)

import numpy as np  # noqa: E402 - the libraries read the number of threads at import
import torch  # noqa: E402
from sklearn.mixture import GaussianMixture as ScikitLearn  # noqa: E402

from monitor.detectors import GaussianMixture  # noqa: E402

torch.set_num_threads(OPTIONS.threads)


def make_synthetic_rows(n, d, k, separation):
    rng = np.random.default_rng(5)
    means = rng.normal(size=(k, d)) * separation
    roots = rng.normal(size=(k, d, d)) / np.sqrt(d) + 0.5 * np.eye(d)
    labels = rng.integers(0, k, n)
    x = np.empty((n, d), dtype=np.float32)
    for component in range(k):
        rows = labels == component
        x[rows] = means[component] + rng.normal(size=(rows.sum(), d)) @ roots[component].T
    return x


def load_kdd_rows(path, n):
    rows = np.load(path)["kdd"]
    x = rows[rows[:, -1] == 0][:, :118].astype(np.float32)
    np.random.default_rng(0).shuffle(x)
    return x[:n]


def iter_cases():
    n = 20_000 if OPTIONS.quick else 100_000
    yield "separated, 32 columns", make_synthetic_rows(n * 6 // 5, 32, 8, 1.5), 8
    yield "overlapping, 32 columns", make_synthetic_rows(n * 6 // 5, 32, 8, 0.25), 8
    if OPTIONS.data:
        yield "KDD attacks, 118 columns", load_kdd_rows(OPTIONS.data, 24_000 if OPTIONS.quick else 238_000), 4


def time_matrix_products(x, k):
    """Return the time of the necessary matrix products of one pass, in seconds: K per row, then one per row."""
    d = x.shape[1]
    factors = torch.randn(d, k * d)
    rows = torch.from_numpy(x)
    started_at = time.perf_counter()
    for part in rows.split(2048):
        part @ factors
        part.T @ part
    return time.perf_counter() - started_at


def main():
    print(f"threads {OPTIONS.threads}, numpy {np.__version__}, torch {torch.__version__}")
    print(f"{'rows':>26} {'model':>14} {'seconds':>8} {'relative':>8} {'held out':>10} {'passes':>7} {'+MiB':>6}")
    GaussianMixture(2).fit(make_synthetic_rows(500, 4, 2, 1.0))
    for name, x, k in iter_cases():
        cut = len(x) * 5 // 6
        outrider_seconds = 0.0
        print(f"{name:>26}: the matrix products of one float32 pass take {time_matrix_products(x[:cut], k):.3f} s")
        for label, model in (
            ("outrider", GaussianMixture(k, random_state=0)),
            ("scikit-learn", ScikitLearn(k, random_state=0)),
            ("same, n_init=4", ScikitLearn(k, random_state=0, n_init=4)),
        ):
            memory_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            started_at = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    model.fit(x[:cut])
                except ValueError as error:
                    print(f"{name:>26} {label:>14} failed: {str(error)[:60]}")
                    continue
            seconds = time.perf_counter() - started_at
            memory_growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_before) / 1024
            outrider_seconds = outrider_seconds or seconds
            held_out = float(np.mean(model.score_samples(x[cut:]), dtype=np.float64))
            print(
                f"{f'{cut} of {name}':>26} {label:>14} {seconds:>8.2f} {seconds / outrider_seconds:>7.1f}x "
                f"{held_out:>10.4f} {model.n_iter_:>7} {memory_growth:>6.0f}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
