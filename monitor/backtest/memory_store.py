"""In-memory stores of the control plane of one stream, for the back-test.

They implement the protocols of `monitor.control_plane.stores`, as the stores of the database do. In addition they
record the results of a back-test: the judged windows, and the firing windows of each incident. Both kinds of stores
pass one contract test (`tests/contract/test_control_stores.py`); docs/decisions/0029-back-test-memory-stores.md gives
the reason why the back-test does not use the stores of the database.
"""
# ruff: noqa: ARG002 - the stores hold one stream with one caller, so some arguments of the protocols are not used

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumers.window_schedule import WindowSchedule
from consumers.windows import NO_WATERMARK_US
from storage.control.models import Activation, ModelRecord
from storage.control.records import (
    Incident,
    Judgement,
    OpenWindow,
    SealFacts,
    SourceFacts,
    StoredGap,
    StoredPart,
    WindowFacts,
    WindowRow,
)
from storage.control.reopening import reopen_incident
from storage.control.samples import StoredSample
from storage.control.shadows import ScheduledShadow
from storage.control.thresholds import CalibrationRow, JudgedWindow, ThresholdRow, TickFacts, WindowCounts
from storage.ledger.commit import ShadowPartRow, StreamControl, WindowPartRow
from storage.ledger.schedule import ScheduledThreshold


@dataclass(slots=True, kw_only=True)
class IncidentLifetime:
    """One incident: its last written row, and the windows in which it fired as [start, end) pairs."""

    row: Incident
    fired_windows: list[tuple[int, int]] = field(default_factory=list)


class MemoryStore:
    """The stores of one stream under one pair of percentile and false-alarm budget. Its only source never becomes idle.

    Attributes:
        thresholds: The threshold rows in the order of insertion; the id of a row is its index plus 1.
        windows: The rows of all windows in the order of storing, those with late events only included.
        incidents: The incidents in the order of opening.
        judged: The judged windows with events, by ascending start.
        judged_starts_us: The starts of the windows in `judged`.
        activations: Pairs of model id and `valid_from_us`, in order.
        shadow: Encoded parts of windows that a model scored as shadow model, by model id and window start.
        shadows: The present shadow models.
        samples: The samples of judged windows, in order; empty if the stream is not sampled.
    """

    def __init__(self, models: Sequence[ModelRecord], *, windows: WindowSchedule, lead_us: int) -> None:
        self.thresholds: list[ThresholdRow] = []
        self.windows: list[WindowRow] = []
        self.incidents: list[IncidentLifetime] = []
        self.judged: list[JudgedWindow] = []
        self.judged_starts_us: list[int] = []
        self.activations: list[tuple[int, int]] = []
        self.shadow: Mapping[int, Mapping[int, bytes]] = {}
        self.shadows: tuple[ScheduledShadow, ...] = ()
        self.samples: list[StoredSample] = []
        self._shadow_parts: dict[tuple[int, int], list[bytes]] = {}
        self._revision = 1
        self._threshold_ids: list[int] = []
        self._models = list(models)
        self._schedule = windows
        self._lead_us = lead_us
        self._watermark_us: int | None = None
        self._ended = False
        self._sealed_until_us: int | None = None
        self._last_tick_us: int | None = None
        self._last_judged_end_us: int | None = None
        self._ahead: list[ScheduledThreshold] = []
        self._parts: dict[int, list[StoredPart]] = {}
        self._waiting: list[int] = []
        self._judged_starts: list[int] = []
        self._open: dict[str, int] = {}
        self._gaps: list[tuple[int, StoredGap]] = []
        self._state: Mapping[str, Any] = {}

    @property
    def control(self) -> StreamControl:
        """Return the sealed time, revision and last tick of the stream, as the data plane reads them."""
        return StreamControl(
            sealed_until_us=self._sealed_until_us, revision=self._revision, last_tick_us=self._last_tick_us
        )

    @property
    def now_us(self) -> int:
        """Return the watermark of the stream, which is the clock of a back-test; 0 before the first event."""
        return self._watermark_us or 0

    def schedule(self) -> list[ScheduledThreshold]:
        """Return the threshold rows that are valid for windows that are not sealed yet."""
        sealed_us = self._sealed_until_us or 0
        while len(self._ahead) > 1 and self._ahead[1].valid_from_us <= sealed_us:
            del self._ahead[0]
        return self._ahead

    def add_parts(self, parts: Sequence[WindowPartRow], watermark_us: int | None) -> None:
        """Add the parts of one commit and set the watermark."""
        for part in parts:
            start = part.window_start_us
            if start not in self._parts:
                self._parts[start] = []
                insort(self._waiting, start)
            self._parts[start].append(
                StoredPart(
                    **{each.name: getattr(part, each.name) for each in fields(StoredPart)},
                )
            )
        self._watermark_us = watermark_us

    def set_shadows(self, shadows: tuple[ScheduledShadow, ...]) -> None:
        """Replace the shadow models; parts of windows that are not sealed yet are dropped with their models."""
        self.shadows = shadows
        self._shadow_parts = {}
        self._revision += 1

    def add_shadow_parts(self, parts: Sequence[ShadowPartRow]) -> None:
        """Add the parts of one commit for the shadow models."""
        for part in parts:
            self._shadow_parts.setdefault((part.model_id, part.window_start_us), []).append(part.payload)

    def merge_shadow_parts(self, merge: Callable[[Sequence[bytes]], bytes]) -> None:
        """Merge the shadow parts of all sealed windows; those of models that no look-back uses any more are dropped."""
        sealed_us = self._sealed_until_us or 0
        used = {each.model_id for each in self.shadows} | {model_id for model_id, _ in self.activations[-2:]}
        merged = {model_id: dict(windows) for model_id, windows in self.shadow.items() if model_id in used}
        for model_id, start_us in [key for key in self._shadow_parts if self._schedule.end_us(key[1]) <= sealed_us]:
            payloads = self._shadow_parts.pop((model_id, start_us))
            merged.setdefault(model_id, {})[start_us] = merge(payloads)
        self.shadow = merged

    def find_next_activation(self) -> Activation:
        """Return the earliest activation: a window start later than every stored event and every threshold row."""
        size_us, sealed_us = self._schedule.rules[-1].size_us, self._sealed_until_us or 0
        newest_us = max(row.valid_from_us for row in self.thresholds)
        computed_us = max(row.computed_at_us for row in self.thresholds[-2:])
        free_us = -(-(sealed_us + self._lead_us) // size_us) * size_us
        return Activation(
            valid_from_us=max(free_us, newest_us + size_us), computed_at_us=max(computed_us, sealed_us) + 1
        )

    def add_gap(self, gap: StoredGap) -> None:
        """Add a range that could not be read, at the watermark before it."""
        at = NO_WATERMARK_US if self._watermark_us is None else self._watermark_us
        self._gaps.append((at, gap))

    def end_source(self) -> None:
        """Mark the source as ended: no further records follow."""
        self._ended = True

    def insert_threshold(self, row: ThresholdRow) -> ThresholdRow:
        """Insert a threshold row."""
        threshold_id = len(self.thresholds) + 1
        stored = row.with_id(threshold_id)
        if not self.thresholds or self.thresholds[-1].model_id != row.model_id:
            self.activations.append((row.model_id, row.valid_from_us))
        self.thresholds.append(stored)
        insort(
            self._ahead,
            ScheduledThreshold(
                id=threshold_id, model_id=row.model_id, valid_from_us=row.valid_from_us, threshold=row.threshold
            ),
            key=lambda state: (state.valid_from_us, state.id),
        )
        return stored

    def seal(self, stream_id: int, decide: Callable[[SealFacts], int | None]) -> int | None:
        """Set `sealed_until` to the result of `decide`; return it, or None if the seal did not move."""
        waiting = self._unjudged_starts()
        target = decide(
            SealFacts(
                now_us=self.now_us,
                sources=[SourceFacts(watermark_us=self._watermark_us, idle=self._ended, ended=self._ended)],
                sealed_until_us=self._sealed_until_us,
                last_tick_us=self._last_tick_us,
                last_judged_end_us=self._last_judged_end_us,
                first_part_end_us=self._schedule.end_us(waiting[0]) if waiting else None,
                last_part_end_us=self._schedule.end_us(self._waiting[-1]) if self._waiting else None,
            )
        )
        if target is not None:
            self._sealed_until_us = target
        return target

    def _unjudged_starts(self) -> list[int]:
        """Return the starts of the windows to judge. Parts with late events alone are not judged."""
        judged_until = self.windows[-1].window_start_us if self.windows else -1
        return [
            start
            for start in self._waiting
            if start > judged_until and any(part.events + part.dead for part in self._parts[start])
        ]

    def due_windows(self, stream_id: int, limit: int = 1_000) -> list[int]:
        """Return the starts of sealed windows that have parts, in order."""
        sealed = self._sealed_until_us
        if sealed is None:
            return []
        return self._waiting[: min(bisect_left(self._waiting, sealed), limit)]

    def read_window(self, stream_id: int, window_start_us: int) -> WindowFacts | None:
        """Return the facts of a window with stored parts; None without parts."""
        parts = self._parts.get(window_start_us)
        if parts is None:
            return None
        end_us = self._schedule.end_us(window_start_us)
        return WindowFacts(
            window_start_us=window_start_us,
            window_end_us=end_us,
            parts=list(parts),
            last_judged_end_us=self._last_judged_end_us,
            open_incidents=self._open_incidents(),
            gaps=self._gaps_before(end_us),
            state=self._state,
            is_judged=self._is_judged(window_start_us),
        )

    def _gaps_before(self, end_us: int) -> list[StoredGap]:
        return [gap for at, gap in self._gaps if at < end_us]

    def _is_judged(self, window_start_us: int) -> bool:
        return bool(self.windows) and self.windows[-1].window_start_us >= window_start_us

    def first_open_window(self, stream_id: int) -> OpenWindow | None:
        """Return None: a back-test judges every window at its end."""
        return None

    def open_outlier_parts(
        self, stream_id: int, window_start_us: int, known: Collection[int]
    ) -> list[tuple[int, bytes]]:
        """Return nothing: there is no open window."""
        return []

    def open_incidents_early(self, stream_id: int, stream: str, facts: WindowFacts, rows: Sequence[Incident]) -> bool:
        """Store nothing: there is no open window."""
        return False

    def store_judgement(self, stream_id: int, stream: str, facts: WindowFacts, judgement: Judgement) -> bool:
        """Store a judgement and delete its parts if its facts still hold; return whether it was stored."""
        if not self._still_holds(facts):
            return False
        self._delete_parts(facts.window_start_us, len(facts.parts))
        self._store_judgement(judgement)
        return True

    def _still_holds(self, facts: WindowFacts) -> bool:
        """Return whether the parts still exist and all other facts are unchanged; further parts are allowed."""
        n = len(facts.parts)
        return (
            self._parts.get(facts.window_start_us, [])[:n] == facts.parts
            and self._last_judged_end_us == facts.last_judged_end_us
            and self._open_incidents() == facts.open_incidents
            and self._gaps_before(facts.window_end_us) == facts.gaps
            and self._state == facts.state
        )

    def add_late_parts(self, stream_id: int, window_start_us: int) -> bool:
        """Delete the parts of a judged window without counting them: a back-test reports no late events."""
        parts = self._parts.get(window_start_us)
        if parts is None or not self._is_judged(window_start_us):
            return False
        self._delete_parts(window_start_us, len(parts))
        return True

    def _delete_parts(self, window_start_us: int, n: int) -> None:
        """Delete the first `n` parts of a window."""
        parts = self._parts[window_start_us]
        del parts[:n]
        if not parts:
            del self._parts[window_start_us]
            self._waiting.remove(window_start_us)

    def _store_judgement(self, judgement: Judgement) -> None:
        row = judgement.window
        self.windows.append(row)
        if row.judged:
            self._last_judged_end_us = row.window_end_us
            self._judged_starts.append(row.window_start_us)
        if row.judged and row.events and row.payload is not None and row.threshold_id is not None:
            self.judged_starts_us.append(row.window_start_us)
            self._threshold_ids.append(row.threshold_id)
            self.judged.append(
                JudgedWindow(
                    window_start_us=row.window_start_us,
                    window_end_us=row.window_end_us,
                    events=row.events,
                    outliers=row.outliers,
                    fired=row.details is not None,
                    payload=row.payload,
                    fired_since_us=None if row.details is None else row.details.get("since_us"),
                )
            )
        if judgement.sample is not None:
            self.samples.append(
                StoredSample(
                    window_start_us=row.window_start_us,
                    window_end_us=row.window_end_us,
                    model_id=judgement.sample.model_id,
                    events=row.events,
                    payload=judgement.sample.payload,
                )
            )
        for change in judgement.incidents:
            self._write_incident(change, (row.window_start_us, row.window_end_us))
        if judgement.state is not None:
            self._state = judgement.state
        if judgement.gap_ids:
            self._gaps = [(at, gap) for at, gap in self._gaps if gap.id not in judgement.gap_ids]

    def _write_incident(self, row: Incident, window: tuple[int, int]) -> None:
        if row.id is None:
            row = self._reopen_recent(row)
        if row.id is None:
            self.incidents.append(IncidentLifetime(row=row))
            self._open[row.kind] = len(self.incidents)
        life = self.incidents[self._open[row.kind] - 1]
        life.row = row
        if row.status != "open":
            del self._open[row.kind]
        elif not row.clean_windows:
            life.fired_windows.append(window)

    def _reopen_recent(self, row: Incident) -> Incident:
        """Return the resolved incident that a new one opens again; the new one if there is none."""
        numbers = range(len(self.incidents), 0, -1)
        number = next((each for each in numbers if self.incidents[each - 1].row.kind == row.kind), None)
        if number is None:
            return row
        recent = self.incidents[number - 1].row.with_id(number)
        if recent.status == "open" or recent.reopen_until_us is None or recent.reopen_until_us <= row.opened_at_us:
            return row
        self._open[row.kind] = number
        return reopen_incident(recent, row)

    def _open_incidents(self) -> list[Incident]:
        return [self.incidents[number - 1].row.with_id(number) for number in sorted(self._open.values())]

    def tick_facts(self, stream_id: int) -> TickFacts:
        """Return the facts that decide whether a tick is due."""
        waiting = self._unjudged_starts()
        return TickFacts(
            sealed_until_us=self._sealed_until_us,
            last_tick_us=self._last_tick_us,
            last_judged_end_us=self._last_judged_end_us,
            first_part_end_us=self._schedule.end_us(waiting[0]) if waiting else None,
            lead_us=self._lead_us,
        )

    def threshold_at(self, index: int) -> ThresholdRow:
        """Return the threshold row of a judged window by the index of the window in `judged`."""
        return self.thresholds[self._threshold_ids[index] - 1]

    def threshold(self, threshold_id: int) -> ThresholdRow:
        """Return one threshold row."""
        return self.thresholds[threshold_id - 1]

    def newest_threshold(self, stream_id: int) -> ThresholdRow | None:
        """Return the threshold row with the latest start of validity; None before the first model."""
        return self.threshold(self._ahead[-1].id) if self._ahead else None

    def judged_windows(self, stream_id: int, model_id: int, after_us: int, until_us: int) -> list[JudgedWindow]:
        """Return the judged windows of a model that start at or after `after_us` and end at or before `until_us`."""
        begin = bisect_left(self.judged_starts_us, after_us)
        end = bisect_left(self.judged_starts_us, self._schedule.floor_us(until_us))
        of_model = [self.judged[i] for i in range(begin, end) if self.threshold_at(i).model_id == model_id]
        shadow = self.shadow.get(model_id, {})
        as_shadow = [
            replace(self.judged[i], payload=shadow[self.judged_starts_us[i]])
            for i in range(begin, end if shadow else begin)
            if self.judged_starts_us[i] in shadow and self.threshold_at(i).model_id != model_id
        ]
        return sorted([*of_model, *as_shadow], key=lambda window: window.window_start_us) if as_shadow else of_model

    def window_counts(self, stream_id: int, after_us: int, before_us: int) -> list[WindowCounts]:
        """Return the judged windows with events that start in [after_us, before_us), of all models, in order."""
        begin = bisect_left(self.windows, after_us, key=lambda row: row.window_start_us)
        end = bisect_left(self.windows, before_us, key=lambda row: row.window_start_us)
        return [
            WindowCounts.from_details(row.window_start_us, row.window_end_us, row.events, row.outliers, row.details)
            for row in self.windows[begin:end]
            if row.judged and row.events
        ]

    def store_tick(
        self,
        stream_id: int,
        *,
        last_tick_us: int | None,
        tick_us: int,
        threshold: ThresholdRow | None,
        calibration: CalibrationRow | None,
        change: Callable[[Sequence[Incident]], Sequence[Incident]] = lambda _: (),
        acceptances: int | None = None,
    ) -> bool:
        """Store the results of a tick; return False if another tick was stored since `last_tick_us` was read."""
        if last_tick_us != self._last_tick_us:
            return False
        self._last_tick_us = tick_us
        if threshold is not None:
            self.insert_threshold(threshold)
        self.apply_change(change, tick_us)
        return True

    def apply_change(self, change: Callable[[Sequence[Incident]], Sequence[Incident]], at_us: int) -> None:
        """Pass the open incidents to `change` and write the returned rows, at an event time."""
        for row in change(self._open_incidents()):
            self._write_incident(row, (min(row.window_start_us, at_us - self._schedule.rules_at(at_us).size_us), at_us))

    def accepted_reference(self, model_id: int) -> NDArray[np.float32] | None:
        """Return None: a back-test has no accepted incidents."""
        return None

    def count_firings(self, stream_id: int, kinds: Sequence[str], after_us: int, until_us: int) -> tuple[int, int]:
        """Return the numbers of incidents of these kinds opened in (after, until] and of the judged windows in it."""
        opened = sum(life.row.kind in kinds and after_us < life.row.opened_at_us <= until_us for life in self.incidents)
        begin = bisect_left(self._judged_starts, after_us)
        return opened, bisect_left(self._judged_starts, self._schedule.floor_us(until_us)) - begin

    def count_verdicts(
        self, stream_id: int, kinds: Sequence[str], after_us: int, until_us: int
    ) -> dict[str | None, int]:
        """Return the number of incidents opened in (after, until] without a verdict: a back-test has no verdicts."""
        return {None: self.count_firings(stream_id, kinds, after_us, until_us)[0]}

    def list(self, stream_id: int) -> list[ModelRecord]:
        """Return the models of the stream."""
        return self._models
