"""Records that sealing and judging read and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """Progress of one source.

    `idle` is evaluated on the database's clock, and `idle_seen_us` is the time on it at which the source was last seen
    at the end of its log. An ended source will never deliver another event.
    """

    watermark_us: int | None
    idle: bool
    ended: bool
    idle_seen_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealFacts:
    """Input of the decision to seal, read with the position rows locked; `now_us` is the database's clock.

    `first_part_end_us` is the end of the first window with parts to judge, `last_part_end_us` the end of the last
    window with any parts: late events alone are not judged, but counted once all sources are idle.
    """

    now_us: int
    sources: Sequence[SourceFacts]
    sealed_until_us: int | None
    last_tick_us: int | None
    last_judged_end_us: int | None
    first_part_end_us: int | None
    last_part_end_us: int | None
    settings_revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """A part of a window as written by the ledger; `late_sum_s` and `late_max_s` tell how late its late events are.

    `sample` is the encoded sample of its events.
    """

    threshold_id: int | None
    events: int
    outliers: int
    late: int
    dead: int
    payload: bytes
    filtered: int = 0
    late_sum_s: int = 0
    late_max_s: int = 0
    sample: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetRange:
    """Range of offsets of one source that contains all events of a window that are not late.

    Events of other windows may lie in the range as well.
    """

    source_id: int
    topic: str
    partition: int
    first_offset: int
    last_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One step in the lifecycle of an incident.

    The types are `opened`, `escalated`, `repeated`, `acknowledged`, `resolved` and `reopened`. `severity` is that of
    the finding, and `at_us` is event time, the end of the window that caused the transition. `channels` are notified; a
    channel in `skipped_channels` gets a notification row that is never sent. `timezone` is that of the stream, for
    weekly mutes.
    """

    type: str
    severity: str
    window_start_us: int
    at_us: int
    summary: str
    details: Mapping[str, Any]
    channels: Sequence[str] = ()
    skipped_channels: Sequence[str] = ()
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """An incident of a stream, as read from the database or to be written to it.

    `id` is None for a new incident. `status` is `open` or `resolved`. `details` holds the details of the latest
    transition of each type. `transition` is the transition to write with the incident, None if there is none.
    `acknowledged_until_us` is the event time until which a person takes care of the open incident. A finding of the
    same kind before `reopen_until_us` opens the resolved incident again.
    """

    id: int | None
    kind: str
    severity: str
    status: str = "open"
    window_start_us: int
    opened_at_us: int
    last_told_us: int
    clean_windows: int
    windows_fired: int
    summary: str
    details: Mapping[str, Any]
    resolved_at_us: int | None = None
    acknowledged_until_us: int | None = None
    reopen_until_us: int | None = None
    transition: Transition | None = None

    def with_id(self, incident_id: int) -> Incident:
        """Return the incident as read back after it was written under this id."""
        return replace(self, id=incident_id, transition=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGap:
    """A range of offsets that could not be read and is not assigned to an incident yet."""

    id: int
    topic: str
    partition: int
    from_offset: int
    to_offset: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowFacts:
    """Input of the judgement of a window.

    `state` is the judge state that the last judged window stored. `offset_ranges` is ordered by topic and partition.
    `part_ids` identify the stored parts. `is_judged` is True for parts with late events of a window that was judged.
    """

    window_start_us: int
    window_end_us: int
    parts: Sequence[StoredPart]
    last_judged_end_us: int | None
    open_incidents: Sequence[Incident]
    gaps: Sequence[StoredGap]
    state: Mapping[str, Any] = field(default_factory=dict)
    offset_ranges: Sequence[OffsetRange] = ()
    part_ids: Sequence[int] = ()
    is_judged: bool = False
    settings_revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWindow:
    """The first window that is not sealed, with the counts of the parts committed so far."""

    window_start_us: int
    threshold_id: int
    events: int
    outliers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRow:
    """A window to store; `judged` is False if it has neither events nor dead letters.

    `fires_at` is the smallest number of outliers at which it is a spike; None without events.
    """

    window_start_us: int
    window_end_us: int
    threshold_id: int | None
    events: int
    outliers: int
    late: int
    dead: int
    judged: bool
    filtered: int = 0
    expected: float | None = None
    p_value: float | None = None
    energy_p50: float | None = None
    energy_p99: float | None = None
    energy_max: float | None = None
    fires_at: int | None = None
    payload: bytes | None = None
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSample:
    """The encoded sample of the events of a window, and the model that scored them."""

    model_id: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HabitualKeyRow:
    """A key whose events are usually outliers, for windows that start in [since_us, until_us).

    `rate` is the share of outliers among its events, learned from `windows` windows. `accepted_by` is the person who
    has accepted it at the event time `accepted_at_us`; `until_us` is then FOREVER_US until its rate changes.
    """

    key: str
    rate: float
    windows: int
    since_us: int
    until_us: int
    accepted_by: str | None = None
    accepted_at_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Rows that judging a window writes; the incidents are written in order.

    `state` is the judge state for the next window; None leaves the stored state unchanged.
    """

    window: WindowRow
    incidents: Sequence[Incident] = ()
    gap_ids: Sequence[int] = field(default=())
    state: Mapping[str, Any] | None = None
    sample: WindowSample | None = None
    habitual_keys: Sequence[HabitualKeyRow] = ()
