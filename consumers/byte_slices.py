"""Byte strings of many records as slices of one bytes object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class ByteSlices(Sequence[bytes | None]):
    """A sequence of byte strings that are cut out of one bytes object when they are read.

    Two arrays and one object take the place of an object per record. `starts` and `lengths` are in bytes; a negative
    length is None. Slices of the sequence refer to the same bytes object, which lives as long as any of them.
    """

    blob: bytes
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...

    @overload
    def __getitem__(self, index: slice) -> ByteSlices: ...

    def __getitem__(self, index: int | slice) -> bytes | ByteSlices | None:
        if isinstance(index, slice):
            return ByteSlices(self.blob, self.starts[index], self.lengths[index])
        start, length = int(self.starts[index]), int(self.lengths[index])
        return None if length < 0 else self.blob[start : start + length]

    def __iter__(self) -> Iterator[bytes | None]:
        return iter(self.tolist())

    def tolist(self) -> list[bytes | None]:
        """Return the byte strings as objects."""
        blob, bounds = self.blob, zip(self.starts.tolist(), (self.starts + self.lengths).tolist(), strict=True)
        if len(self) and self.lengths.min() < 0:
            return [None if end < start else blob[start:end] for start, end in bounds]
        return [blob[start:end] for start, end in bounds]

    def select(self, rows: NDArray[np.int64]) -> ByteSlices:
        """Return the byte strings at these indices, as slices of the same bytes object."""
        return ByteSlices(self.blob, self.starts[rows], self.lengths[rows])

    @property
    def size_bytes(self) -> int:
        """The memory of the whole bytes object and of the two arrays, in bytes."""
        return len(self.blob) + self.starts.nbytes + self.lengths.nbytes
