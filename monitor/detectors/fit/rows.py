"""Detectors: the rows of a fit, standardised in chunks."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.detectors.fit.duplicates import group_duplicates
from monitor.detectors.inputs.checks import FloatArray
from monitor.detectors.inputs.scaling import Scaling

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardisedRows:
    """Standardised rows in chunks.

    Only a sample is kept in single precision: with all rows that gains nothing measurable on 100,000 x 32.
    `inside` marks the rows that count, where not all do.
    """

    values: FloatArray
    weights: Tensor | None
    scaling: Scaling
    cached_float32: Tensor | None
    included: NDArray[np.bool_] | None = None

    @staticmethod
    def from_array(values: FloatArray, weights: F64 | None, scaling: Scaling) -> "StandardisedRows":
        """Return the rows of an array."""
        w = None if weights is None else torch.from_numpy(weights)
        return StandardisedRows(values=values, weights=w, scaling=scaling, cached_float32=None)

    @staticmethod
    def from_standardised(z: F64, weights: F64) -> "StandardisedRows":
        """Return rows that are standardised already."""
        d = z.shape[1]
        same = Scaling(centre=np.zeros(d), scale=np.ones(d), max_abs_deviation=np.ones(d))
        cached = torch.from_numpy(z.astype(np.float32))
        return StandardisedRows(values=z, weights=torch.from_numpy(weights), scaling=same, cached_float32=cached)

    def with_included(self, inside: NDArray[np.bool_]) -> "StandardisedRows":
        """Return the same rows, of which only those marked count; nothing is copied."""
        return replace(self, included=inside)

    def subset(self, mask: NDArray[np.bool_]) -> "StandardisedRows":
        """Return some of the rows."""
        place = torch.from_numpy(mask)
        return StandardisedRows(
            values=self.values[mask],
            weights=None if self.weights is None else self.weights[place],
            scaling=self.scaling,
            cached_float32=None if self.cached_float32 is None else self.cached_float32[place],
        )

    def deduplicated(self) -> "StandardisedRows":
        """Return each row once, with the weight of all that equal it; the same rows where few are equal."""
        found = group_duplicates(self.values)
        if found is None:
            return self
        weights = np.ones(len(self.values)) if self.weights is None else self.weights.numpy()
        return StandardisedRows(
            values=self.values[found.first_index],
            weights=torch.from_numpy(found.sum_weights(weights)),
            scaling=self.scaling,
            cached_float32=None
            if self.cached_float32 is None
            else self.cached_float32[torch.from_numpy(found.first_index)],
        )

    def to_float32(self) -> tuple[Tensor, Tensor]:
        """Return all rows and their weights in single precision, for the few that are a sample."""
        z = self.cached_float32
        if z is None:
            z = torch.from_numpy(self.scaling.standardise(self.values)).float()
        w = torch.ones(len(z)) if self.weights is None else self.weights.float()
        return z, w

    def iter_chunks(self, size: int, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """Yield the place, and the standardised rows that count and their weights, of every chunk."""
        for at in range(0, len(self.values), size):
            place = slice(at, min(at + size, len(self.values)))
            if self.cached_float32 is not None and dtype == torch.float32:
                z = self.cached_float32[place]
            else:
                z = torch.from_numpy(self.scaling.standardise(self.values[place])).to(dtype)
            w = None if self.weights is None else self.weights[place].to(dtype)
            if self.included is not None:
                counts = torch.from_numpy(self.included[place])
                z, w = z[counts], None if w is None else w[counts]
            yield place, z, w
