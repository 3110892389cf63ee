"""The next step of a partition buffer: the decision of the batch loop, as a pure function of values and of the time.

The worker collects the commits of all buffers that are due and stores them as a group (`group_commit.py`). The
back-test carries out the same steps with its own store.
"""

from dataclasses import dataclass

import numpy as np

from config.stream_rules import StreamRules
from consumers.batch import Position
from consumers.clock_vote import ReadExtent
from consumers.decoded_batch import DecodedBatch
from consumers.window_schedule import make_window_schedule
from monitor.pipeline.fold import BatchScorer, FoldedBatch, fold
from monitor.pipeline.key_states import KeyedSource
from monitor.pipeline.partition_buffer import (
    BufferAdvance,
    BufferState,
    HeldByLead,
    Hold,
    PartitionBuffer,
    Undecided,
    is_unreadable_range,
    next_batch,
)
from monitor.pipeline.threshold_schedule import ThresholdSchedule
from storage.ledger.commit import StreamControl


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitBatch:
    """Commit a folded batch; after the commit apply `advance` to the buffer.

    `batch` joins the pending batches that the commit takes. `folded` was computed under `control`.
    """

    batch: DecodedBatch
    folded: FoldedBatch
    control: StreamControl
    advance: BufferAdvance


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitUnreadableRange:
    """Commit a range of offsets that could not be read; after the commit apply `advance` to the buffer."""

    batch: DecodedBatch
    control: StreamControl
    advance: BufferAdvance


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitEnd:
    """Commit the end of the source: all of its records are committed."""

    control: StreamControl


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatWatermark:
    """Commit the watermark of records that the lead still holds back again."""

    control: StreamControl


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitForLead:
    """Apply `hold` to the buffer: the lead holds all pending records back."""

    hold: HeldByLead


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitForInput:
    """Apply `hold` to the buffer: further records or the clock decide whether the first pending time is stray."""

    hold: Undecided


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadThresholds:
    """Step again with the threshold rows of these windows: late events need rows that the schedule no longer holds.

    `window_starts_us` are ascending.
    """

    window_starts_us: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingDue:
    """Do nothing until a record, a control state or a point in time arrives."""


CommitStep = CommitBatch | CommitUnreadableRange | CommitEnd | RepeatWatermark
Step = CommitStep | WaitForLead | WaitForInput | ReadThresholds | NothingDue


def next_step(
    buffer: PartitionBuffer,
    control: StreamControl,
    schedule: ThresholdSchedule,
    now_s: float,
    *,
    rules: StreamRules,
    scorer: BatchScorer,
) -> Step:
    """Return the next step of a buffer. Nothing is changed, stored or read.

    Args:
        buffer: The pending records of one source.
        control: The stream's sealed time, revision and last tick, as last read. The ledger rejects a commit as stale
            if they have changed: the step is then computed again under the new control state.
        schedule: The threshold rows, read after `control`.
        now_s: The time on the monotonic clock.
        rules: The rules of the stream.
        scorer: The scorer of the models in the schedule.
    """
    if not buffer.is_due(control, now_s):
        return NothingDue()
    if buffer.state is BufferState.ENDED:
        return CommitEnd(control=control)
    if buffer.is_held_under(control):
        return RepeatWatermark(control=control)
    batch, n_batches = next_batch(buffer.pending)
    if is_unreadable_range(batch):
        return _commit_unreadable_range(buffer, batch, control)
    missing_us = _windows_before(schedule, batch, rules)
    if missing_us:
        return ReadThresholds(window_starts_us=missing_us)
    folded = _fold_batch(buffer, batch, n_batches, control, schedule, rules, scorer)
    return _commit_or_wait(buffer, batch, n_batches, folded, control)


def _windows_before(schedule: ThresholdSchedule, batch: DecodedBatch, rules: StreamRules) -> tuple[int, ...]:
    """Return the starts of the windows of a batch whose rows the schedule no longer holds, ascending."""
    starts = make_window_schedule(rules.windows).starts(batch.events.times_us)
    return tuple(np.unique(starts[starts < schedule.complete_from_us]).tolist())


def _commit_or_wait(
    buffer: PartitionBuffer, batch: DecodedBatch, n_batches: int, folded: FoldedBatch, control: StreamControl
) -> CommitBatch | WaitForLead | WaitForInput:
    if not _makes_progress(buffer, folded):
        return WaitForLead(hold=HeldByLead(control=control)) if folded.held_by_lead else WaitForInput(hold=Undecided())
    advance = BufferAdvance(
        n_batches=n_batches,
        n_records=folded.n_records,
        n_events=len(folded.scored.events),
        position=Position(next_offset=folded.end, cursor=batch.cursor_at(folded.end)),
        watermark_us=folded.watermark_us,
        remaining=folded.remaining,
        hold=_hold_of_remaining(folded, control),
        keyed=_advance_keys(buffer.keyed, folded),
    )
    return CommitBatch(batch=batch, folded=folded, control=control, advance=advance)


def _commit_unreadable_range(
    buffer: PartitionBuffer, batch: DecodedBatch, control: StreamControl
) -> CommitUnreadableRange:
    advance = BufferAdvance(
        n_batches=1,
        n_records=len(batch.dead_letters),
        n_events=0,
        position=Position(next_offset=batch.end, cursor=batch.cursor_at(batch.end)),
        watermark_us=buffer.watermark_us,
        keyed=buffer.keyed,
    )
    return CommitUnreadableRange(batch=batch, control=control, advance=advance)


def _fold_batch(
    buffer: PartitionBuffer,
    batch: DecodedBatch,
    n_batches: int,
    control: StreamControl,
    schedule: ThresholdSchedule,
    rules: StreamRules,
    scorer: BatchScorer,
) -> FoldedBatch:
    """Fold a batch; the pending batches after it vote on its future times, also those after an unreadable range."""
    return fold(
        batch,
        watermark_us=buffer.watermark_us,
        control=control,
        schedule=schedule,
        rules=rules,
        scorer=scorer,
        following=list(buffer.pending)[n_batches:],
        extent=ReadExtent(read_until=buffer.pending[-1].end, log_end_us=buffer.log_end_us, ended=buffer.ended),
        keyed=buffer.keyed,
    )


def _makes_progress(buffer: PartitionBuffer, folded: FoldedBatch) -> bool:
    return folded.end != buffer.position.next_offset or folded.watermark_us != buffer.watermark_us


def _advance_keys(keyed: KeyedSource | None, folded: FoldedBatch) -> KeyedSource | None:
    return keyed if keyed is None or folded.key_states is None else keyed.after(folded.key_states)


def _hold_of_remaining(folded: FoldedBatch, control: StreamControl) -> Hold | None:
    """Return the hold of the remaining records.

    Records that the lead holds wait until the control state differs from the one of this fold; the commit may have
    changed it already. Only further input decides the others, since all pending records have voted.
    """
    if folded.remaining is None:
        return None
    return HeldByLead(control=control) if folded.held_by_lead else Undecided()
