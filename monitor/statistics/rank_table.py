"""Ranks of many events at once: looked up in the cells of a grid, to the same integers as by comparing. Pure.

Comparing a value with all 63 edges costs some 20 ns, and wide events have many values. Here the cell of a value says
which edge it can still lie on either side of, and one comparison decides. Cells are equal steps of the bits of
value - first edge: as integers positive floats keep their order and grow like logarithms, so that the edges of skewed
features lie in cells of their own too. The cells only have to rise with the values, which rounding does not change:
no error of theirs can reach a rank, on any machine.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.statistics.training_profile import N_BINS, Float32, Int8, Int64, centred_ranks

_N_CELLS = 512
"""Cells of a feature. With half as many every other law has two edges in a cell; more leave the processor's cache."""

_CHUNK_VALUES = 1 << 16
"""Values of a block of events: what is computed for them stays in the cache, too."""

_MAX_FLOAT32 = np.finfo(np.float32).max

Int32 = NDArray[np.int32]
Intp = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankTable:
    """The edges of D columns, made ready for looking up.

    `first` is each column's first edge, `low` and `high` the distances from it that the cells reach over, `shift` how
    many of their bits a cell leaves out. A cell has one edge or none (infinity), which may be several equal ones:
    `below` is the rank below it, and `step` how much it is more on it, and again above it. Of the columns in `crowded`
    different edges share a cell: they are compared.
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
        """Make edges ready, (D, 63), each row ascending and finite."""
        first = edges[:, 0].copy()
        with np.errstate(over="ignore"):
            away = np.minimum(edges - first[:, None], _MAX_FLOAT32)
        rises = away > 0
        least = np.where(rises.any(axis=1), away.min(axis=1, where=rises, initial=_MAX_FLOAT32), np.float32(1))
        high = np.maximum(away[:, -1], least)
        shift = _compute_shifts(high.view(np.int32) - least.view(np.int32))
        # One cell below the second edge, so that it does not share the first one's.
        low = np.maximum(least.view(np.int32) - (np.int32(1) << shift), 1).astype(np.int32).view(np.float32)
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
        """Return what `yardstick.centred_ranks` returns of the same values, but row by row, (n, D).

        Args:
            values: Finite values, (n, D); or pieces of them, side by side.
        """
        found = np.empty((len(values[0]), len(self.first)), np.int8)
        rows = max(_CHUNK_VALUES // len(self.first), 1)
        for at in range(0, len(found), rows):
            block = np.concatenate([piece[at : at + rows] for piece in values], axis=1)
            cell = _find_cells(block, self.first, self.low, self.high, self.shift)
            edge = self.cell_edges.take(cell)
            steps = (block >= edge).view(np.int8)
            steps += (block > edge).view(np.int8)
            steps *= self.step.take(cell)
            np.add(steps, self.rank_below.take(cell), out=found[at : at + rows])
            if len(self.shared_columns):
                columns = np.ascontiguousarray(block[:, self.shared_columns].T)
                found[at : at + rows, self.shared_columns] = centred_ranks(columns, self.edges[self.shared_columns]).T
        return found


def _compute_shifts(span: Int32) -> Int32:
    """Return how many bits have to be left out, so that each span has no more cells than there are."""
    shift = np.zeros(len(span), np.int32)
    while (wide := (span >> shift) + 2 > _N_CELLS).any():
        shift += wide
    return shift


def _find_cells(values: Float32, first: Float32, low: Float32, high: Float32, shift: Int32) -> Intp:
    """Return the place of each value's cell among those of all columns, (n, D)."""
    with np.errstate(over="ignore"):
        away = values - first
    np.minimum(np.maximum(away, low, out=away), high, out=away)
    cell = away.view(np.int32)
    cell -= low.view(np.int32)
    cell >>= shift
    cell += np.arange(len(first), dtype=np.int32) * _N_CELLS
    return cell.astype(np.intp)
