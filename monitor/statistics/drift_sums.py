"""What drift adds up over the events of a window: whole numbers only, so that any cuts give the same sums. Pure.

Each event is turned into small integers once (`code_events`): its ranks among the training values, the shares that the
components have in it, its standardised features. Sums of these, and of products of pairs of the last, are all that is
kept of a window. They add up without rounding, so drift replays to the bit.
"""

from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.statistics.rank_table import RankTable
from monitor.statistics.training_profile import N_BINS, TrainingProfile

Float32 = NDArray[np.float32]
Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

MAX_FEATURES = 200
"""Features watched one by one; of wider events only energies and components are. Each costs some 5 ns an event, so that
drift costs no event more than storing its row does."""

MAX_PAIRED_FEATURES = 32
"""Features watched in pairs: 32 have 496 pairs, 2 to 4 KB a window; 100 would have 4,950 and 20 to 40 KB."""

SHARE_UNIT = 1 << 16
"""A component's share in an event is counted in 65,536ths."""

SCORE_UNIT = 16
"""Standardised features are counted in 16ths of a deviation, and cut at 4 deviations: one event decides nothing."""

_MAX_SCORE = 4 * SCORE_UNIT
_MAX_RANK = N_BINS - 1

_CHUNK_ROWS = 512
"""Rows that are summed at once, so that wide ones stay in the processor's cache."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DriftSums:
    """Sums over the events of a window.

    `ranks` adds up the centred ranks of the watched features and, last, of the energy; `squares` their squares.
    `occupancy` adds up the components' shares; None where there is one component, or the model has no such shares.
    `pairs` adds up the products of standardised features i < j, row by row; None where there are too many.
    """

    ranks: Int64
    squares: Int64
    occupancy: Int64 | None
    pairs: Int64 | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return how many ranks, components and pairs are added up."""
        return len(self.ranks), _optional_length(self.occupancy), _optional_length(self.pairs)

    def is_consistent(self, events: int) -> bool:
        """Return whether so many events can have these sums."""
        within = [
            len(self.squares) == len(self.ranks) > 0,
            bool((np.abs(self.ranks) <= _MAX_RANK * events).all()),
            bool(((self.squares >= 0) & (self.squares <= _MAX_RANK**2 * events)).all()),
        ]
        if self.occupancy is not None:
            within.append(bool(((self.occupancy >= 0) & (self.occupancy <= SHARE_UNIT * events)).all()))
        if self.pairs is not None:
            within.append(bool((np.abs(self.pairs) <= _MAX_SCORE**2 * events).all()))
        return all(within)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DriftCodes:
    """Events as the integers that are added up, row by row; None where nothing of the sort is watched."""

    ranks: Int8
    shares: Int32 | None
    scores: Int8 | None

    def sum_rows(self, rows: NDArray[np.bool_] | Int64 | slice) -> DriftSums:
        """Return the sums over some of the events."""
        scores = None if self.scores is None else self.scores[rows]
        ranks, squares = _sum_columns(self.ranks[rows])
        return DriftSums(
            ranks=ranks,
            squares=squares,
            occupancy=None if self.shares is None else self.shares[rows].sum(axis=0, dtype=np.int64),
            pairs=None if scores is None else _sum_pair_products(scores),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredEvents:
    """What one pass over events gives: their energies, and their codes where the model has a yardstick."""

    energies: Float32
    codes: DriftCodes | None = None


def code_events(
    yardstick: TrainingProfile, features: Float32, energies: Float32, shares: NDArray[np.floating] | None
) -> DriftCodes:
    """Return events as integers.

    Args:
        yardstick: Of the model that gave the energies.
        features: Finite features, (n, D).
        energies: Finite energies, (n,).
        shares: The components' shares in each event, (n, K), or None.
    """
    profile, d = yardstick.features, features.shape[1]
    watched = d if d <= MAX_FEATURES else 0
    ranks = _load_rank_table(yardstick, watched).centred_ranks(features[:, :watched], energies[:, None])
    scores = None
    if 2 <= d <= MAX_PAIRED_FEATURES:
        scale = np.divide(SCORE_UNIT, profile.deviation, out=np.zeros(d), where=profile.deviation > 0)
        away = (features - profile.centre) * scale
        scores = np.rint(np.clip(away, -_MAX_SCORE, _MAX_SCORE)).astype(np.int8)
    counted = None
    if shares is not None and shares.shape[1] > 1:
        counted = np.rint(shares * np.float32(SHARE_UNIT)).astype(np.int32)
    return DriftCodes(ranks=ranks, shares=counted, scores=scores)


@lru_cache(maxsize=8)
def _load_rank_table(yardstick: TrainingProfile, watched: int) -> RankTable:
    return RankTable.from_edges(np.concatenate([yardstick.features.edges[:watched], yardstick.energy_edges[None]]))


def _sum_columns(ranks: Int8) -> tuple[Int64, Int64]:
    """Return the sums of columns and of their squares; exact in any order, for they stay far below 2^53."""
    sums, squares = np.zeros((2, ranks.shape[1]))
    for at in range(0, len(ranks), _CHUNK_ROWS):
        whole = ranks[at : at + _CHUNK_ROWS].astype(np.float64)
        ones = np.ones(len(whole))
        sums += ones @ whole
        squares += ones @ np.square(whole, out=whole)
    return sums.astype(np.int64), squares.astype(np.int64)


def _sum_pair_products(scores: Int8) -> Int64:
    """Return the sums of products of all pairs of columns; exact as `_totals` are."""
    wide = scores.astype(np.float64)
    return (wide.T @ wide)[_pair_indices(wide.shape[1])].astype(np.int64)


@lru_cache(maxsize=MAX_PAIRED_FEATURES)
def _pair_indices(d: int) -> tuple[Int64, Int64]:
    first, second = np.triu_indices(d, 1)
    return first.astype(np.int64), second.astype(np.int64)


def feature_pair(place: int, d: int) -> tuple[int, int]:
    """Return the two features whose products are added up at a place of `DriftSums.pairs`."""
    first, second = _pair_indices(d)
    return int(first[place]), int(second[place])


def add_drift_sums(one: DriftSums, other: DriftSums) -> DriftSums:
    """Return the sums over the events of both.

    Raises:
        ValueError: They are of different models.
    """
    if one.shape != other.shape:
        raise ValueError(f"drift sums of different shapes cannot be added: {one.shape} and {other.shape}")
    return DriftSums(
        ranks=one.ranks + other.ranks,
        squares=one.squares + other.squares,
        occupancy=_add_optional(one.occupancy, other.occupancy),
        pairs=_add_optional(one.pairs, other.pairs),
    )


def _add_optional(one: Int64 | None, other: Int64 | None) -> Int64 | None:
    return None if one is None or other is None else one + other


def _optional_length(sums: Int64 | None) -> int:
    return 0 if sums is None else len(sums)


class DriftSection(msgspec.Struct, forbid_unknown_fields=True):
    """The sums as bytes: a width each, then little-endian integers in the fewest bytes that hold them all."""

    ranks: bytes
    squares: bytes
    occupancy: bytes | None = None
    pairs: bytes | None = None


_WIDTHS = {1: "<i1", 2: "<i2", 4: "<i4", 8: "<i8"}


def pack_drift_sums(sums: DriftSums) -> DriftSection:
    """Return the sums as a section of a part."""
    return DriftSection(
        ranks=_pack_integers(sums.ranks),
        squares=_pack_integers(sums.squares),
        occupancy=None if sums.occupancy is None else _pack_integers(sums.occupancy),
        pairs=None if sums.pairs is None else _pack_integers(sums.pairs),
    )


def unpack_drift_sums(section: DriftSection) -> DriftSums:
    """Return the sums that `pack` wrote. Raises ValueError where the bytes are none."""
    return DriftSums(
        ranks=_unpack_integers(section.ranks),
        squares=_unpack_integers(section.squares),
        occupancy=None if section.occupancy is None else _unpack_integers(section.occupancy),
        pairs=None if section.pairs is None else _unpack_integers(section.pairs),
    )


def _pack_integers(sums: Int64) -> bytes:
    largest = int(np.abs(sums).max(initial=0))
    width = next(width for width in _WIDTHS if largest < 1 << (8 * width - 1))
    return bytes([width]) + sums.astype(_WIDTHS[width]).tobytes()


def _unpack_integers(raw: bytes) -> Int64:
    width = raw[0] if raw else 0
    if width not in _WIDTHS or (len(raw) - 1) % width:
        raise ValueError(f"{len(raw)} bytes of drift sums do not begin with their width")
    return np.frombuffer(raw, _WIDTHS[width], offset=1).astype(np.int64)
