"""The stored form of a part: MessagePack with a format version and a checksum. Pure functions."""

import zlib
from functools import lru_cache
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from config.errors import OutriderError
from monitor.statistics.drift_sums import (
    DriftSection,
    DriftSums,
    pack_drift_sums,
    pack_window_drift_sums,
    unpack_drift_sums,
)
from monitor.statistics.part import LAST_BIN, MAX_LARGEST, Int64, Part, WindowParts

PART_FORMAT = 1


class DamagedPart(OutriderError):  # noqa: N818 - names the state, as its siblings do
    """A stored part cannot be read. Its bytes are damaged, or a newer version of Outrider wrote them."""


class _EnergySection(msgspec.Struct, forbid_unknown_fields=True):
    """Little-endian arrays. The counts use the smallest sufficient integer width."""

    top: bytes
    bins: bytes
    counts: bytes


class _PartSections(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The body: sections by name. A statistic that is added later is a further section with default None."""

    counts: tuple[int, int, int, int]
    energies: _EnergySection
    drift: DriftSection | None = None


_WIDTHS = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}

_encode = msgspec.msgpack.Encoder().encode


def encode_part(part: Part) -> bytes:
    """Return the part as MessagePack: [format version, CRC-32 of the body, body]. The body is a map of sections."""
    width = _counts_width(int(part.counts.max(initial=0)))
    energies = _EnergySection(
        top=part.top.astype("<f4").tobytes(),
        bins=part.bins.astype("<i2").tobytes(),
        counts=part.counts.astype(_WIDTHS[width]).tobytes(),
    )
    return _encode_sections(
        _PartSections(
            counts=(part.events, part.outliers, part.late, part.dead),
            energies=energies,
            drift=None if part.drift is None else pack_drift_sums(part.drift),
        )
    )


def encode_windows(parts: WindowParts) -> list[bytes]:
    """Return the bytes of the part of each window, equal to those of `encode_part`; columns are converted once."""
    energies = _encode_energies(parts)
    counts = zip(*(column.tolist() for column in (parts.events, parts.outliers, parts.late, parts.dead)), strict=True)
    drift: list[DriftSection | None] = [None] * len(parts)
    if parts.drift is not None:
        sections = pack_window_drift_sums(parts.drift)
        drift = [section if events else None for section, events in zip(sections, parts.events.tolist(), strict=True)]
    return [
        _encode_sections(_PartSections(counts=own, energies=section, drift=sums))
        for own, section, sums in zip(counts, energies, drift, strict=True)
    ]


def _encode_energies(parts: WindowParts) -> list[_EnergySection]:
    top, bins = parts.top.astype("<f4").tobytes(), parts.bins.astype("<i2").tobytes()
    widths = [_counts_width(largest) for largest in _largest_counts(parts).tolist()]
    counts = {width: parts.counts.astype(_WIDTHS[width]).tobytes() for width in set(widths)}
    return [
        _EnergySection(
            top=top[4 * top_begin : 4 * top_end],
            bins=bins[2 * begin : 2 * end],
            counts=counts[width][width * begin : width * end],
        )
        for (top_begin, top_end), (begin, end), width in zip(
            pairwise([0, *parts.top_ends.tolist()]), pairwise([0, *parts.bin_ends.tolist()]), widths, strict=True
        )
    ]


def _largest_counts(parts: WindowParts) -> Int64:
    """Return the largest count of a bin in each window, 0 for windows without events."""
    largest = np.zeros(len(parts), np.int64)
    begins = np.append(0, parts.bin_ends[:-1])
    filled = np.flatnonzero(parts.events)
    if len(filled):
        largest[filled] = np.maximum.reduceat(parts.counts, begins[filled])
    return largest


def _counts_width(largest: int) -> int:
    return next(width for width in _WIDTHS if largest < 1 << 8 * width)


def _encode_sections(sections: _PartSections) -> bytes:
    body = _encode(sections)
    return _encode((PART_FORMAT, zlib.crc32(body), body))


@lru_cache(maxsize=64)
def decode_part(payload: bytes) -> Part:
    """Return the part from the bytes of `encode_part`. Cached: judging, ticks and the drift step decode the same parts.

    Raises:
        DamagedPart: The bytes are not a part, are damaged, or have an unknown section. An unknown section could not be
            merged, so the part is rejected instead of losing data.
    """
    body = _decode_body(payload)
    try:
        sections = msgspec.msgpack.decode(body, type=_PartSections)
    except msgspec.MsgspecError as error:
        raise DamagedPart(
            f"a stored window part has sections that this version of Outrider does not read ({error}): "
            "run the newer version that wrote it"
        ) from error
    events, outliers, late, dead = sections.counts
    part = Part(
        events=events,
        outliers=outliers,
        late=late,
        dead=dead,
        top=_decode_array(sections.energies.top, "<f4").astype(np.float32),
        bins=_decode_array(sections.energies.bins, "<i2").astype(np.int16),
        counts=_decode_counts(sections.energies).astype(np.int64),
        drift=_decode_drift(sections.drift),
    )
    _check_consistency(part)
    return part


def _decode_body(payload: bytes) -> bytes:
    try:
        version, checksum, body = msgspec.msgpack.decode(payload, type=tuple[int, int, bytes])
    except msgspec.MsgspecError as error:
        raise DamagedPart(
            f"a stored window part of {len(payload)} bytes is not readable ({error}): "
            "the database file or row is damaged; restore it from a backup"
        ) from error
    if version != PART_FORMAT:
        raise DamagedPart(
            f"a stored window part has format {version}, this version of Outrider reads {PART_FORMAT}: "
            "run the version that wrote it"
        )
    if zlib.crc32(body) != checksum:
        raise DamagedPart(
            f"a stored window part of {len(payload)} bytes does not match its checksum: "
            "the database file or row is damaged; restore it from a backup"
        )
    return body


def _decode_array(raw: bytes, dtype: str) -> NDArray[np.generic]:
    if len(raw) % np.dtype(dtype).itemsize:
        raise DamagedPart(f"a stored window part has {len(raw)} bytes where {dtype} values were expected")
    return np.frombuffer(raw, dtype)


def _decode_counts(energies: _EnergySection) -> NDArray[np.generic]:
    filled = len(energies.bins) // 2
    width = len(energies.counts) // filled if filled else 1
    if width in _WIDTHS and len(energies.counts) == width * filled:
        return np.frombuffer(energies.counts, _WIDTHS[width])
    raise DamagedPart(f"a stored window part has {len(energies.counts)} bytes of counts for {filled} bins")


def _decode_drift(section: DriftSection | None) -> DriftSums | None:
    try:
        return None if section is None else unpack_drift_sums(section)
    except ValueError as error:
        raise DamagedPart(f"a stored window part is damaged: {error}; restore the database from a backup") from error


def _check_consistency(part: Part) -> None:
    """Raise DamagedPart for contradictory numbers, which only a faulty program can write."""
    is_consistent = (
        int(part.counts.sum()) == part.events
        and len(part.top) == min(part.events, MAX_LARGEST)
        and 0 <= part.outliers <= part.events
        and min(part.late, part.dead) >= 0
        and bool((part.counts > 0).all())
        and bool((np.abs(part.bins.astype(np.int64)) <= LAST_BIN).all())
        and bool((np.diff(part.bins.astype(np.int64)) > 0).all())
        and bool(np.isfinite(part.top).all())
        and bool((np.diff(part.top) <= 0).all())
        and (part.drift is None or part.drift.is_consistent(part.events))
    )
    if not is_consistent:
        raise DamagedPart(
            f"a stored window part is inconsistent ({part.events} events, {int(part.counts.sum())} in its "
            f"histogram, {len(part.top)} largest energies, {part.outliers} outliers): "
            "restore the database from a backup"
        )
