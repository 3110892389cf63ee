"""Benchmark: fitting a mixture, side by side with scikit-learn in one run.

Same rows, same number of components, same threads; what counts beside the seconds is the mean
log-likelihood of rows held out, and the growth of the process's memory. Ours tries four starts, so scikit-learn
stands beside it with its default of one, which may end in a worse maximum, and with four. `--data` takes the KDD
Cup 99 array (an .npz with `kdd`); without it only the synthetic rows are fitted. `--quick` takes fewer rows.
"""

import argparse
import os
import resource
import sys
import time
import warnings


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", help="the KDD Cup 99 array")
    return parser.parse_args()


OPTIONS = arguments()
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(OPTIONS.threads)

import numpy as np  # noqa: E402 - the libraries read the number of threads when they are imported
import torch  # noqa: E402
from sklearn.mixture import GaussianMixture as ScikitLearn  # noqa: E402

from monitor.detectors import GaussianMixture  # noqa: E402

torch.set_num_threads(OPTIONS.threads)


def synthetic(n, d, k, separation):
    rng = np.random.default_rng(5)
    means = rng.normal(size=(k, d)) * separation
    roots = rng.normal(size=(k, d, d)) / np.sqrt(d) + 0.5 * np.eye(d)
    place = rng.integers(0, k, n)
    x = np.empty((n, d), dtype=np.float32)
    for component in range(k):
        rows = place == component
        x[rows] = means[component] + rng.normal(size=(rows.sum(), d)) @ roots[component].T
    return x


def kdd(path, n):
    rows = np.load(path)["kdd"]
    x = rows[rows[:, -1] == 0][:, :118].astype(np.float32)
    np.random.default_rng(0).shuffle(x)
    return x[:n]


def cases():
    n = 20_000 if OPTIONS.quick else 100_000
    yield "apart, 32 columns", synthetic(n * 6 // 5, 32, 8, 1.5), 8
    yield "overlapping, 32 columns", synthetic(n * 6 // 5, 32, 8, 0.25), 8
    if OPTIONS.data:
        yield "KDD attacks, 118 columns", kdd(OPTIONS.data, 24_000 if OPTIONS.quick else 238_000), 4


def products_of_a_pass(x, k):
    """Return the seconds of the matrix products that one pass cannot do without: all K, then one K a row."""
    d = x.shape[1]
    factors = torch.randn(d, k * d)
    rows = torch.from_numpy(x)
    began = time.perf_counter()
    for part in rows.split(2048):
        part @ factors
        part.T @ part
    return time.perf_counter() - began


def main():
    print(f"threads {OPTIONS.threads}, numpy {np.__version__}, torch {torch.__version__}")
    print(f"{'rows':>26} {'who':>14} {'seconds':>8} {'to ours':>8} {'held out':>10} {'passes':>7} {'+MiB':>6}")
    GaussianMixture(2).fit(synthetic(500, 4, 2, 1.0))
    for name, x, k in cases():
        cut = len(x) * 5 // 6
        first = 0.0
        print(f"{name:>26}: the products of one float32 pass alone take {products_of_a_pass(x[:cut], k):.3f} s")
        for who, model in (
            ("outrider", GaussianMixture(k, random_state=0)),
            ("scikit-learn", ScikitLearn(k, random_state=0)),
            ("same, 4 starts", ScikitLearn(k, random_state=0, n_init=4)),
        ):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            began = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    model.fit(x[:cut])
                except ValueError as reason:
                    print(f"{name:>26} {who:>14} failed: {str(reason)[:60]}")
                    continue
            seconds = time.perf_counter() - began
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            first = first or seconds
            held_out = float(np.mean(model.score_samples(x[cut:]), dtype=np.float64))
            print(
                f"{f'{cut} of {name}':>26} {who:>14} {seconds:>8.2f} {seconds / first:>7.1f}x {held_out:>10.4f} "
                f"{model.n_iter_:>7} {grown:>6.0f}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
