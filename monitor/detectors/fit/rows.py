"""Rows of a fit, standardised in chunks."""

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
    """Rows that are standardised chunk by chunk.

    Attributes:
        values: The rows in the units of `scaling`, (n, D).
        weights: One weight per row, (n,), or None for weight one.
        scaling: The scaling that standardises the rows.
        cached_float32: The standardised rows in float32. Only samples have it: for all rows it gains nothing
            measurable on 100,000 x 32.
        included: The mask of the rows that a pass uses, (n,); None for all rows.
    """

    values: FloatArray
    weights: Tensor | None
    scaling: Scaling
    cached_float32: Tensor | None
    included: NDArray[np.bool_] | None = None

    @staticmethod
    def from_array(values: FloatArray, weights: F64 | None, scaling: Scaling) -> "StandardisedRows":
        """Return the rows of an array, without a float32 cache."""
        w = None if weights is None else torch.from_numpy(weights)
        return StandardisedRows(values=values, weights=w, scaling=scaling, cached_float32=None)

    @staticmethod
    def from_standardised(z: F64, weights: F64) -> "StandardisedRows":
        """Return rows of an array that is standardised already, with a float32 cache."""
        d = z.shape[1]
        identity = Scaling(centre=np.zeros(d), scale=np.ones(d), max_abs_deviation=np.ones(d))
        cached = torch.from_numpy(z.astype(np.float32))
        return StandardisedRows(values=z, weights=torch.from_numpy(weights), scaling=identity, cached_float32=cached)

    def with_included(self, included: NDArray[np.bool_]) -> "StandardisedRows":
        """Return the same rows with another mask; the arrays are shared."""
        return replace(self, included=included)

    def subset(self, mask: NDArray[np.bool_]) -> "StandardisedRows":
        """Return a copy of the rows marked in `mask`."""
        rows = torch.from_numpy(mask)
        return StandardisedRows(
            values=self.values[mask],
            weights=None if self.weights is None else self.weights[rows],
            scaling=self.scaling,
            cached_float32=None if self.cached_float32 is None else self.cached_float32[rows],
        )

    def deduplicated(self) -> "StandardisedRows":
        """Return each distinct row once, with the total weight of its duplicates; unchanged if there are few."""
        distinct = group_duplicates(self.values)
        if distinct is None:
            return self
        weights = np.ones(len(self.values)) if self.weights is None else self.weights.numpy()
        return StandardisedRows(
            values=self.values[distinct.first_index],
            weights=torch.from_numpy(distinct.sum_weights(weights)),
            scaling=self.scaling,
            cached_float32=None
            if self.cached_float32 is None
            else self.cached_float32[torch.from_numpy(distinct.first_index)],
        )

    def to_float32(self) -> tuple[Tensor, Tensor]:
        """Return all standardised rows and their weights in float32; intended for samples."""
        z = self.cached_float32
        if z is None:
            z = torch.from_numpy(self.scaling.standardise(self.values)).float()
        w = torch.ones(len(z)) if self.weights is None else self.weights.float()
        return z, w

    def iter_chunks(self, size: int, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """Yield the slice of every chunk, its included standardised rows, and their weights."""
        for start in range(0, len(self.values), size):
            rows = slice(start, min(start + size, len(self.values)))
            if self.cached_float32 is not None and dtype == torch.float32:
                z = self.cached_float32[rows]
            else:
                z = torch.from_numpy(self.scaling.standardise(self.values[rows])).to(dtype)
            w = None if self.weights is None else self.weights[rows].to(dtype)
            if self.included is not None:
                mask = torch.from_numpy(self.included[rows])
                z, w = z[mask], None if w is None else w[mask]
            yield rows, z, w
