"""Upper bound on the memory that a stream's events take, as a sum of its parts. Pure."""

from dataclasses import dataclass

from monitor.pipeline.inbox import MAX_PENDING_RECORDS, MAX_QUEUED_BYTES

_RECORD_BYTES = 64
"""Bytes of a decoded event besides its features: offset, time, energy, and references to key and id."""

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBound:
    """Bytes that a stream's events can take between the fetch and the commit.

    Attributes:
        fetch_bytes: Bound on the records that the source buffers; None for a source that does not read ahead.
        partitions: Number of partitions.
        features: Number of feature columns of the model.
    """

    fetch_bytes: int | None
    partitions: int
    features: int

    @property
    def pending_bytes(self) -> int:
        """Return the bound on the bytes of decoded events that wait for their commit."""
        return MAX_PENDING_RECORDS * self.partitions * (8 * self.features + _RECORD_BYTES)

    @property
    def total_bytes(self) -> int:
        """Return the bound on all bytes."""
        return (self.fetch_bytes or 0) + MAX_QUEUED_BYTES + self.pending_bytes

    def lines(self) -> list[str]:
        """Return the sum and its parts as lines of text."""
        fetch = [] if self.fetch_bytes is None else [f"{_format_mib(self.fetch_bytes)} fetched and not yet queued"]
        partitions = f"{self.partitions:,} partition{'' if self.partitions == 1 else 's'}"
        return [
            f"at most {_format_mib(self.total_bytes)} of events in flight, besides the program and the model:",
            *(f"  {part}" for part in fetch),
            f"  {_format_mib(MAX_QUEUED_BYTES)} waiting to be decoded",
            f"  {_format_mib(self.pending_bytes)} waiting for their commit: {MAX_PENDING_RECORDS:,} events x "
            f"{partitions} x (8 x {self.features:,} features + {_RECORD_BYTES}) bytes",
        ]


def _format_mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.1f} MiB"
