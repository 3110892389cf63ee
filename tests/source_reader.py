"""A test helper that polls a source until a condition holds, with a timeout, and records the results."""

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from consumers.batch import Partition, Position, RawBatch
from consumers.source import PollResult, Source


class SourceReader:
    """A reader that polls a source and records all polls."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.polls: list[PollResult] = []

    def poll_until(self, condition: Callable[["SourceReader"], bool], *, within_s: float = 30) -> "SourceReader":
        """Poll until the condition holds."""
        deadline = time.monotonic() + within_s
        while not condition(self):
            assert time.monotonic() < deadline, f"{within_s:g} s passed; so far: {self.batches[-3:]}"
            self.polls.append(self.source.poll(0.2))
        return self

    def poll_for(self, seconds: float) -> "SourceReader":
        """Poll for a fixed time, to test that something does not happen."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.polls.append(self.source.poll(0.1))
        return self

    def wait_until_assigned(self, partitions: Iterable[Partition]) -> "SourceReader":
        """Poll until the partitions were assigned."""
        wanted = set(partitions)
        return self.poll_until(lambda r: wanted <= {each for poll in r.polls for each in poll.assigned})

    def seek_all(self, positions: dict[Partition, int]) -> "SourceReader":
        """Wait for the assignment of the partitions, and seek each to its offset."""
        self.wait_until_assigned(positions)
        for partition, offset in positions.items():
            self.source.seek(partition, Position(next_offset=offset))
        return self

    def read_to(self, ends: dict[Partition, int], *, within_s: float = 30) -> "SourceReader":
        """Poll until each partition has reached its end offset."""
        return self.poll_until(lambda r: all(r.end_of(each) == end for each, end in ends.items()), within_s=within_s)

    @property
    def batches(self) -> list[RawBatch]:
        """All batches in order of arrival."""
        return [batch for poll in self.polls for batch in poll.batches]

    def batches_of(self, partition: Partition) -> list[RawBatch]:
        """Return the batches of one partition."""
        return [batch for batch in self.batches if batch.partition == partition]

    def end_of(self, partition: Partition) -> int | None:
        """Return the end of the partition's last batch."""
        batches = self.batches_of(partition)
        return batches[-1].end if batches else None

    def offsets(self, partition: Partition) -> list[int]:
        """Return the offsets of all records of one partition."""
        return [int(offset) for batch in self.batches_of(partition) for offset in batch.offsets]

    def values(self, partition: Partition) -> list[bytes | None]:
        """Return the values of all records of one partition."""
        return [value for batch in self.batches_of(partition) for value in batch.values]

    def skipped_ranges(self, partition: Partition) -> list[tuple[int, int, str]]:
        """Return the skipped ranges of one partition as (begin, end, reason)."""
        return [
            (batch.begin, batch.end, batch.skip_reason) for batch in self.batches_of(partition) if batch.skip_reason
        ]

    def replaced(self) -> set[Partition]:
        """Return all partitions reported as replaced."""
        return {each for poll in self.polls for each in poll.replaced}

    def clear(self) -> "SourceReader":
        """Discard the recorded polls."""
        self.polls.clear()
        return self


def are_contiguous(batches: Sequence[RawBatch]) -> bool:
    """Return True if each batch begins at the end of the one before, and its offsets are inside and in order."""
    joined = all(before.end == after.begin for before, after in pairwise(batches))
    inside = all(
        batch.begin <= batch.end and all(batch.begin <= offset < batch.end for offset in batch.offsets)
        for batch in batches
    )
    in_order = all(list(batch.offsets) == sorted(set(batch.offsets)) for batch in batches)
    return joined and inside and in_order
