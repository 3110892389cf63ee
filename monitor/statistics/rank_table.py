"""Vectorised ranks by table lookup, with the same integers as a comparison with every edge. Pure functions.

Comparing a value with all 63 edges costs about 20 ns, and wide events have many values. Here the cell of a value
determines the one edge that it may lie on either side of, and one comparison decides. Cells are equal steps of the bit
pattern of value - first edge: as integers, positive floats keep their order and grow like logarithms, so that the edges
of skewed features also lie in separate cells. Cells only have to be monotone in the values. Rounding does not change
that, so that no rounding error changes a rank on any machine.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.statistics.training_profile import N_BINS, Float32, Int8, Int64, centred_ranks

_N_CELLS = 512
"""Number of cells of a feature.

With half as many, every other distribution has two edges in one cell. More cells exceed the cache.
"""

_CHUNK_VALUES = 1 << 16
"""Values of a block of events, so that intermediate arrays stay in the processor cache."""

_MAX_FLOAT32 = np.finfo(np.float32).max

Int32 = NDArray[np.int32]
Intp = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankTable:
    """The edges of D columns, prepared for lookup.

    `first` is the first edge of each column. `low` and `high` are the distances from it that the cells cover, and
    `shift` is the number of low bits that a cell ignores. A cell has one edge or none (infinity); the edge may be
    several equal ones. `rank_below` is the rank below the edge, and `step` is added to it on the edge and again above
    it. In `shared_columns` different edges share a cell; these columns are compared with every edge.
    """

    edges: Float32
    first: Float32
    low: Float32
    high: Float32
    shift: Int32
    cell_edges: Float32
    rank_below: Int8
    step: Int8
    shared_columns: Int64

    @staticmethod
    def from_edges(edges: Float32) -> "RankTable":
        """Prepare edges of shape (D, 63), each row ascending and finite."""
        first = edges[:, 0].copy()
        with np.errstate(over="ignore"):
            distance = np.minimum(edges - first[:, None], _MAX_FLOAT32)
        positive = distance > 0
        lowest = np.where(
            positive.any(axis=1), distance.min(axis=1, where=positive, initial=_MAX_FLOAT32), np.float32(1)
        )
        high = np.maximum(distance[:, -1], lowest)
        shift = _compute_shifts(high.view(np.int32) - lowest.view(np.int32))
        # One cell below the second edge, so that the first two edges do not share a cell.
        low = np.maximum(lowest.view(np.int32) - (np.int32(1) << shift), 1).astype(np.int32).view(np.float32)
        cell = _find_cells(edges.T, first, low, high, shift).T
        counts = np.bincount(cell.ravel(), minlength=len(edges) * _N_CELLS).reshape(len(edges), _N_CELLS)
        below = 2 * (counts.cumsum(axis=1) - counts) + 1 - N_BINS
        cell_edges = np.full(len(edges) * _N_CELLS, np.inf, np.float32)
        cell_edges[cell.ravel()] = edges.ravel()
        shared = (np.diff(cell, axis=1) == 0) & (np.diff(edges, axis=1) > 0)
        return RankTable(
            edges=edges,
            first=first,
            low=low,
            high=high,
            shift=shift,
            cell_edges=cell_edges,
            rank_below=below.astype(np.int8).ravel(),
            step=counts.astype(np.int8).ravel(),
            shared_columns=np.flatnonzero(shared.any(axis=1)).astype(np.int64),
        )

    def centred_ranks(self, *values: Float32) -> Int8:
        """Return the ranks of `training_profile.centred_ranks`, row by row, (n, D).

        Args:
            values: Finite values, (n, D), or several arrays that are joined side by side.
        """
        ranks = np.empty((len(values[0]), len(self.first)), np.int8)
        rows = max(_CHUNK_VALUES // len(self.first), 1)
        for at in range(0, len(ranks), rows):
            block = np.concatenate([piece[at : at + rows] for piece in values], axis=1)
            cell = _find_cells(block, self.first, self.low, self.high, self.shift)
            edge = self.cell_edges.take(cell)
            steps = (block >= edge).view(np.int8)
            steps += (block > edge).view(np.int8)
            steps *= self.step.take(cell)
            np.add(steps, self.rank_below.take(cell), out=ranks[at : at + rows])
            if len(self.shared_columns):
                columns = np.ascontiguousarray(block[:, self.shared_columns].T)
                ranks[at : at + rows, self.shared_columns] = centred_ranks(columns, self.edges[self.shared_columns]).T
        return ranks


def _compute_shifts(span: Int32) -> Int32:
    """Return the number of bits to ignore, so that each span has at most `_N_CELLS` cells."""
    shift = np.zeros(len(span), np.int32)
    while (too_wide := (span >> shift) + 2 > _N_CELLS).any():
        shift += too_wide
    return shift


def _find_cells(values: Float32, first: Float32, low: Float32, high: Float32, shift: Int32) -> Intp:
    """Return the index of the cell of each value among the cells of all columns, (n, D)."""
    with np.errstate(over="ignore"):
        distance = values - first
    np.minimum(np.maximum(distance, low, out=distance), high, out=distance)
    cell = distance.view(np.int32)
    cell -= low.view(np.int32)
    cell >>= shift
    cell += np.arange(len(first), dtype=np.int32) * _N_CELLS
    return cell.astype(np.intp)
