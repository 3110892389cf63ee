"""Integer sums over the events of a window for the drift test. Pure functions.

The sums are the same for any split of the events. `code_events` turns each event into small integers once: its ranks
among the training values, the shares of the components, and its standardised features. Only the sums of these integers,
and of the products of pairs of standardised features, are stored for a window. Integer sums have no rounding error, so
that drift results replay bit for bit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.statistics.rank_table import RankTable
from monitor.statistics.training_profile import N_BINS, Floats, TrainingProfile, centred_ranks

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

MAX_FEATURES = 200
"""Maximum number of features that are tested one by one. For wider events only energies and components are tested.

Each feature costs about 5 ns an event, so that the drift sums of an event cost no more than storing its row.
"""

MAX_PAIRED_FEATURES = 32
"""Maximum number of features that are tested in pairs.

A window of 32 features has 496 pairs, 2 to 4 KB. One of 100 features would have 4,950 pairs, 20 to 40 KB.
"""

SHARE_UNIT = 1 << 16
"""The integer that represents a component share of 1."""

SCORE_UNIT = 16
"""The integer that represents one standard deviation. Scores are clipped at 4 deviations: no single event dominates."""

_MAX_SCORE = 4 * SCORE_UNIT
_MAX_RANK = N_BINS - 1

_BLOCK_ROWS = 512
"""Maximum number of rows that are summed at once, so that wide rows stay in the processor cache."""

_BLOCK_WINDOWS = 16
"""Mean number of windows that are summed at once.

More windows cost more products with zero, fewer windows cost more calls.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DriftSums:
    """Sums over the events of a window.

    `ranks` sums the centred ranks of the tested features and, last, of the energy; `squares` sums their squares.
    `occupancy` sums the shares of the components; None for a single component or a model without shares. `pairs` sums
    the products of the standardised features i < j, row by row; None for too many features.
    """

    ranks: Int64
    squares: Int64
    occupancy: Int64 | None
    pairs: Int64 | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the numbers of ranks, components and pairs."""
        return len(self.ranks), _optional_length(self.occupancy), _optional_length(self.pairs)

    def is_consistent(self, events: int) -> bool:
        """Return True if this number of events can have these sums."""
        checks = [
            len(self.squares) == len(self.ranks) > 0,
            bool((np.abs(self.ranks) <= _MAX_RANK * events).all()),
            bool(((self.squares >= 0) & (self.squares <= _MAX_RANK**2 * events)).all()),
        ]
        if self.occupancy is not None:
            checks.append(bool(((self.occupancy >= 0) & (self.occupancy <= SHARE_UNIT * events)).all()))
        if self.pairs is not None:
            checks.append(bool((np.abs(self.pairs) <= _MAX_SCORE**2 * events).all()))
        return all(checks)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DriftCodes:
    """Events as integers, one row per event. None for quantities that are not tested."""

    ranks: Int8
    shares: Int32 | None
    scores: Int8 | None

    def sum_rows(self, rows: NDArray[np.bool_] | Int64 | slice) -> DriftSums:
        """Return the sums over the selected events."""
        selected = np.arange(len(self.ranks))[rows]
        return self.sum_windows(selected, np.zeros(len(selected), np.int64), 1).window(0)

    def sum_windows(self, rows: Int64, windows: Int64, n_windows: int) -> "WindowDriftSums":
        """Return the sums over the events of each window.

        Args:
            rows: The selected events.
            windows: Index of the window of each selected event, ascending, below `n_windows`.
            n_windows: Number of windows; a window without events has sums of 0.
        """
        blocks = list(_split_into_blocks(windows, n_windows))
        ranks = self.ranks[rows]
        return WindowDriftSums(
            ranks=_sum_columns(ranks, blocks, n_windows),
            squares=_sum_columns(ranks, blocks, n_windows, squared=True),
            occupancy=None if self.shares is None else _sum_columns(self.shares[rows], blocks, n_windows),
            pairs=None if self.scores is None else _sum_pair_products(self.scores[rows], windows, n_windows),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowDriftSums:
    """The drift sums of several windows of one model: row i of each array belongs to window i."""

    ranks: Int64
    squares: Int64
    occupancy: Int64 | None
    pairs: Int64 | None

    def window(self, index: int) -> DriftSums:
        """Return the sums of one window."""
        return DriftSums(
            ranks=self.ranks[index],
            squares=self.squares[index],
            occupancy=None if self.occupancy is None else self.occupancy[index],
            pairs=None if self.pairs is None else self.pairs[index],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredEvents:
    """Energies of events, and their drift codes where the model has a training profile.

    `feature_dtype` is the precision in which the model takes the features. `derived` holds the derived features of the
    events, (n, P), and `derived_names` their names.
    """

    energies: Float32
    codes: DriftCodes | None = None
    feature_dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float32))
    derived: Floats | None = None
    derived_names: tuple[str, ...] = ()


def code_events(
    profile: TrainingProfile, features: Floats, energies: Float32, shares: NDArray[np.floating] | None
) -> DriftCodes:
    """Return the events as integers.

    Args:
        profile: Training profile of the model that computed the energies.
        features: Finite features, (n, D), in the precision of the profile.
        energies: Finite energies, (n,).
        shares: Share of each component in each event, (n, K), or None.
    """
    feature_profile, d = profile.features, features.shape[1]
    watched = d if d <= MAX_FEATURES else 0
    ranks = _rank(profile, features[:, :watched], energies)
    scores = None
    if 2 <= d <= MAX_PAIRED_FEATURES:
        scale = np.divide(SCORE_UNIT, feature_profile.deviation, out=np.zeros(d), where=feature_profile.deviation > 0)
        standardised = (features - feature_profile.centre) * scale
        scores = np.rint(np.clip(standardised, -_MAX_SCORE, _MAX_SCORE)).astype(np.int8)
    share_counts = None
    if shares is not None and shares.shape[1] > 1:
        share_counts = np.rint(shares * np.float32(SHARE_UNIT)).astype(np.int32)
    return DriftCodes(ranks=ranks, shares=share_counts, scores=scores)


def _rank(profile: TrainingProfile, features: Floats, energies: Float32) -> Int8:
    """Return the centred ranks of the watched features and, last, of the energy."""
    watched = features.shape[1]
    edges = profile.features.edges
    if edges.dtype == np.float32:
        return _load_rank_table(profile, watched).centred_ranks(
            features.astype(np.float32, copy=False), energies[:, None]
        )
    ranks = np.empty((len(features), watched + 1), np.int8)
    ranks[:, :watched] = centred_ranks(np.ascontiguousarray(features.T), edges[:watched]).T
    ranks[:, watched] = centred_ranks(energies[None], profile.energy_edges[None])[0]
    return ranks


@lru_cache(maxsize=8)
def _load_rank_table(profile: TrainingProfile, watched: int) -> RankTable:
    return RankTable.from_edges(np.concatenate([profile.features.edges[:watched], profile.energy_edges[None]]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Block:
    """Consecutive events. `member` has a row per window of the block, with 1 for each of its events, else 0."""

    rows: slice
    windows: slice
    member: Float64


def _split_into_blocks(windows: Int64, n_windows: int) -> Iterator[_Block]:
    """Split events that are sorted by window into blocks of some hundred events or some windows."""
    size = min(max(_BLOCK_WINDOWS * len(windows) // max(n_windows, 1), _BLOCK_WINDOWS), _BLOCK_ROWS)
    for at in range(0, len(windows), size):
        own = windows[at : at + size]
        first, end = int(own[0]), int(own[-1]) + 1
        member = own == np.arange(first, end)[:, None]
        yield _Block(rows=slice(at, at + size), windows=slice(first, end), member=member.astype(np.float64))


def _sum_columns(
    columns: NDArray[np.integer], blocks: Sequence[_Block], n_windows: int, *, squared: bool = False
) -> Int64:
    """Return the column sums of each window, exact in any order because they stay far below 2^53."""
    sums = np.zeros((n_windows, columns.shape[1]))
    for block in blocks:
        values = columns[block.rows].astype(np.float64)
        if squared:
            np.square(values, out=values)
        sums[block.windows] += block.member @ values
    return sums.astype(np.int64)


def _sum_pair_products(scores: Int8, windows: Int64, n_windows: int) -> Int64:
    """Return the sums of the products of all pairs of columns by window, exact like the sums of `_sum_columns`."""
    columns = scores.astype(np.float64)
    d = columns.shape[1]
    first, second = _pair_indices(d)
    above_diagonal = first * d + second
    products = np.empty((d, d))
    sums = np.empty((n_windows, len(first)))
    ends = np.searchsorted(windows, np.arange(n_windows), side="right").tolist()
    for index, (begin, end) in enumerate(pairwise([0, *ends])):
        own = columns[begin:end]
        np.matmul(own.T, own, out=products)
        products.take(above_diagonal, out=sums[index])
    return sums.astype(np.int64)


@lru_cache(maxsize=MAX_PAIRED_FEATURES)
def _pair_indices(d: int) -> tuple[Int64, Int64]:
    first, second = np.triu_indices(d, 1)
    return first.astype(np.int64), second.astype(np.int64)


def feature_pair(index: int, d: int) -> tuple[int, int]:
    """Return the two features whose products are summed at an index of `DriftSums.pairs`."""
    first, second = _pair_indices(d)
    return int(first[index]), int(second[index])


def add_drift_sums(one: DriftSums, other: DriftSums) -> DriftSums:
    """Return the sums over the events of both arguments.

    Raises:
        ValueError: The sums belong to different models.
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
    """The sums as bytes: a width, then little-endian integers of the smallest sufficient width, for each array."""

    ranks: bytes
    squares: bytes
    occupancy: bytes | None = None
    pairs: bytes | None = None


_WIDTHS = {1: "<i1", 2: "<i2", 4: "<i4", 8: "<i8"}


def pack_drift_sums(sums: DriftSums) -> DriftSection:
    """Return the sums as a section of an encoded part."""
    stacked = WindowDriftSums(
        ranks=sums.ranks[None],
        squares=sums.squares[None],
        occupancy=None if sums.occupancy is None else sums.occupancy[None],
        pairs=None if sums.pairs is None else sums.pairs[None],
    )
    return pack_window_drift_sums(stacked)[0]


def pack_window_drift_sums(sums: WindowDriftSums) -> list[DriftSection]:
    """Return the sums of each window as a section of an encoded part."""
    none = [None] * len(sums.ranks)
    columns = (
        pack_integers(sums.ranks),
        pack_integers(sums.squares),
        none if sums.occupancy is None else pack_integers(sums.occupancy),
        none if sums.pairs is None else pack_integers(sums.pairs),
    )
    return [DriftSection(*arrays) for arrays in zip(*columns, strict=True)]


def unpack_drift_sums(section: DriftSection) -> DriftSums:
    """Return the sums from a section that `pack_drift_sums` wrote.

    Raises:
        ValueError: The bytes are not drift sums.
    """
    return DriftSums(
        ranks=unpack_integers(section.ranks),
        squares=unpack_integers(section.squares),
        occupancy=None if section.occupancy is None else unpack_integers(section.occupancy),
        pairs=None if section.pairs is None else unpack_integers(section.pairs),
    )


def pack_integers(sums: Int64) -> list[bytes]:
    """Return each row, (R, J), as its width and its integers in that width."""
    largest = np.abs(sums).max(axis=1, initial=0)
    choices = list(_WIDTHS)
    widths = [choices[at] for at in np.searchsorted([1 << 7, 1 << 15, 1 << 31], largest, side="right").tolist()]
    raw = {width: sums.astype(_WIDTHS[width]).tobytes() for width in set(widths)}
    prefix = {width: bytes([width]) for width in raw}
    n = sums.shape[1]
    return [prefix[width] + raw[width][row * n * width : (row + 1) * n * width] for row, width in enumerate(widths)]


def unpack_integers(raw: bytes) -> Int64:
    """Return the integers of one row of `pack_integers`.

    Raises:
        ValueError: The bytes do not begin with their width.
    """
    width = raw[0] if raw else 0
    if width not in _WIDTHS or (len(raw) - 1) % width:
        raise ValueError(f"{len(raw)} bytes of drift sums do not begin with their width")
    return np.frombuffer(raw, _WIDTHS[width], offset=1).astype(np.int64)
