"""Detectors: the rows of a fit, standardised in chunks."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.detectors.inputs import FloatArray
from monitor.detectors.repeats import distinct
from monitor.detectors.scaling import Scaling

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Standardised rows in chunks.

    Only a sample is kept in single precision: with all rows that gains nothing measurable on 100,000 x 32.
    `inside` marks the rows that count, where not all do.
    """

    values: FloatArray
    weights: Tensor | None
    scaling: Scaling
    cached: Tensor | None
    inside: NDArray[np.bool_] | None = None

    @staticmethod
    def of(values: FloatArray, weights: F64 | None, scaling: Scaling) -> "Rows":
        """Return the rows of an array."""
        w = None if weights is None else torch.from_numpy(weights)
        return Rows(values=values, weights=w, scaling=scaling, cached=None)

    @staticmethod
    def standardised(z: F64, weights: F64) -> "Rows":
        """Return rows that are standardised already."""
        d = z.shape[1]
        same = Scaling(centre=np.zeros(d), scale=np.ones(d), reach=np.ones(d))
        cached = torch.from_numpy(z.astype(np.float32))
        return Rows(values=z, weights=torch.from_numpy(weights), scaling=same, cached=cached)

    def only(self, inside: NDArray[np.bool_]) -> "Rows":
        """Return the same rows, of which only those marked count; nothing is copied."""
        return replace(self, inside=inside)

    def take(self, mask: NDArray[np.bool_]) -> "Rows":
        """Return some of the rows."""
        place = torch.from_numpy(mask)
        return Rows(
            values=self.values[mask],
            weights=None if self.weights is None else self.weights[place],
            scaling=self.scaling,
            cached=None if self.cached is None else self.cached[place],
        )

    def folded(self) -> "Rows":
        """Return each row once, with the weight of all that equal it; the same rows where few are equal."""
        found = distinct(self.values)
        if found is None:
            return self
        weights = np.ones(len(self.values)) if self.weights is None else self.weights.numpy()
        return Rows(
            values=self.values[found.first],
            weights=torch.from_numpy(found.summed(weights)),
            scaling=self.scaling,
            cached=None if self.cached is None else self.cached[torch.from_numpy(found.first)],
        )

    def single(self) -> tuple[Tensor, Tensor]:
        """Return all rows and their weights in single precision, for the few that are a sample."""
        z = self.cached
        if z is None:
            z = torch.from_numpy(self.scaling.standardise(self.values)).float()
        w = torch.ones(len(z)) if self.weights is None else self.weights.float()
        return z, w

    def chunks(self, size: int, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """Yield the place, and the standardised rows that count and their weights, of every chunk."""
        for at in range(0, len(self.values), size):
            place = slice(at, min(at + size, len(self.values)))
            if self.cached is not None and dtype == torch.float32:
                z = self.cached[place]
            else:
                z = torch.from_numpy(self.scaling.standardise(self.values[place])).to(dtype)
            w = None if self.weights is None else self.weights[place].to(dtype)
            if self.inside is not None:
                counts = torch.from_numpy(self.inside[place])
                z, w = z[counts], None if w is None else w[counts]
            yield place, z, w
