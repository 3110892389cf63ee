"""Storage room: the values that go into and come out of a commit; columns, never one object per event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.database.texts import TextColumn


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamControl:
    """What the control plane has decided; a commit says under which of it the events were scored.

    `revision` moves with every activation of a model. A tick moves only `last_tick_us`: its threshold is valid from
    beyond anything that may be stored by then, so that no batch under way was scored wrongly for it.
    """

    sealed_until_us: int | None
    revision: int
    last_tick_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreColumns:
    """Every event of the commit, late ones too; `energies` are float32 and stored to the bit."""

    offsets: NDArray[np.int64]
    times_us: NDArray[np.int64]
    energies: NDArray[np.float32]
    threshold_ids: NDArray[np.int64]
    keys: TextColumn | None = None
    ids: TextColumn | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def empty(cls) -> ScoreColumns:
        """Return no events."""
        nothing = np.empty(0, np.int64)
        return cls(offsets=nothing, times_us=nothing, energies=np.empty(0, np.float32), threshold_ids=nothing)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierColumns:
    """The events above their threshold once more, with their features as the model saw them."""

    offsets: NDArray[np.int64]
    times_us: NDArray[np.int64]
    energies: NDArray[np.float32]
    threshold_ids: NDArray[np.int64]
    features: NDArray[np.float32]
    feature_names: tuple[str, ...]
    keys: TextColumn | None = None
    ids: TextColumn | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def empty(cls) -> OutlierColumns:
        """Return no outliers."""
        nothing = np.empty(0, np.int64)
        return cls(
            offsets=nothing,
            times_us=nothing,
            energies=np.empty(0, np.float32),
            threshold_ids=nothing,
            features=np.empty((0, 0), np.float32),
            feature_names=(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterColumns:
    """What could not be used; [offset, end_offset) is longer than one only for a range nobody could read."""

    offsets: NDArray[np.int64]
    end_offsets: NDArray[np.int64]
    reasons: Sequence[str]
    details: Sequence[str]
    payloads: Sequence[bytes | None]

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def empty(cls) -> DeadLetterColumns:
        """Return no dead letters."""
        nothing = np.empty(0, np.int64)
        return cls(offsets=nothing, end_offsets=nothing, reasons=(), details=(), payloads=())


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPartRow:
    """What a commit adds to one window under one threshold; `events` is 0 for counts of a sealed window.

    `first_offset` and `last_offset` are those of its events that are not late, None where it has none.
    """

    window_start_us: int
    window_end_us: int
    threshold_id: int | None
    events: int
    outliers: int
    late: int
    dead: int
    payload: bytes | None
    first_offset: int | None = None
    last_offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPartRow:
    """What a commit adds to one window of a model that scores in the shadow of the active one."""

    model_id: int
    window_start_us: int
    window_end_us: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Everything that one stretch [begin, end) of a source becomes.

    `watermark_us` is the largest event time so far or the head event's; it never moves back. `gap_reason`
    says why [begin, end) could not be read. `ended` means that nothing will ever follow.
    """

    stream_id: int
    source_id: int
    epoch: int
    begin: int
    end: int
    end_cursor: int | None
    watermark_us: int | None
    assumed_control: StreamControl
    scores: ScoreColumns
    outliers: OutlierColumns
    dead: DeadLetterColumns
    gap_reason: str | None
    parts: Sequence[WindowPartRow]
    ended: bool
    shadow_parts: Sequence[ShadowPartRow] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The commit is stored; `control` is what held while it was."""

    control: StreamControl


@dataclass(frozen=True, slots=True, kw_only=True)
class Fenced:
    """Somebody else owns the source, or it stands elsewhere; nothing is stored. Drop what is in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """The stream moved on meanwhile; nothing is stored. Refold or score again under `control`."""

    control: StreamControl
