"""Detectors: where EM starts, k-means++ centres and a few rounds of Lloyd's algorithm."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.detectors.fit.em import Mixture

_MAX_ROUNDS = 10


def kmeans_plus_plus(z: Tensor, weights: Tensor, k: int, rng: np.random.Generator, trimmed: float = 0.0) -> Tensor:
    """Return up to k rows as centres, each drawn in proportion to its squared distance (k-means++).

    Of a few candidates at every draw the one that lowers the total distance most is taken. Rows with fewer
    than k distinct values give fewer centres. The farthest rows, a share of
    `trimmed`, are never taken.
    """
    tries = 2 + int(np.log(k))
    centres = [z[_draw_rows(trim_farthest(z.square().sum(1), weights, trimmed), 1, rng)[0]]]
    nearest = (z - centres[0]).square().sum(1)
    while len(centres) < k:
        pull = nearest * trim_farthest(nearest, weights, trimmed)
        if not float(pull.sum()) > 0:
            break
        picked = z[_draw_rows(pull, tries, rng)]
        distances = torch.minimum(_squared_distances(z, picked), nearest.unsqueeze(1))
        best = int((weights @ distances).argmin())
        centres.append(picked[best])
        nearest = distances[:, best]
    return torch.stack(centres)


def trim_farthest(squared_distances: Tensor, weights: Tensor, share: float) -> Tensor:
    """Return the weights, with none for the share of the rows that are the farthest."""
    if share == 0:
        return weights
    return weights * (squared_distances <= squared_distances.double().quantile(1 - share))


def squared_distance_to_nearest(z: Tensor, centres: Tensor) -> Tensor:
    """Return the squared distance of each row to its nearest centre."""
    return _squared_distances(z, centres).amin(1)


def k_means(z: Tensor, weights: Tensor, centres: Tensor) -> tuple[Tensor, NDArray[np.int64]]:
    """Return centres and the place of each row after some rounds of Lloyd's algorithm."""
    place = _squared_distances(z, centres).argmin(1)
    for _ in range(_MAX_ROUNDS):
        k = len(centres)
        mass = torch.zeros(k, dtype=z.dtype).index_add_(0, place, weights)
        sums = torch.zeros(k, z.shape[1], dtype=z.dtype).index_add_(0, place, z * weights.unsqueeze(1))
        alive = mass > 0
        centres = sums[alive] / mass[alive].unsqueeze(1)
        before, place = place, _squared_distances(z, centres).argmin(1)
        if bool(alive.all()) and torch.equal(before, place):
            break
    return centres, place.numpy()


def mixture_from_labels(z: Tensor, weights: Tensor, place: NDArray[np.int64], k: int) -> tuple[Mixture, Tensor]:
    """Return the mixture of hard assignments (no shrinkage yet), and the mass of each component."""
    d = z.shape[1]
    f64 = torch.float64
    index = torch.from_numpy(place)
    wide, w = z.double(), weights.double()
    mass = torch.zeros(k, dtype=f64).index_add_(0, index, w)
    alive = mass > 0
    means = torch.zeros(k, d, dtype=f64).index_add_(0, index, wide * w.unsqueeze(1))
    means = means / mass.clamp_min(torch.finfo(f64).tiny).unsqueeze(1)
    covariances = torch.zeros(k, d, d, dtype=f64)
    for component in range(k):
        rows = index == component
        away = wide[rows] - means[component]
        covariances[component] = (away * w[rows].unsqueeze(1)).T @ away / mass[component].clamp_min(1e-300)
    mixture = Mixture(weights=mass[alive] / mass.sum(), means=means[alive], covariances=covariances[alive])
    return mixture, mass[alive]


def _squared_distances(z: Tensor, centres: Tensor) -> Tensor:
    cross = z @ centres.T
    squares = z.square().sum(1).unsqueeze(1) - 2 * cross + centres.square().sum(1)
    return squares.clamp_min_(0.0)


def _draw_rows(pull: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Draw row numbers in proportion to `pull`, by the inverse of its cumulative sum."""
    cumulative = pull.double().cumsum(0)
    at = torch.from_numpy(rng.random(count)) * cumulative[-1]
    return torch.searchsorted(cumulative, at, right=True).clamp_max_(len(pull) - 1)
