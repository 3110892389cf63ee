"""The fold of a batch: decoded events and dead letters become the columns of one commit. Pure.

This is the middle of a batch's way: cut by lead, find each event's window and threshold row, score, flag, mark the
late ones, summarise one part per window. It reads nothing but its arguments, so it can be run again when the stream
moved on under it (a window sealed, a new threshold), and gives the same rows at any speed of replay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from consumers.batch import DeadLetters, DecodedBatch, Events
from consumers.windows import (
    NO_WATERMARK_US,
    count_before_lead_end,
    find_stray_times,
    late_mask,
    watermark_before,
    window_start,
)
from monitor.models.shadow_parts import build_shadow_parts
from monitor.statistics.drift_sums import DriftCodes, DriftSums, MeasuredEvents
from monitor.statistics.part import Part, Scale, encode_part, summarise_windows
from storage.control.shadows import ScheduledShadow
from storage.ledger.commit import ShadowPartRow, StreamControl, WindowPartRow
from storage.ledger.ledger import ScheduledThreshold

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]


class BatchScorer(Protocol):
    """What the fold needs of the scoring worker's core."""

    def measure(self, features: Float32, model_id: int) -> MeasuredEvents:
        """Return the energies of features (n, D) under a model, and what drift adds up of them, in one pass."""
        ...

    def energies(self, features: Float32, model_id: int) -> Float32:
        """Return the energies of features (n, D) under a model."""
        ...

    def scale(self, model_id: int) -> Scale:
        """Return the scale of the model's energies."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRule:
    """The settings of `window` in microseconds; `max_future_us` is None where the broker's clock bounds the times."""

    size_us: int
    grace_us: int
    ahead_us: int
    max_future_us: int | None

    def lead_end_us(self, sealed_until_us: int | None) -> int:
        """Return the event time at and beyond which nothing may be stored yet."""
        return (sealed_until_us or 0) + self.grace_us + self.ahead_us


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdSchedule:
    """Which threshold, and with it which model, is valid for a window; ordered by the start of validity."""

    valid_from_us: Int64
    threshold_ids: Int64
    model_ids: Int64
    thresholds: NDArray[np.float64]
    newest_id: int
    rows: tuple[ScheduledThreshold, ...]
    shadows: tuple[ScheduledShadow, ...] = ()

    @staticmethod
    def from_rows(rows: Sequence[ScheduledThreshold]) -> "ThresholdSchedule":
        """Build the schedule of stored threshold rows; of two rows valid from one time the later one holds."""
        ordered = sorted(rows, key=lambda row: (row.valid_from_us, row.id))
        return ThresholdSchedule(
            valid_from_us=np.array([row.valid_from_us for row in ordered], np.int64),
            threshold_ids=np.array([row.id for row in ordered], np.int64),
            model_ids=np.array([row.model_id for row in ordered], np.int64),
            thresholds=np.array([row.threshold for row in ordered], np.float64),
            newest_id=max((row.id for row in rows), default=0),
            rows=tuple(ordered),
        )

    def extend(self, rows: Sequence[ScheduledThreshold]) -> "ThresholdSchedule":
        """Return the schedule with rows that were stored since."""
        return replace(ThresholdSchedule.from_rows([*self.rows, *rows]), shadows=self.shadows) if rows else self

    def rows_at(self, window_starts_us: Int64) -> Int64:
        """Return the schedule's row for each window; the first row holds for everything before it."""
        found = np.searchsorted(self.valid_from_us, window_starts_us, side="right") - 1
        return np.maximum(found, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredEvents:
    """Events with all that was decided about them, row by row.

    `codes` has the integers that drift adds up, by model; event i is row `places[i]` of its model's.
    """

    events: Events
    energies: Float32
    threshold_ids: Int64
    is_outlier: NDArray[np.bool_]
    is_late: NDArray[np.bool_]
    model_rows: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    drift_codes: Mapping[int, DriftCodes] = field(default_factory=dict)

    def drift_sums(self, rows: Int64, model_id: int) -> DriftSums | None:
        """Return the drift sums of the events at `rows`, all of one model; None without events or codes."""
        codes = self.drift_codes.get(model_id)
        return codes.sum_rows(self.model_rows[rows]) if codes is not None and len(rows) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedBatch:
    """What one commit will store, and the rest that has to wait.

    `end` is the position after it; `watermark_us` includes the head event that lead holds back, so that a gap in
    event time cannot deadlock. `held` says that lead, not the end of the input, cut the batch.
    """

    end: int
    watermark_us: int | None
    scored: ScoredEvents
    dead: DeadLetters
    parts: list[WindowPartRow]
    shadow_parts: list[ShadowPartRow]
    remaining: DecodedBatch | None
    held_by_lead: bool


def join_batches(pieces: list[DecodedBatch]) -> DecodedBatch:
    """Join consecutive pieces of one partition into one."""
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
    )


def fold(
    batch: DecodedBatch,
    *,
    watermark_us: int | None,
    final: bool,
    control: StreamControl,
    schedule: ThresholdSchedule,
    rule: WindowRule,
    scores: BatchScorer,
) -> FoldedBatch:
    """Fold a batch into the columns of one commit.

    Args:
        batch: Consecutive records of one source from its stored position on.
        watermark_us: The source's stored watermark.
        final: Nothing follows this batch in its source.
        control: How far the stream is sealed, as the writer knows it; the ledger checks it again.
        schedule: The threshold rows.
        rule: Window settings.
        scores: The scorer.
    """
    stray, settled = _find_stray_times(batch.events, watermark_us, rule, final=final)
    # What waits is left as it came, strays among it: each is told by the events that follow it.
    ahead = count_before_lead_end(
        np.where(stray, NO_WATERMARK_US, batch.events.times_us), rule.lead_end_us(control.sealed_until_us)
    )
    n = min(settled, ahead)
    taken, rest = _split_batch(batch, n)
    taken = _reject_stray_times(taken, stray[:n])
    before = watermark_before(taken.events.times_us, watermark_us)
    own = _advance_watermark(watermark_us, taken.events.times_us)
    # An event that is not settled may prove to be a stray: its time must not become a watermark.
    held = ahead < settled
    scored = _score_events(taken.events, before, control, schedule, rule, scores)
    return FoldedBatch(
        end=taken.end,
        watermark_us=_advance_watermark(own, batch.events.times_us[n : n + 1]) if held else own,
        scored=scored,
        dead=taken.dead_letters,
        parts=_build_parts(scored, taken.dead_letters, watermark_us, schedule, rule, scores),
        shadow_parts=_build_shadow_parts(scored, schedule, rule, scores),
        remaining=rest,
        held_by_lead=held,
    )


def _find_stray_times(
    events: Events, watermark_us: int | None, rule: WindowRule, *, final: bool
) -> tuple[NDArray[np.bool_], int]:
    """Say which events carry stray future times, and how many events are settled."""
    if rule.max_future_us is None:
        return np.zeros(len(events), np.bool_), len(events)
    stray, settled = find_stray_times(events.times_us, watermark_us, rule.max_future_us, final=final)
    stray[settled:] = False
    return stray, settled


def _reject_stray_times(batch: DecodedBatch, stray: NDArray[np.bool_]) -> DecodedBatch:
    """Turn events of stray times into dead letters."""
    refused = np.flatnonzero(stray)
    if not len(refused):
        return batch
    letters = DeadLetters(
        offsets=batch.events.offsets[refused],
        end_offsets=batch.events.offsets[refused] + 1,
        reasons=["future_time"] * len(refused),
        details=[
            f"{_format_seconds(batch.events.times_us[i])} s since 1970; the events after it are earlier"
            for i in refused
        ],
        payloads=[None] * len(refused),
    )
    dead = _sort_dead_letters(DeadLetters.concat([batch.dead_letters, letters]))
    return replace(batch, events=batch.events.filter(~stray), dead_letters=dead)


def _format_seconds(time_us: np.int64) -> str:
    return f"{int(time_us) / 1e6:.6f}"


def _sort_dead_letters(dead: DeadLetters) -> DeadLetters:
    order = np.argsort(dead.offsets, kind="stable")
    return DeadLetters(
        offsets=dead.offsets[order],
        end_offsets=dead.end_offsets[order],
        reasons=[dead.reasons[i] for i in order],
        details=[dead.details[i] for i in order],
        payloads=[dead.payloads[i] for i in order],
    )


def _split_batch(batch: DecodedBatch, n: int) -> tuple[DecodedBatch, DecodedBatch | None]:
    """Cut before the event `n`; dead letters before it go with the first piece."""
    if n >= len(batch.events):
        return batch, None
    offset = int(batch.events.offsets[n])
    letters = int(np.searchsorted(batch.dead_letters.offsets, offset))
    row = offset - batch.begin
    first = replace(
        batch,
        end=offset,
        cursors=None if batch.cursors is None else batch.cursors[: row + 1],
        events=batch.events.slice(0, n),
        dead_letters=batch.dead_letters.slice(0, letters),
    )
    rest = replace(
        batch,
        begin=offset,
        cursors=None if batch.cursors is None else batch.cursors[row:],
        events=batch.events.slice(n, len(batch.events)),
        dead_letters=batch.dead_letters.slice(letters, len(batch.dead_letters)),
    )
    return first, rest


def _advance_watermark(watermark_us: int | None, times_us: Int64) -> int | None:
    if not len(times_us):
        return watermark_us
    newest = int(times_us.max())
    return newest if watermark_us is None else max(watermark_us, newest)


def _score_events(
    events: Events,
    before: Int64,
    control: StreamControl,
    schedule: ThresholdSchedule,
    rule: WindowRule,
    scores: BatchScorer,
) -> ScoredEvents:
    rows = schedule.rows_at(window_start(events.times_us, rule.size_us))
    energy = np.empty(len(events), np.float32)
    models = schedule.model_ids[rows]
    places = np.zeros(len(events), np.int64)
    codes = {}
    for model_id in np.unique(models).tolist():
        of_model = models == model_id
        measured = scores.measure(events.features[of_model], model_id)
        energy[of_model] = measured.energies
        places[of_model] = np.arange(len(measured.energies))
        if measured.codes is not None:
            codes[model_id] = measured.codes
    return ScoredEvents(
        events=events,
        energies=energy,
        threshold_ids=schedule.threshold_ids[rows],
        is_outlier=energy > schedule.thresholds[rows],
        is_late=late_mask(events.times_us, rule.size_us, rule.grace_us, before, control.sealed_until_us),
        model_rows=places,
        drift_codes=codes,
    )


def _build_parts(
    scored: ScoredEvents,
    dead_letters: DeadLetters,
    watermark_us: int | None,
    schedule: ThresholdSchedule,
    rule: WindowRule,
    scorer: BatchScorer,
) -> list[WindowPartRow]:
    """Build one part per window in one pass over the batch; late events and dead letters are only counted."""
    windows = window_start(scored.events.times_us, rule.size_us)
    dead_windows = _dead_letter_windows(scored.events, dead_letters, watermark_us, rule)
    starts = np.unique(np.concatenate([windows, dead_windows]))
    late = _count_by_window(windows[scored.is_late], starts)
    dead = _count_by_window(dead_windows, starts)
    on_time = np.flatnonzero(~scored.is_late)
    on_time = on_time[np.argsort(windows[on_time], kind="stable")]
    begins = np.searchsorted(windows[on_time], starts, side="left").tolist()
    ends = np.searchsorted(windows[on_time], starts, side="right").tolist()
    schedule_rows = schedule.rows_at(starts)
    model_ids = schedule.model_ids[schedule_rows].tolist()
    threshold_ids = schedule.threshold_ids[schedule_rows].tolist()
    summaries = _summarise_by_model(scored, on_time, windows, schedule, scorer)
    parts = []
    for i, start in enumerate(starts.tolist()):
        own = on_time[begins[i] : ends[i]]
        part = replace(
            summaries.get(start) or Part.without_events(),
            drift=scored.drift_sums(own, model_ids[i]),
            late=late[i],
            dead=dead[i],
        )
        parts.append(
            WindowPartRow(
                window_start_us=start,
                window_end_us=start + rule.size_us,
                threshold_id=threshold_ids[i],
                events=part.events,
                outliers=part.outliers,
                late=part.late,
                dead=part.dead,
                payload=encode_part(part),
                first_offset=int(scored.events.offsets[own[0]]) if len(own) else None,
                last_offset=int(scored.events.offsets[own[-1]]) if len(own) else None,
            )
        )
    return parts


def _count_by_window(windows: Int64, starts: Int64) -> list[int]:
    """Return how many of `windows` equal each of the ascending `starts`."""
    return np.bincount(np.searchsorted(starts, windows), minlength=len(starts)).tolist()


def _summarise_by_model(
    scored: ScoredEvents, rows: Int64, windows: Int64, schedule: ThresholdSchedule, scorer: BatchScorer
) -> dict[int, Part]:
    """Return the energy statistics of the events at `rows`, by window start; each model has its own scale."""
    model_ids = schedule.model_ids[schedule.rows_at(windows[rows])]
    summaries: dict[int, Part] = {}
    for model_id in np.unique(model_ids).tolist():
        own = rows[model_ids == model_id]
        starts, parts = summarise_windows(
            scored.energies[own], scored.is_outlier[own], windows[own], scorer.scale(model_id)
        )
        summaries |= zip(starts.tolist(), parts, strict=True)
    return summaries


def _build_shadow_parts(
    scored: ScoredEvents, schedule: ThresholdSchedule, rule: WindowRule, scores: BatchScorer
) -> list[ShadowPartRow]:
    if not schedule.shadows:
        return []
    on_time = ~scored.is_late
    return build_shadow_parts(
        scored.events.features[on_time],
        window_start(scored.events.times_us[on_time], rule.size_us),
        schedule.shadows,
        size_us=rule.size_us,
        energies=scores.energies,
        scale=scores.scale,
    )


def _dead_letter_windows(events: Events, dead: DeadLetters, watermark_us: int | None, rule: WindowRule) -> Int64:
    """Return the window of each dead letter: that of the source's watermark before it; none before any event."""
    if not len(dead):
        return np.empty(0, np.int64)
    running = watermark_before(np.append(events.times_us, 0), watermark_us)
    seen = running[np.searchsorted(events.offsets, dead.offsets)]
    known = seen >= 0
    return window_start(seen[known], rule.size_us)
