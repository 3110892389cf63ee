"""A uniform sample of the events of a window that merges exactly. Pure functions.

The sample holds the events with the k smallest hashes (bottom-k sampling, Cohen and Kaplan 2007). The hash is a
function of topic, partition and offset, so that the sample depends on the log alone: not on the cuts of its batches,
nor on the database. The smallest hashes of all events are among the smallest hashes of any part of them, hence the
samples of parts merge without a loss.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from config.errors import OutriderError
from config.time_format import DAY_US

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Floats = NDArray[np.float32] | NDArray[np.float64]

MAX_SAMPLED_EVENTS = 100_000
"""Events that the samples of the windows of one refit hold together at most."""

MAX_EVENTS_PER_WINDOW = 64

DEFAULT_PERIOD_US = 14 * DAY_US
"""The period that a fit uses the samples of, for streams that set no other."""

_HEADER = struct.Struct("<BBHII")  # version, bytes per number, capacity, events, features
_VERSION = 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_CANDIDATES_PER_EVENT = 2
_SPARE_CANDIDATES = 12


class DamagedSample(OutriderError):  # noqa: N818 - names the state, as its siblings do
    """A stored sample cannot be read. Its bytes are damaged, or a newer version of Outrider wrote them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSample:
    """A sample of the events of one window, in ascending order of their hashes.

    Attributes:
        capacity: The largest number of events; a sample with fewer holds all events.
        hashes: The hashes of the events, (m,).
        times_us: Their times, (m,).
        features: Their raw fields as the model saw them, (m, D), and behind them their history if the stream derives
            features (`monitor.statistics.key_history`), (m, 4 D).
    """

    capacity: int
    hashes: UInt64
    times_us: Int64
    features: Floats

    def __len__(self) -> int:
        return len(self.hashes)


def find_sample_size(size_us: int, period_us: int) -> int:
    """Return the number of events to sample of each window of a length, so that those of a period are not too many."""
    return min(max(MAX_SAMPLED_EVENTS * size_us // period_us, 1), MAX_EVENTS_PER_WINDOW)


def hash_offsets(topic: str, partition: int, offsets: Int64) -> UInt64:
    """Return a hash of each offset of a partition, (n,): the mixing function of SplitMix64 (Steele et al. 2014).

    It is a bijection, so that the events of a partition have different hashes.
    """
    digest = hashlib.blake2b(f"{partition}/{topic}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    mixed = offsets.astype(np.uint64) * _GOLDEN
    mixed += np.uint64(int.from_bytes(digest, "little"))
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def encode_window_samples(
    hashes: UInt64,
    windows: Int64,
    capacities: Int64,
    *,
    rows: NDArray[np.intp],
    times_us: Int64,
    features: Floats,
) -> list[bytes | None]:
    """Return the encoded sample of each window of a batch; None for a window without events or with capacity 0.

    The columns of all windows are converted once, and cut into the bytes of each.

    Args:
        hashes: The hashes of the events, (n,).
        windows: The index of the window of each event, ascending, (n,).
        capacities: The largest number of sampled events of each window.
        rows: The row of each event in `times_us` and `features`, (n,).
        times_us: Times, at least of these events.
        features: Features in the same order.
    """
    selected = _select_smallest(hashes, windows, capacities)
    places = rows[selected]
    columns = _SampleColumns.encode(hashes[selected], times_us[places], features[places])
    ends = np.searchsorted(windows[selected], np.arange(len(capacities)), side="right")
    return [
        columns.cut(begin, end, capacity) if end > begin else None
        for (begin, end), capacity in zip(pairwise([0, *ends.tolist()]), capacities.tolist(), strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _SampleColumns:
    """Encoded columns of samples, one after the other; `widened` marks rows that float32 would change, None if none."""

    hashes: bytes
    times_us: bytes
    narrow: bytes
    wide: bytes
    widened: NDArray[np.bool_] | None
    n_features: int

    @staticmethod
    def encode(hashes: UInt64, times_us: Int64, features: Floats) -> "_SampleColumns":
        narrow, wide, widened = features.astype("<f4"), b"", None
        if features.dtype != np.float32:
            changed = (narrow.astype(np.float64) != features) & ~np.isnan(features)
            if changed.any():
                wide, widened = features.astype("<f8").tobytes(), changed.any(axis=1)
        return _SampleColumns(
            hashes=hashes.astype("<u8").tobytes(),
            times_us=times_us.astype("<i8").tobytes(),
            narrow=narrow.tobytes(),
            wide=wide,
            widened=widened,
            n_features=features.shape[1],
        )

    def cut(self, begin: int, end: int, capacity: int) -> bytes:
        """Return the sample of the rows from `begin` to `end`, its features in float32 where that loses nothing."""
        is_wide = self.widened is not None and bool(self.widened[begin:end].any())
        itemsize, features = (8, self.wide) if is_wide else (4, self.narrow)
        width = itemsize * self.n_features
        return b"".join(
            (
                _HEADER.pack(_VERSION, itemsize, capacity, end - begin, self.n_features),
                self.hashes[8 * begin : 8 * end],
                self.times_us[8 * begin : 8 * end],
                features[width * begin : width * end],
            )
        )


def _select_smallest(hashes: UInt64, windows: Int64, capacities: Int64) -> NDArray[np.intp]:
    """Return the rows of the smallest hashes of each window, by window and hash."""
    candidates = np.flatnonzero(_find_candidates(hashes, windows, capacities))
    order = candidates[np.argsort(hashes[candidates], kind="stable")]
    # A radix sort, by the index of the window in as few bytes as it needs.
    order = order[np.argsort(windows[order].astype(np.min_scalar_type(len(capacities))), kind="stable")]
    own = windows[order]
    counts = np.bincount(own, minlength=len(capacities))
    rank = np.arange(len(order)) - (np.cumsum(counts) - counts)[own]
    return order[rank < capacities[own]]


def _find_candidates(hashes: UInt64, windows: Int64, capacities: Int64) -> NDArray[np.bool_]:
    """Return a mask that holds the smallest hashes of each window, and few others of windows with many events.

    The hashes are uniform: among n of them, about c lie below c / n of their range.
    """
    counts = np.bincount(windows, minlength=len(capacities))
    wanted = _CANDIDATES_PER_EVENT * capacities + _SPARE_CANDIDATES
    is_large = counts > wanted
    if not is_large.any():
        return np.ones(len(hashes), np.bool_)
    limits = np.full(len(capacities), np.iinfo(np.uint64).max, np.uint64)
    limits[is_large] = (wanted[is_large] / counts[is_large] * 2.0**64).astype(np.uint64)
    below: NDArray[np.bool_] = hashes <= limits[windows]
    found = np.bincount(windows[below], minlength=len(capacities))
    short = np.flatnonzero(found < np.minimum(counts, capacities))
    return below | np.isin(windows, short) if len(short) else below


def merge_samples(samples: Sequence[EventSample]) -> EventSample:
    """Return the sample of all events of the samples, of which at least one is given.

    Samples of different capacities merge to the smallest of them, which all of them hold. Where some events have the
    history of their keys behind the raw fields and others have not, it is left out.
    """
    if len(samples) == 1:
        return samples[0]
    capacity = min(sample.capacity for sample in samples)
    hashes = np.concatenate([sample.hashes for sample in samples])
    times_us = np.concatenate([sample.times_us for sample in samples])
    order = np.lexsort((times_us, hashes))[:capacity]
    width = min(sample.features.shape[1] for sample in samples)
    features = np.concatenate([sample.features[:, :width] for sample in samples])
    return EventSample(
        capacity=capacity,
        hashes=hashes[order],
        times_us=times_us[order],
        features=np.ascontiguousarray(features[order]),
    )


def encode_sample(sample: EventSample) -> bytes:
    """Return the sample as bytes, little-endian; the features in float32 where that loses nothing."""
    columns = _SampleColumns.encode(sample.hashes, sample.times_us, sample.features)
    return columns.cut(0, len(sample), sample.capacity)


def decode_sample(payload: bytes) -> EventSample:
    """Return the sample from its bytes; the features are float64.

    Raises:
        DamagedSample: The bytes are no sample, or one of a newer version.
    """
    try:
        version, itemsize, capacity, n, n_features = _HEADER.unpack_from(payload)
        if version != _VERSION or itemsize not in (4, 8):
            raise DamagedSample(
                f"a stored sample of events has version {version}, this version of Outrider reads {_VERSION}: "
                "run the version that wrote it"
            )
        place = _HEADER.size
        hashes = np.frombuffer(payload, "<u8", n, place)
        times_us = np.frombuffer(payload, "<i8", n, place + 8 * n)
        features = np.frombuffer(payload, f"<f{itemsize}", n * n_features, place + 16 * n)
    except (struct.error, ValueError) as error:
        raise DamagedSample(
            f"a stored sample of {len(payload)} bytes is not readable ({error}): restore the database from a backup"
        ) from error
    return EventSample(
        capacity=capacity,
        hashes=hashes.astype(np.uint64),
        times_us=times_us.astype(np.int64),
        features=features.reshape(n, n_features).astype(np.float64),
    )


def merge_encoded_samples(payloads: Sequence[bytes | None]) -> bytes | None:
    """Return the sample of a window from the samples of its parts with events; None if one of them has none."""
    if not payloads or any(payload is None for payload in payloads):
        return None
    if len(payloads) == 1:
        return payloads[0]
    return encode_sample(merge_samples([decode_sample(payload) for payload in payloads if payload is not None]))
