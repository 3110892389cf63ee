"""Benchmark of scoring, in energies per second, compared with other libraries in the same run.

All libraries score the same float32 events under the same mixture on the same threads. `--quick` uses smaller batches
and less time, `--threads` sets the number of threads, and `--device cuda` adds Outrider on a GPU. The error is the
largest one relative to energies in float64, |error| / max(|energy|, 1).

`--others` adds anomalib and pytorch-ood if they can be imported (`pip install anomalib pytorch-ood`, about 50
packages); a library that cannot be imported is reported and skipped. pytorch-ood does not accept parameters: it is
fitted on labelled rows of the mixture, so its error is that of the fit and is not shown. alibi-detect cannot be
installed with this project: version 0.13 with TensorFlow requires numpy below 2. Libraries without chunking get
batches in chunks of 4096 rows, as their users have to do.
"""

import argparse
import importlib
import os
import resource
import sys
import time
from pathlib import Path


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--others", action="store_true")
    return parser.parse_args()


OPTIONS = parse_arguments()
# Remove this folder from the path: its statistics.py would hide the standard module of that name.
sys.path = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(OPTIONS.threads)

import numpy as np  # noqa: E402 - the libraries read the number of threads at import
import torch  # noqa: E402

from monitor.detectors import GaussianMixture  # noqa: E402

torch.set_num_threads(OPTIONS.threads)
CELLS = [(8, 4), (32, 8), (128, 16)]
BATCHES = [1, 256, 4096] if OPTIONS.quick else [1, 256, 4096, 65536, 1_000_000]
SECONDS = 0.1 if OPTIONS.quick else 0.6


def make_mixture(d, k):
    rng = np.random.default_rng(d)
    root = rng.normal(size=(k, d, d))
    covariances = root @ root.swapaxes(1, 2) / d + 0.1 * np.eye(d)
    return rng.dirichlet(np.full(k, 3.0)), rng.normal(size=(k, d)) * 2, covariances


def scikit_learn(weights, means, covariances):
    model = importlib.import_module("sklearn.mixture").GaussianMixture(len(weights))
    model.weights_, model.means_ = weights.astype(np.float32), means.astype(np.float32)
    model.covariances_ = covariances.astype(np.float32)
    upper = np.linalg.inv(np.linalg.cholesky(covariances)).swapaxes(1, 2)
    model.precisions_cholesky_ = upper.astype(np.float32)
    model.n_features_in_ = means.shape[1]
    return lambda x: -model.score_samples(x)


def torch_distributions(weights, means, covariances):
    tensor = lambda values: torch.from_numpy(values.astype(np.float32))  # noqa: E731
    components = torch.distributions.MultivariateNormal(tensor(means), tensor(covariances))
    distribution = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(tensor(weights)), components, validate_args=False
    )

    def energies(x):
        # One call on 10^6 x 128 needs terabytes of memory, so rows are passed in chunks.
        return np.concatenate([-distribution.log_prob(part).numpy() for part in torch.from_numpy(x).split(4096)])

    return energies


def in_chunks(score):
    """Return a function that applies `score`, a function of a tensor, to a numpy array in chunks of 4096 rows."""

    def energies(x):
        with torch.no_grad():
            return np.concatenate([score(part).numpy() for part in torch.from_numpy(x).split(4096)])

    return energies


def anomalib(weights, means, covariances):
    model = importlib.import_module("anomalib.models.components.cluster.gmm").GaussianMixture(len(weights))
    model.weights, model.means = torch.from_numpy(weights).float(), torch.from_numpy(means).float()
    model.covariances = torch.from_numpy(covariances).float()
    return in_chunks(lambda part: -model.score_samples(part))


def pytorch_ood(_weights, means, covariances):
    rng = np.random.default_rng(0)
    k, d = means.shape
    labels = np.repeat(np.arange(k), 20 * d)
    rows = np.einsum("nij,nj->ni", np.linalg.cholesky(covariances)[labels], rng.normal(size=(len(labels), d)))
    model = importlib.import_module("pytorch_ood.detector").GMM(None)
    model.fit_features(torch.from_numpy(rows + means[labels]).float(), torch.from_numpy(labels))
    return in_chunks(model.predict_features)


def make_optional_scorers(parameters):
    """Return the scoring functions of the optional libraries, and print the ones that cannot be imported."""
    functions = {}
    for name, make in (("anomalib", anomalib), ("pytorch-ood", pytorch_ood)):
        try:
            functions[name] = make(*parameters)
        except Exception as error:  # noqa: BLE001 - any error of an optional package skips it
            print(f"{name} is skipped: {type(error).__name__}: {error}")
    return functions


def measure_rate(score, x):
    """Return the rows per second of the fastest call within `SECONDS`."""
    score(x)
    times = []
    end = time.perf_counter() + SECONDS
    while not times or time.perf_counter() < end:
        started_at = time.perf_counter()
        score(x)
        times.append(time.perf_counter() - started_at)
    return len(x) / min(times)


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    print(f"threads {OPTIONS.threads}, device {OPTIONS.device}, numpy {np.__version__}, torch {torch.__version__}")
    print(f"{'D, K':>8} {'batch':>8} {'library':>20} {'rows/s':>12} {'speed ratio':>12} {'error':>9} {'+MiB':>6}")
    for d, k in CELLS:
        parameters = make_mixture(d, k)
        outrider = GaussianMixture.from_parameters(*parameters)
        scorers = {"outrider": outrider.energy}
        if OPTIONS.device != "cpu":
            scorers[f"outrider {OPTIONS.device}"] = GaussianMixture.from_parameters(
                *parameters, device=OPTIONS.device
            ).energy
        scorers["scikit-learn"] = scikit_learn(*parameters)
        scorers["torch.distributions"] = torch_distributions(*parameters)
        if OPTIONS.others:
            scorers |= make_optional_scorers(parameters)
        for batch in BATCHES:
            x = (np.random.default_rng(1).normal(size=(batch, d)) * 2).astype(np.float32)
            exact = outrider.energy(x[:4096].astype(np.float64))
            outrider_speed = 0.0
            for label, score in scorers.items():
                memory_before = peak_mib()
                functions = score(x)[:4096]
                error = np.max(np.abs(functions - exact) / np.maximum(np.abs(exact), 1))
                shown_error = "" if label == "pytorch-ood" else f"{error:.1e}"
                speed = measure_rate(score, x)
                outrider_speed = outrider_speed or speed
                print(
                    f"{f'{d}, {k}':>8} {batch:>8} {label:>20} {speed:>12,.0f} {outrider_speed / speed:>12.2f} "
                    f"{shown_error:>9} {peak_mib() - memory_before:>6.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    sys.exit(main())
