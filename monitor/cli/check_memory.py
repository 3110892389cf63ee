"""Upper bound on the memory that a stream's events take, as a sum of its parts. Pure."""

from dataclasses import dataclass

from monitor.pipeline.inbox import MAX_PENDING_RECORDS, MAX_QUEUED_BYTES
from monitor.statistics.key_history import state_width
from monitor.statistics.key_states import MAX_KEYS

_RECORD_BYTES = 192
"""Bytes of a decoded event besides its features: offset, time, record batch, and key and id as text objects."""

_KEY_BYTES = 256
"""Bytes of a key as text and its place in a table; a longer key takes more."""

PROGRAM_BYTES = 768 * 1024 * 1024
"""Resident memory of a daemon with one stream, without events: the interpreter, PyTorch, SciPy, SQLAlchemy, and the
transaction that is being written. Measured: 630 to 740 MiB (benchmarks/hostile.py)."""

STREAM_BYTES = 16 * 1024 * 1024
"""Resident memory of each further stream, without events. Measured: 16 MiB."""

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBound:
    """Bytes that a stream's events can take between the fetch and the commit.

    Attributes:
        fetch_bytes: Bound on the records that the source buffers; None for a source that does not read ahead.
        partitions: Number of partitions.
        features: Number of feature columns of the model.
        derives: Whether features are derived from the history of keys.
    """

    fetch_bytes: int | None
    partitions: int
    features: int
    derives: bool = False

    @property
    def key_bytes(self) -> int:
        """Return the bound on the bytes of the states of keys: those that are stored, and their successors."""
        return 2 * MAX_KEYS * self.partitions * (8 * state_width(self.features) + _KEY_BYTES) if self.derives else 0

    @property
    def pending_bytes(self) -> int:
        """Return the bound on the bytes of decoded events that wait for their commit."""
        return MAX_PENDING_RECORDS * self.partitions * (8 * self.features + _RECORD_BYTES)

    @property
    def total_bytes(self) -> int:
        """Return the bound on all bytes."""
        return (self.fetch_bytes or 0) + MAX_QUEUED_BYTES + self.pending_bytes + self.key_bytes

    def lines(self) -> list[str]:
        """Return the sum and its parts as lines of text."""
        fetch = [] if self.fetch_bytes is None else [f"{_format_mib(self.fetch_bytes)} fetched and not yet queued"]
        keys = [f"  {_format_mib(self.key_bytes)} for the history of at most {MAX_KEYS:,} keys a partition"]
        keys = keys if self.derives else []
        partitions = f"{self.partitions:,} partition{'' if self.partitions == 1 else 's'}"
        return [
            f"at most {_format_mib(self.total_bytes)} of events in flight, besides the program:",
            *(f"  {part}" for part in fetch),
            f"  {_format_mib(MAX_QUEUED_BYTES)} waiting to be decoded",
            f"  {_format_mib(self.pending_bytes)} waiting for their commit: {MAX_PENDING_RECORDS:,} events x "
            f"{partitions} x (8 x {self.features:,} features + {_RECORD_BYTES}) bytes",
            *keys,
        ]


def describe_process(event_bytes: list[int]) -> str:
    """Describe the bound on the memory of a daemon with these bounds on the events of its streams."""
    further = STREAM_BYTES * max(0, len(event_bytes) - 1)
    total = PROGRAM_BYTES + further + sum(event_bytes)
    streams = f", {_format_mib(further)} for further streams" if further else ""
    return (
        f"memory of the daemon: at most {_format_mib(total)}: {_format_mib(PROGRAM_BYTES)} for the program{streams}, "
        f"{_format_mib(sum(event_bytes))} for events; model files and fits on more than the warm-up come on top"
    )


def _format_mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.1f} MiB"
