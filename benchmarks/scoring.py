"""Benchmark: energies per second, side by side in one run.

Every competitor scores the same float32 events under the same mixture on the same threads. `--quick` takes
smaller batches and less time, `--threads` sets the threads of all, `--device cuda` scores ours on a GPU
beside the processor. Accuracy is the largest error relative to float64 truth, |error| / max(|energy|, 1).

`--others` adds anomalib and pytorch-ood where they can be imported (`pip install anomalib pytorch-ood`, some 50
packages); one that cannot is named and left out. pytorch-ood takes no parameters: it is fitted on labelled
rows of the mixture, so its error is that of its fit and is not shown. alibi-detect cannot stand beside this
project: version 0.13 with TensorFlow asks for numpy below 2. Batches of theirs whose work would not fit are
given in pieces of 4096 rows, as their users must.
"""

import argparse
import importlib
import os
import resource
import sys
import time
from pathlib import Path


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--others", action="store_true")
    return parser.parse_args()


OPTIONS = arguments()
# The benchmark of statistics beside this file is not the module that other packages import by that name.
sys.path = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(OPTIONS.threads)

import numpy as np  # noqa: E402 - the libraries read the number of threads when they are imported
import torch  # noqa: E402

from monitor.detectors import GaussianMixture  # noqa: E402

torch.set_num_threads(OPTIONS.threads)
CELLS = [(8, 4), (32, 8), (128, 16)]
BATCHES = [1, 256, 4096] if OPTIONS.quick else [1, 256, 4096, 65536, 1_000_000]
SECONDS = 0.1 if OPTIONS.quick else 0.6


def mixture(d, k):
    rng = np.random.default_rng(d)
    root = rng.normal(size=(k, d, d))
    covariances = root @ root.swapaxes(1, 2) / d + 0.1 * np.eye(d)
    return rng.dirichlet(np.full(k, 3.0)), rng.normal(size=(k, d)) * 2, covariances


def scikit_learn(weights, means, covariances):
    theirs = importlib.import_module("sklearn.mixture").GaussianMixture(len(weights))
    theirs.weights_, theirs.means_ = weights.astype(np.float32), means.astype(np.float32)
    theirs.covariances_ = covariances.astype(np.float32)
    upper = np.linalg.inv(np.linalg.cholesky(covariances)).swapaxes(1, 2)
    theirs.precisions_cholesky_ = upper.astype(np.float32)
    theirs.n_features_in_ = means.shape[1]
    return lambda x: -theirs.score_samples(x)


def torch_distributions(weights, means, covariances):
    tensor = lambda values: torch.from_numpy(values.astype(np.float32))  # noqa: E731
    parts = torch.distributions.MultivariateNormal(tensor(means), tensor(covariances))
    mix = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(tensor(weights)), parts, validate_args=False
    )

    def energies(x):
        # One call on 10^6 x 128 would want terabytes: it is given pieces, as its users must.
        return np.concatenate([-mix.log_prob(part).numpy() for part in torch.from_numpy(x).split(4096)])

    return energies


def in_pieces(score):
    """Return the energies of a numpy array by a function of a tensor, 4096 rows at a time."""

    def energies(x):
        with torch.no_grad():
            return np.concatenate([score(part).numpy() for part in torch.from_numpy(x).split(4096)])

    return energies


def anomalib(weights, means, covariances):
    theirs = importlib.import_module("anomalib.models.components.cluster.gmm").GaussianMixture(len(weights))
    theirs.weights, theirs.means = torch.from_numpy(weights).float(), torch.from_numpy(means).float()
    theirs.covariances = torch.from_numpy(covariances).float()
    return in_pieces(lambda part: -theirs.score_samples(part))


def pytorch_ood(_weights, means, covariances):
    rng = np.random.default_rng(0)
    k, d = means.shape
    labels = np.repeat(np.arange(k), 20 * d)
    rows = np.einsum("nij,nj->ni", np.linalg.cholesky(covariances)[labels], rng.normal(size=(len(labels), d)))
    theirs = importlib.import_module("pytorch_ood.detector").GMM(None)
    theirs.fit_features(torch.from_numpy(rows + means[labels]).float(), torch.from_numpy(labels))
    return in_pieces(theirs.predict_features)


def others(parameters):
    """Return the optional competitors that can be imported here, and say which cannot."""
    found = {}
    for name, make in (("anomalib", anomalib), ("pytorch-ood", pytorch_ood)):
        try:
            found[name] = make(*parameters)
        except Exception as reason:  # noqa: BLE001 - whatever somebody else's package says, the benchmark goes on
            print(f"{name} is left out: {type(reason).__name__}: {reason}")
    return found


def rate(score, x):
    """Return rows per second of the fastest call within the time, and of the median call."""
    score(x)
    times = []
    end = time.perf_counter() + SECONDS
    while not times or time.perf_counter() < end:
        began = time.perf_counter()
        score(x)
        times.append(time.perf_counter() - began)
    return len(x) / min(times)


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    print(f"threads {OPTIONS.threads}, device {OPTIONS.device}, numpy {np.__version__}, torch {torch.__version__}")
    print(f"{'D, K':>8} {'batch':>8} {'who':>20} {'rows/s':>12} {'ours/theirs':>12} {'error':>9} {'+MiB':>6}")
    for d, k in CELLS:
        parameters = mixture(d, k)
        truth = GaussianMixture.from_parameters(*parameters)
        who = {"outrider": truth.energy}
        if OPTIONS.device != "cpu":
            who[f"outrider {OPTIONS.device}"] = GaussianMixture.from_parameters(
                *parameters, device=OPTIONS.device
            ).energy
        who["scikit-learn"] = scikit_learn(*parameters)
        who["torch.distributions"] = torch_distributions(*parameters)
        if OPTIONS.others:
            who |= others(parameters)
        for batch in BATCHES:
            x = (np.random.default_rng(1).normal(size=(batch, d)) * 2).astype(np.float32)
            exact = truth.energy(x[:4096].astype(np.float64))
            ours = 0.0
            for label, score in who.items():
                before = peak_mib()
                found = score(x)[:4096]
                error = np.max(np.abs(found - exact) / np.maximum(np.abs(exact), 1))
                shown = "" if label == "pytorch-ood" else f"{error:.1e}"
                speed = rate(score, x)
                ours = ours or speed
                print(
                    f"{f'{d}, {k}':>8} {batch:>8} {label:>20} {speed:>12,.0f} {ours / speed:>12.2f} "
                    f"{shown:>9} {peak_mib() - before:>6.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    sys.exit(main())
