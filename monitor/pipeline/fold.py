"""Folding a batch: decoded events and dead letters become the columns of one commit. Pure functions.

The steps: cut the batch at the end of the lead, reject stray times, find each event's window and threshold row, score
the events, flag outliers, mark late events, build one part per window. The result depends on the arguments alone.
So the fold can be repeated when the stream has changed (a sealed window, a new threshold), and a replay gives the same
rows at any speed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from config.stream_rules import StreamRules
from config.time_format import SECOND_US
from consumers.batch import Partition
from consumers.clock_vote import ReadExtent
from consumers.decoded_batch import DeadLetters, DecodedBatch, Events, FilteredRecords
from consumers.window_schedule import WindowSchedule, make_window_schedule
from consumers.windows import NO_WATERMARK_US, SourceWatermarks, count_before_lead_end
from monitor.models.shadow_parts import build_shadow_parts
from monitor.pipeline.key_states import KeyedSource
from monitor.pipeline.stray_times import find_timed_records, mask_stray_times, reject_stray_times
from monitor.pipeline.threshold_schedule import ThresholdSchedule
from monitor.statistics.drift_sums import DriftCodes, MeasuredEvents, WindowDriftSums
from monitor.statistics.event_sample import encode_window_samples, hash_offsets
from monitor.statistics.part import Scale, WindowParts, summarise_windows
from monitor.statistics.part_codec import encode_windows
from monitor.statistics.training_profile import Floats
from storage.ledger.commit import KeyStateRows, ShadowPartRow, StreamControl, WindowPartRow

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedFeatures:
    """Derived features of the events of one model, (n, P), and their names."""

    names: tuple[str, ...]
    values: Floats


class BatchScorer(Protocol):
    """The scorer of a batch, as the fold uses it."""

    def measure(self, features: Floats, model_id: int) -> MeasuredEvents:
        """Return the energies, (n,), and the drift codes of features, (n, D), under a model, in one pass."""
        ...

    def energies(self, features: Floats, model_id: int) -> Float32:
        """Return the energies, (n,), of features, (n, D), under a model."""
        ...

    def scale(self, model_id: int) -> Scale:
        """Return the scale of the energy histogram of a model."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredEvents:
    """Events with their energies, thresholds and flags, row by row.

    `drift_codes` holds the integer codes of the events by model; event i is row `model_rows[i]` of its model's codes.
    `needs_float64` marks the events whose model takes features in float64; None if there are none. `derived` holds the
    derived features of the events by model, in the same rows, and `event_models` the model of each event; None without
    derived features.
    """

    events: Events
    energies: Float32
    threshold_ids: Int64
    is_outlier: NDArray[np.bool_]
    is_late: NDArray[np.bool_]
    model_rows: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    needs_float64: NDArray[np.bool_] | None = None
    drift_codes: Mapping[int, DriftCodes] = field(default_factory=dict)
    event_models: Int64 | None = None
    derived: Mapping[int, DerivedFeatures] = field(default_factory=dict)

    def sum_drift(self, rows: Int64, windows: Int64, n_windows: int, model_id: int) -> WindowDriftSums | None:
        """Return the drift sums of each window over the events at `rows`, all of one model; None without codes.

        `windows` has the index of the window of each of these events, ascending.
        """
        codes = self.drift_codes.get(model_id)
        return None if codes is None else codes.sum_windows(self.model_rows[rows], windows, n_windows)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedBatch:
    """The content of one commit, and the records that have to wait.

    `end` is the position after the commit, and `n_records` the number of records before it, whatever became of them.
    `watermark_us` includes the first event that the lead holds back, so that a gap in event time cannot block the
    stream. `held_by_lead` is True when the lead cut the batch. `key_states` are the states of the keys of its events
    after it; None if the stream derives no features.
    """

    end: int
    watermark_us: int | None
    n_records: int
    scored: ScoredEvents
    dead: DeadLetters
    parts: list[WindowPartRow]
    shadow_parts: list[ShadowPartRow]
    remaining: DecodedBatch | None
    held_by_lead: bool
    key_states: KeyStateRows | None = None


def join_batches(pieces: list[DecodedBatch]) -> DecodedBatch:
    """Join consecutive batches of one partition into one batch."""
    if len(pieces) == 1:
        return pieces[0]
    cursors = [piece.cursors for piece in pieces if piece.cursors is not None]
    return DecodedBatch(
        partition=pieces[0].partition,
        begin=pieces[0].begin,
        end=pieces[-1].end,
        cursors=np.concatenate([*(c[:-1] for c in cursors[:-1]), cursors[-1]]) if cursors else None,
        events=Events.concat([piece.events for piece in pieces]),
        dead_letters=DeadLetters.concat([piece.dead_letters for piece in pieces]),
        filtered=FilteredRecords.concat([piece.filtered for piece in pieces]),
    )


def fold(
    batch: DecodedBatch,
    *,
    watermark_us: int | None,
    control: StreamControl,
    schedule: ThresholdSchedule,
    rules: StreamRules,
    scorer: BatchScorer,
    following: Sequence[DecodedBatch] = (),
    extent: ReadExtent | None = None,
    keyed: KeyedSource | None = None,
) -> FoldedBatch:
    """Fold a batch into the columns of one commit.

    Args:
        batch: Consecutive records of one source, from its stored position on.
        watermark_us: The source's stored watermark; None before its first event.
        control: The stream's sealed time, as the worker last read it; the ledger checks it when it commits.
        schedule: The threshold rows.
        rules: The rules of the stream.
        scorer: The scorer of the models in the schedule.
        following: The batches of the source after it that are read already; they vote on future times.
        extent: How far the log was read; None: to the end of these batches, which is not known to be the log's end.
        keyed: The states of the source's keys before the batch; None if the stream derives no features.
    """
    windows = make_window_schedule(rules.windows)
    timed = find_timed_records(batch)
    extent = extent or ReadExtent(read_until=following[-1].end if following else batch.end)
    stray, decided = mask_stray_times(timed, watermark_us, rules, following=following, extent=extent)
    # The remaining records keep their stray times: the next fold decides them again, by the records that follow.
    within_lead = count_before_lead_end(
        np.where(stray, NO_WATERMARK_US, timed.times_us), windows.lead_end_us(control.sealed_until_us)
    )
    n = min(decided, within_lead)
    ready, remaining = _split_batch(batch, int(timed.offsets[n]) if n < len(timed) else batch.end)
    ready = reject_stray_times(ready, timed.offsets[:n][stray[:n]])
    believed = ~stray[:n]
    watermarks = SourceWatermarks.of(timed.offsets[:n][believed], timed.times_us[:n][believed], watermark_us)
    advanced_us = watermarks.newest_us
    held = within_lead < decided
    if held:  # an undecided event may have a stray time, which must not become the watermark
        head_us = int(timed.times_us[n])
        advanced_us = head_us if advanced_us is None else max(advanced_us, head_us)
    ready, key_states = _derive_features(ready, keyed)
    scored = _score_events(ready.events, watermarks.before(ready.events.offsets), control, schedule, windows, scorer)
    return FoldedBatch(
        end=ready.end,
        watermark_us=advanced_us,
        n_records=ready.n_records,
        scored=scored,
        dead=ready.dead_letters,
        parts=_build_parts(ready, scored, watermarks, control, schedule, windows, scorer),
        shadow_parts=_build_shadow_parts(scored, schedule, windows, scorer),
        remaining=remaining,
        held_by_lead=held,
        key_states=key_states,
    )


def _derive_features(batch: DecodedBatch, keyed: KeyedSource | None) -> tuple[DecodedBatch, KeyStateRows | None]:
    """Add the features that are derived from earlier events of the same key, late events included."""
    if keyed is None or not len(batch.events):
        return batch, None
    events, changed = keyed.derive(batch.events)
    return replace(batch, events=events), changed


def _split_batch(batch: DecodedBatch, offset: int) -> tuple[DecodedBatch, DecodedBatch | None]:
    """Split a batch at an offset; the second piece is None at the end of the batch."""
    if offset >= batch.end:
        return batch, None
    n_events, n_dead, n_filtered = (
        int(np.searchsorted(piece.offsets, offset)) for piece in (batch.events, batch.dead_letters, batch.filtered)
    )
    row = offset - batch.begin
    first = replace(
        batch,
        end=offset,
        cursors=None if batch.cursors is None else batch.cursors[: row + 1],
        events=batch.events.slice(0, n_events),
        dead_letters=batch.dead_letters.slice(0, n_dead),
        filtered=batch.filtered.slice(0, n_filtered),
    )
    remaining = replace(
        batch,
        begin=offset,
        cursors=None if batch.cursors is None else batch.cursors[row:],
        events=batch.events.slice(n_events, len(batch.events)),
        dead_letters=batch.dead_letters.slice(n_dead, len(batch.dead_letters)),
        filtered=batch.filtered.slice(n_filtered, len(batch.filtered)),
    )
    return first, remaining


def _score_events(
    events: Events,
    watermarks_us: Int64,
    control: StreamControl,
    schedule: ThresholdSchedule,
    windows: WindowSchedule,
    scorer: BatchScorer,
) -> ScoredEvents:
    starts_us = windows.starts(events.times_us)
    rows = schedule.rows_at(starts_us)
    energies = np.empty(len(events), np.float32)
    model_ids = schedule.model_ids[rows]
    model_rows = np.zeros(len(events), np.int64)
    needs_float64 = np.zeros(len(events), np.bool_)
    codes, derived = {}, {}
    for model_id in np.unique(model_ids).tolist():
        own = model_ids == model_id
        measured = scorer.measure(events.features[own], model_id)
        energies[own] = measured.energies
        needs_float64[own] = measured.feature_dtype == np.float64
        model_rows[own] = np.arange(len(measured.energies))
        if measured.codes is not None:
            codes[model_id] = measured.codes
        if measured.derived is not None:
            derived[model_id] = DerivedFeatures(names=measured.derived_names, values=measured.derived)
    return ScoredEvents(
        events=events,
        energies=energies,
        threshold_ids=schedule.threshold_ids[rows],
        is_outlier=energies > schedule.thresholds[rows],
        is_late=windows.late_mask(starts_us, watermarks_us, control.sealed_until_us),
        model_rows=model_rows,
        needs_float64=needs_float64 if needs_float64.any() else None,
        event_models=model_ids if derived else None,
        drift_codes=codes,
        derived=derived,
    )


def _build_parts(
    ready: DecodedBatch,
    scored: ScoredEvents,
    watermarks: SourceWatermarks,
    control: StreamControl,
    schedule: ThresholdSchedule,
    windows: WindowSchedule,
    scorer: BatchScorer,
) -> list[WindowPartRow]:
    """Build one part per window in one pass over the batch; only events that are not late are in its statistics."""
    event_starts = windows.starts(scored.events.times_us)
    late_starts, late_s = _find_late(scored, event_starts, watermarks, control, windows)
    dead_starts = _windows_of_marks(watermarks.before(ready.dead_letters.offsets), windows)
    filtered_starts = _windows_of_marks(watermarks.after(ready.filtered.offsets), windows)
    on_time = np.flatnonzero(~scored.is_late)
    on_time = on_time[np.argsort(event_starts[on_time], kind="stable")]
    starts = np.unique(np.concatenate([event_starts[on_time], late_starts, dead_starts, filtered_starts]))
    late, dead, filtered = (
        _count_by_window(counted, starts) for counted in (late_starts, dead_starts, filtered_starts)
    )
    model_ids = schedule.model_ids[schedule.rows_at(starts)]
    event_windows = np.searchsorted(starts, event_starts[on_time])
    rows = []
    for model_id in np.unique(model_ids).tolist():
        own = model_ids == model_id
        events = on_time[own[event_windows]]
        index = np.searchsorted(starts[own], event_starts[events])
        n_windows = int(own.sum())
        parts = replace(
            summarise_windows(
                scored.energies[events], scored.is_outlier[events], index, n_windows, scorer.scale(model_id)
            ),
            late=late[own],
            dead=dead[own],
            drift=scored.sum_drift(events, index, n_windows, model_id),
        )
        samples = _encode_samples(ready.partition, scored.events, events, index, starts[own], windows)
        rows += _part_rows(parts, samples, starts[own], filtered[own], scored.events.offsets[events], schedule, windows)
    rows = _add_lateness(rows, late_starts, late_s)
    return sorted(rows, key=lambda row: row.window_start_us)


def _add_lateness(rows: list[WindowPartRow], late_starts: Int64, late_s: Int64) -> list[WindowPartRow]:
    """Add to each row how late the late events are that it counts."""
    if not len(late_starts):
        return rows
    own = {start: late_s[late_starts == start] for start in np.unique(late_starts).tolist()}
    return [
        replace(row, late_sum_s=int(own[start].sum()), late_max_s=int(own[start].max()))
        if (start := row.window_start_us) in own
        else row
        for row in rows
    ]


def _encode_samples(
    partition: Partition, events: Events, rows: NDArray[np.intp], index: Int64, starts: Int64, windows: WindowSchedule
) -> list[bytes | None]:
    """Return a sample of the events at `rows` for each window; `index` is the window of each event, ascending.

    The features are those that the model saw, the derived ones included.
    """
    sizes = windows.sample_sizes_at(starts)
    if not sizes.any():
        return [None] * len(starts)
    hashes = hash_offsets(partition.topic, partition.partition, events.offsets[rows])
    return encode_window_samples(hashes, index, sizes, rows=rows, times_us=events.times_us, features=events.features)


def _find_late(
    scored: ScoredEvents,
    event_starts: Int64,
    watermarks: SourceWatermarks,
    control: StreamControl,
    windows: WindowSchedule,
) -> tuple[Int64, Int64]:
    """Return the window that each late event is counted in, and how late it is in seconds.

    It is counted in the window of its source's watermark before it, since its own window is judged before it comes. Old
    times that are scattered over many windows therefore cost no part each. Without a watermark, or where that window
    is sealed because the source was idle, it is the window of its own time or the first open one, whichever is later.
    """
    late = scored.is_late
    if not late.any():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    marks_us = watermarks.before(scored.events.offsets[late])
    starts = np.where(marks_us >= 0, windows.starts(np.maximum(marks_us, 0)), event_starts[late])
    if control.sealed_until_us is not None:
        starts, marks_us = np.maximum(starts, control.sealed_until_us), np.maximum(marks_us, control.sealed_until_us)
    times_us = scored.events.times_us[late]
    return starts, (np.maximum(marks_us, times_us) - times_us) // SECOND_US


def _windows_of_marks(marks_us: Int64, windows: WindowSchedule) -> Int64:
    """Return the windows that records other than events are counted in, without those before the first event."""
    return windows.starts(marks_us[marks_us >= 0])


def _count_by_window(windows: Int64, starts: Int64) -> Int64:
    """Return how many of `windows` equal each of the ascending `starts`."""
    return np.bincount(np.searchsorted(starts, windows), minlength=len(starts))


def _part_rows(
    parts: WindowParts,
    samples: Sequence[bytes | None],
    starts: Int64,
    filtered: Int64,
    offsets: Int64,
    schedule: ThresholdSchedule,
    windows: WindowSchedule,
) -> list[WindowPartRow]:
    """Return the rows of the windows of one model; `offsets` are those of its on-time events, sorted by window."""
    ends = np.cumsum(parts.events)
    padded = np.append(offsets, 0)
    columns = (
        starts,
        windows.ends(starts),
        schedule.threshold_ids[schedule.rows_at(starts)],
        parts.events,
        parts.outliers,
        parts.late,
        parts.dead,
        filtered,
        padded[ends - parts.events],
        padded[ends - 1],
    )
    return [
        WindowPartRow(
            window_start_us=start,
            window_end_us=end,
            threshold_id=threshold_id,
            events=events,
            outliers=outliers,
            late=late,
            dead=dead,
            filtered=filtered_,
            payload=payload,
            first_offset=first if events else None,
            last_offset=last if events else None,
            sample=sample,
        )
        for start, end, threshold_id, events, outliers, late, dead, filtered_, first, last, payload, sample in zip(
            *(column.tolist() for column in columns), encode_windows(parts), samples, strict=True
        )
    ]


def _build_shadow_parts(
    scored: ScoredEvents, schedule: ThresholdSchedule, windows: WindowSchedule, scorer: BatchScorer
) -> list[ShadowPartRow]:
    if not schedule.shadows:
        return []
    on_time = ~scored.is_late
    return build_shadow_parts(
        scored.events.features[on_time],
        scored.events.times_us[on_time],
        schedule.shadows,
        windows,
        energies=scorer.energies,
        scale=scorer.scale,
        is_outlier=scored.is_outlier[on_time],
    )
