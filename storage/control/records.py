"""Storage room: the values that go into and come out of sealing and judging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """How far a source has come; `idle` on the database's clock. An ended source will never bring anything again."""

    watermark_us: int | None
    idle: bool
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SealFacts:
    """What sealing is decided on, with the position rows locked; `now_us` is the database's clock."""

    now_us: int
    sources: Sequence[SourceFacts]
    sealed_until_us: int | None
    last_tick_us: int | None
    last_judged_end_us: int | None
    first_part_end_us: int | None
    last_part_end_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """A part of a window as the ledger wrote it."""

    threshold_id: int | None
    events: int
    outliers: int
    late: int
    dead: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetRange:
    """Where a window's events lie in the log of one source: all of them that are not late, and others' among them."""

    source_id: int
    topic: str
    partition: int
    first_offset: int
    last_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredIncident:
    """An open incident."""

    id: int
    kind: str
    severity: str
    window_start_us: int
    opened_at_us: int
    last_told_us: int
    clean_windows: int
    windows_fired: int
    summary: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGap:
    """A range of offsets that could not be read and belongs to no incident yet."""

    id: int
    topic: str
    partition: int
    from_offset: int
    to_offset: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowFacts:
    """What a window is judged on; `state` is what the last judged window handed on, `ranges` ordered by partition."""

    window_start_us: int
    window_end_us: int
    parts: Sequence[StoredPart]
    last_judged_end_us: int | None
    open_incidents: Sequence[StoredIncident]
    gaps: Sequence[StoredGap]
    state: Mapping[str, Any] = field(default_factory=dict)
    offset_ranges: Sequence[OffsetRange] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWindow:
    """The first window that is not sealed, as far as its parts have come."""

    window_start_us: int
    threshold_id: int
    events: int
    outliers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRow:
    """The window as it is kept; `judged` is False when it holds only late events."""

    window_start_us: int
    window_end_us: int
    threshold_id: int | None
    events: int
    outliers: int
    late: int
    dead: int
    judged: bool
    expected: float | None = None
    p_value: float | None = None
    energy_p50: float | None = None
    energy_p99: float | None = None
    energy_max: float | None = None
    payload: bytes | None = None
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionRow:
    """One transition and the channels that are told; a channel in `silent` gets a row that is never sent."""

    transition: str
    window_start_us: int
    at_us: int
    summary: str
    details: Mapping[str, Any]
    channels: Sequence[str] = ()
    skipped_channels: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRow:
    """An incident after the window. `id` None: a new one."""

    id: int | None
    kind: str
    severity: str
    status: str
    window_start_us: int
    opened_at_us: int
    last_told_us: int
    clean_windows: int
    windows_fired: int
    summary: str
    details: Mapping[str, Any]
    resolved_at_us: int | None = None
    transition: TransitionRow | None = None

    def with_id(self, incident_id: int) -> StoredIncident:
        """Return the open incident as it is once it is stored under this id."""
        kept = {each.name: getattr(self, each.name) for each in fields(StoredIncident) if each.name != "id"}
        return StoredIncident(id=incident_id, **kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """All that judging a window writes, the incidents in order; `state` None leaves what is handed on as it was."""

    window: WindowRow
    incidents: Sequence[IncidentRow] = ()
    gap_ids: Sequence[int] = field(default=())
    state: Mapping[str, Any] | None = None
