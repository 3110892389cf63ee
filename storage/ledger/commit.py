"""The input and the outcome of a commit: events as columns, never one object per event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.database.texts import TextColumn


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamControl:
    """The state of a stream that the control plane sets; a commit names the state under which it scored its events.

    `revision` increases with every activation of a model, `settings_revision` with every change of its
    settings. A tick changes only `last_tick_us`: its threshold is valid from a window after every event that can be
    stored by then, so that batches in progress are scored correctly.
    """

    sealed_until_us: int | None
    revision: int
    last_tick_us: int | None = None
    settings_revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreColumns:
    """All events of a commit, also late ones, as columns of length n; `energies` are stored bit for bit.

    `late` is the mask of the late events, (n,); None if none is late.
    """

    offsets: NDArray[np.int64]
    times_us: NDArray[np.int64]
    energies: NDArray[np.float32]
    threshold_ids: NDArray[np.int64]
    keys: TextColumn | None = None
    ids: TextColumn | None = None
    late: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def empty(cls) -> ScoreColumns:
        """Return columns of length 0."""
        none = np.empty(0, np.int64)
        return cls(offsets=none, times_us=none, energies=np.empty(0, np.float32), threshold_ids=none)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierColumns:
    """The events above their threshold, with the raw fields that the model scored, (n, D).

    The fields of an event are float32 or float64, as its model takes them. `derived` has the names and values of the
    derived features of each event; None if the stream derives none.
    """

    offsets: NDArray[np.int64]
    times_us: NDArray[np.int64]
    energies: NDArray[np.float32]
    threshold_ids: NDArray[np.int64]
    features: Sequence[NDArray[np.floating[Any]]]
    feature_names: tuple[str, ...]
    keys: TextColumn | None = None
    ids: TextColumn | None = None
    trace_ids: TextColumn | None = None
    derived: Sequence[tuple[tuple[str, ...], NDArray[np.floating[Any]]]] | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def empty(cls) -> OutlierColumns:
        """Return columns of length 0."""
        none = np.empty(0, np.int64)
        return cls(
            offsets=none,
            times_us=none,
            energies=np.empty(0, np.float32),
            threshold_ids=none,
            features=(),
            feature_names=(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterColumns:
    """Rejected records as columns; [offset, end_offset) is longer than one record only for an unreadable range."""

    offsets: NDArray[np.int64]
    end_offsets: NDArray[np.int64]
    reasons: Sequence[str]
    details: Sequence[str]
    payloads: Sequence[bytes | None]

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def empty(cls) -> DeadLetterColumns:
        """Return columns of length 0."""
        none = np.empty(0, np.int64)
        return cls(offsets=none, end_offsets=none, reasons=(), details=(), payloads=())


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPartRow:
    """The part that a commit adds to one window under one threshold; `events` is 0 for counts of a sealed window.

    `first_offset` and `last_offset` belong to the events that are not late; None if there are none. `sample` is an
    encoded sample of these events; None without events, or if the stream is not sampled.
    """

    window_start_us: int
    window_end_us: int
    threshold_id: int | None
    events: int
    outliers: int
    late: int
    dead: int
    payload: bytes | None
    filtered: int = 0
    late_sum_s: int = 0
    late_max_s: int = 0
    first_offset: int | None = None
    last_offset: int | None = None
    sample: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPartRow:
    """The part that a commit adds to one window of a shadow model.

    `outliers_of_both` is the number of events that are outliers of the active model as well.
    """

    model_id: int
    window_start_us: int
    window_end_us: int
    payload: bytes
    outliers_of_both: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStateRows:
    """States of some keys.

    Attributes:
        keys: The keys; None is the key of events without one.
        last_offsets: Offset of the last event of each key, int64 (k,).
        values: The states, float64 (k, width).
    """

    keys: tuple[str | None, ...]
    last_offsets: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStateChange:
    """The states that one commit stores: those of the keys that it changed, or, in a snapshot, those of all keys."""

    rows: KeyStateRows
    is_snapshot: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The result of processing the offsets [begin, end) of a source.

    `watermark_us` is the largest event time so far, or the head event's; it never decreases. `gap_reason` is the reason
    why [begin, end) could not be read, or None. `ended` means that the source has no more records.
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
    key_state: KeyStateChange | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The commit is stored; `control` is the stream's state in its transaction."""

    control: StreamControl


@dataclass(frozen=True, slots=True, kw_only=True)
class Fenced:
    """Nothing is stored: the source has another owner or another position. Discard the records in progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """Nothing is stored: the stream's state has changed. Fold, or score, again under `control`."""

    control: StreamControl


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Nothing is stored: the database refuses the rows of this commit, however often it is repeated."""

    error: Exception


CommitOutcome = Committed | Fenced | Stale | Refused
