"""Initialisation of EM: k-means++ centres and a few rounds of Lloyd's algorithm."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.detectors.fit.em import Mixture

_MAX_ROUNDS = 10


def kmeans_plus_plus(z: Tensor, weights: Tensor, k: int, rng: np.random.Generator, trimmed: float = 0.0) -> Tensor:
    """Draw up to k rows as centres, with probabilities proportional to the squared distances (k-means++).

    Every draw takes, of a few candidates, the one with the lowest total distance. Fewer than k distinct rows give
    fewer centres.

    Args:
        z: The standardised rows, (n, D).
        weights: One weight per row, (n,).
        k: The number of centres.
        rng: The random generator.
        trimmed: The fraction of the farthest rows that are never drawn.

    Returns:
        The centres, (k, D).
    """
    n_candidates = 2 + int(np.log(k))
    centres = [z[_draw_rows(trim_farthest(z.square().sum(1), weights, trimmed), 1, rng)[0]]]
    nearest = (z - centres[0]).square().sum(1)
    while len(centres) < k:
        relative_weights = nearest * trim_farthest(nearest, weights, trimmed)
        if not float(relative_weights.sum()) > 0:
            break
        candidates = z[_draw_rows(relative_weights, n_candidates, rng)]
        distances = torch.minimum(_squared_distances(z, candidates), nearest.unsqueeze(1))
        best = int((weights @ distances).argmin())
        centres.append(candidates[best])
        nearest = distances[:, best]
    return torch.stack(centres)


def trim_farthest(squared_distances: Tensor, weights: Tensor, fraction: float) -> Tensor:
    """Return the weights, with zeros for the given fraction of the farthest rows."""
    if fraction == 0:
        return weights
    return weights * (squared_distances <= squared_distances.double().quantile(1 - fraction))


def squared_distance_to_nearest(z: Tensor, centres: Tensor) -> Tensor:
    """Return the squared distance of each row to its nearest centre."""
    return _squared_distances(z, centres).amin(1)


def k_means(z: Tensor, weights: Tensor, centres: Tensor) -> tuple[Tensor, NDArray[np.int64]]:
    """Return centres (K, D) and the label of each row after at most `_MAX_ROUNDS` of Lloyd's algorithm."""
    labels = _squared_distances(z, centres).argmin(1)
    for _ in range(_MAX_ROUNDS):
        k = len(centres)
        mass = torch.zeros(k, dtype=z.dtype).index_add_(0, labels, weights)
        sums = torch.zeros(k, z.shape[1], dtype=z.dtype).index_add_(0, labels, z * weights.unsqueeze(1))
        alive = mass > 0
        centres = sums[alive] / mass[alive].unsqueeze(1)
        before, labels = labels, _squared_distances(z, centres).argmin(1)
        if bool(alive.all()) and torch.equal(before, labels):
            break
    return centres, labels.numpy()


def mixture_from_labels(z: Tensor, weights: Tensor, labels: NDArray[np.int64], k: int) -> tuple[Mixture, Tensor]:
    """Return the mixture of hard assignments, without shrinkage, and the mass of each component."""
    d = z.shape[1]
    f64 = torch.float64
    index = torch.from_numpy(labels)
    z64, w = z.double(), weights.double()
    mass = torch.zeros(k, dtype=f64).index_add_(0, index, w)
    alive = mass > 0
    means = torch.zeros(k, d, dtype=f64).index_add_(0, index, z64 * w.unsqueeze(1))
    means = means / mass.clamp_min(torch.finfo(f64).tiny).unsqueeze(1)
    covariances = torch.zeros(k, d, d, dtype=f64)
    for component in range(k):
        rows = index == component
        deviation = z64[rows] - means[component]
        covariances[component] = (deviation * w[rows].unsqueeze(1)).T @ deviation / mass[component].clamp_min(1e-300)
    mixture = Mixture(weights=mass[alive] / mass.sum(), means=means[alive], covariances=covariances[alive])
    return mixture, mass[alive]


def _squared_distances(z: Tensor, centres: Tensor) -> Tensor:
    cross = z @ centres.T
    squares = z.square().sum(1).unsqueeze(1) - 2 * cross + centres.square().sum(1)
    return squares.clamp_min_(0.0)


def _draw_rows(relative_weights: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Draw row indices with probabilities proportional to `relative_weights`, by inverting their cumulative sum."""
    cumulative = relative_weights.double().cumsum(0)
    at = torch.from_numpy(rng.random(count)) * cumulative[-1]
    return torch.searchsorted(cumulative, at, right=True).clamp_max_(len(relative_weights) - 1)
