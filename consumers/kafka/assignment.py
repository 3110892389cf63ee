"""Consumers: which partitions of a subscription are ours, where each stands, and which are held back."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Literal

from consumers.batch import Partition

AssignmentChange = tuple[Literal["assigned", "revoked"], frozenset[Partition]]


class Assignment:
    """The partitions that are assigned, and of each that was sought: the next offset to deliver.

    A partition delivers when it is assigned, was sought since, and is not held. Everything else is paused,
    so that what is paused is a function of these three and never a history of pauses and resumes.
    """

    def __init__(self) -> None:
        self._assigned: set[Partition] = set()
        self._next: dict[Partition, int] = {}
        self._held: frozenset[Partition] = frozenset()

    @property
    def partitions(self) -> frozenset[Partition]:
        """The assigned partitions."""
        return frozenset(self._assigned)

    @property
    def positioned(self) -> frozenset[Partition]:
        """The partitions that were sought since they were assigned, held or not."""
        return frozenset(self._next)

    @property
    def delivering(self) -> frozenset[Partition]:
        """The partitions that deliver now."""
        return self.positioned - self._held

    def next_offset(self, partition: Partition) -> int | None:
        """Return the offset up to which everything was delivered; None for one that was not sought."""
        return self._next.get(partition)

    def apply_changes(self, changes: Iterable[AssignmentChange]) -> tuple[frozenset[Partition], frozenset[Partition]]:
        """Follow changes in their order and return what (was assigned, was revoked) over all of them.

        A partition that was taken away and given back is in both: to the caller it is a new assignment.
        """
        assigned: set[Partition] = set()
        revoked: set[Partition] = set()
        for kind, partitions in changes:
            for partition in partitions:
                self._next.pop(partition, None)
            if kind == "assigned":
                self._assigned |= partitions
                assigned |= partitions
            else:
                revoked |= partitions & self._assigned
                self._assigned -= partitions
                assigned -= partitions
        return frozenset(assigned), frozenset(revoked)

    def seek(self, partition: Partition, next_offset: int) -> None:
        """Deliver from an offset on, from now on.

        Raises:
            KeyError: The partition is not assigned.
        """
        if partition not in self._assigned:
            raise KeyError(partition)
        self._next[partition] = next_offset

    def advance(self, partition: Partition, next_offset: int) -> None:
        """Note that everything below an offset was delivered."""
        self._next[partition] = next_offset

    def stop(self, partitions: AbstractSet[Partition]) -> None:
        """Deliver nothing more of assigned partitions until they are sought again."""
        for partition in partitions:
            self._next.pop(partition, None)

    def set_paused(self, partitions: AbstractSet[Partition]) -> None:
        """Hold exactly these back."""
        self._held = frozenset(partitions)
