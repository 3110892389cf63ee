"""The worker of a stream: one thread that decodes, folds and commits, in order of offsets per source and epoch.

The path of a batch: `Inbox.get` -> `Codec.decode` -> `fold` (cut, score, flag, build parts) -> `Ledger.commit`. The
state of the worker can be discarded at any time: records are read again from the stored position.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from config.stream_rules import StreamRules
from consumers.batch import DecodedBatch, Partition, Position
from consumers.codec import Codec
from consumers.windows import NO_WATERMARK_US, window_start
from monitor.pipeline.commit import build_commit, build_position_commit
from monitor.pipeline.fold import BatchScorer, FoldedBatch, fold
from monitor.pipeline.inbox import (
    ControlChanged,
    Inbox,
    InboxMessage,
    PartitionCaughtUp,
    PartitionClaimed,
    PartitionEnded,
    PartitionRevoked,
    RecordsFetched,
    StopRequested,
)
from monitor.pipeline.intake import ReclaimRequest
from monitor.pipeline.partition_buffer import (
    COMMIT_EVENTS,
    COMMIT_INTERVAL_S,
    WATERMARK_REPEAT_S,
    PartitionBuffer,
    is_unreadable_range,
)
from monitor.pipeline.rejection_warning import AllRejectedWarning
from monitor.pipeline.retry import StorageRetry
from monitor.pipeline.threshold_schedule import ThresholdSchedule
from storage.control.shadows import ShadowStore
from storage.database.errors import CommitUnknown
from storage.ledger.commit import Commit, Committed, Fenced, Stale, StreamControl
from storage.ledger.ledger import Ledger
from storage.ledger.schedule import ScheduledThreshold

log = logging.getLogger(__name__)

_HELD_CHECK_INTERVAL_S = 0.5
"""Interval at which the control state is read while the lead holds records back."""

_IDLE_WAIT_S = 3.0
"""Maximum wait for a message."""

_MAX_SINGLE_READS = 20
"""Late windows of a batch up to this number cost one indexed read of a threshold row each."""


def _makes_no_progress(buffer: PartitionBuffer, folded: FoldedBatch) -> bool:
    return folded.end == buffer.next_offset and folded.watermark_us == buffer.watermark_us


class ClaimRequests(Protocol):
    """The intake, as the worker uses it."""

    def request_reclaim(self, request: ReclaimRequest) -> None:
        """Request a new claim of a partition."""
        ...

    def set_positions(self, positions: Mapping[Partition, int]) -> None:
        """Set the committed positions to publish."""
        ...


class Worker:
    """Turns the messages of the inbox into commits until polling has ended."""

    def __init__(
        self,
        rules: StreamRules,
        stream_id: int,
        *,
        codec: Codec,
        features: tuple[str, ...],
        scorer: BatchScorer,
        ledger: Ledger,
        shadows: ShadowStore,
        inbox: Inbox,
        intake: ClaimRequests,
        notify_committed: Callable[[], None],
        retry: StorageRetry,
    ) -> None:
        self._rules = rules
        self._stream_id = stream_id
        self._codec = codec
        self._features = features
        self._scorer = scorer
        self._ledger = ledger
        self._shadows = shadows
        self._inbox = inbox
        self._intake = intake
        self._notify_committed = notify_committed
        self._retry = retry
        self._buffers: dict[Partition, PartitionBuffer] = {}
        self._control = StreamControl(sealed_until_us=None, revision=-1, last_tick_us=None)
        self._schedule = ThresholdSchedule.from_rows([])
        self._control_read_s = float("-inf")
        self._stop_requested_s: float | None = None
        self._rejection_warning = AllRejectedWarning()
        self.events_committed = 0
        self.last_commit_s = time.monotonic()

    @property
    def ended(self) -> bool:
        """Return whether every claimed source has ended and its end is stored."""
        buffers = list(self._buffers.values())
        return bool(buffers) and all(buffer.end_stored for buffer in buffers)

    def stuck_s(self) -> float:
        """Return the seconds that records have waited without a commit; 0 without waiting records."""
        since_s = min(
            (buffer.records_since_s for buffer in list(self._buffers.values()) if buffer.pending), default=None
        )
        # The last commit may be hours before the first waiting record.
        return 0.0 if since_s is None else time.monotonic() - max(since_s, self.last_commit_s)

    def run(self) -> None:
        """Process messages until `StopRequested` was received and the decoded records are committed."""
        while True:
            message = self._inbox.get(self._wait_s())
            while message is not None:
                self._process_message(message)
                message = self._inbox.get(0.0) if self._next_due_buffer(time.monotonic()) is None else None
            self._commit_due()
            if self._stop_requested_s is not None and self._is_drained():
                return

    def _is_drained(self) -> bool:
        waiting = any(
            buffer.pending and buffer.held_under is None and not buffer.undecided for buffer in self._buffers.values()
        )
        return not waiting or time.monotonic() - (self._stop_requested_s or 0.0) > self._retry.drain_timeout_s

    def _wait_s(self) -> float:
        """Return the longest wait for a message: until the next commit or read of the control state is due."""
        now_s = time.monotonic()
        due = [_IDLE_WAIT_S]
        for buffer in self._buffers.values():
            if buffer.held_under is not None:
                due.append(self._control_read_s + _HELD_CHECK_INTERVAL_S - now_s)
            elif buffer.pending and not buffer.undecided:
                due.append(buffer.pending_since_s + COMMIT_INTERVAL_S - now_s)
        return max(0.0, min(due)) if self._stop_requested_s is None else 0.0

    def _process_message(self, message: InboxMessage) -> None:
        match message:
            case RecordsFetched():
                self._decode(message)
            case PartitionClaimed():
                self._open_buffer(message)
            case PartitionRevoked():
                self._discard_buffer(message.partition)
            case PartitionCaughtUp():
                if message.partition in self._buffers:
                    self._renew_idle_lease(self._buffers[message.partition], message)
            case PartitionEnded():
                buffer = self._buffers.get(message.partition)
                if buffer is not None and buffer.claim.epoch == message.epoch:
                    buffer.ended = True
                    buffer.undecided = False
            case ControlChanged():
                self._control_read_s = float("-inf")
            case StopRequested():
                self._stop_requested_s = time.monotonic()

    def _open_buffer(self, message: PartitionClaimed) -> None:
        self._discard_buffer(message.partition)
        claim = message.claim
        self._buffers[message.partition] = PartitionBuffer(
            partition=message.partition,
            claim=claim,
            next_offset=claim.next_offset,
            cursor=claim.cursor,
            watermark_us=claim.watermark_us,
            last_event_s=time.monotonic(),
        )

    def _discard_buffer(self, partition: Partition) -> None:
        buffer = self._buffers.pop(partition, None)
        if buffer is not None:
            self._inbox.release(partition, buffer.record_count)

    def _give_up_claim(self, buffer: PartitionBuffer) -> None:
        log.info(
            "The claim of %s was lost; discarding its pending records.",
            buffer.partition,
            extra={"action": "fence"},
        )
        self._discard_buffer(buffer.partition)
        self._intake.request_reclaim(ReclaimRequest(partition=buffer.partition, epoch=buffer.claim.epoch))

    def _decode(self, message: RecordsFetched) -> None:
        batch = message.batch
        buffer = self._buffers.get(batch.partition)
        if buffer is None or buffer.claim.epoch != message.epoch:
            self._inbox.release(batch.partition, len(batch))
            return
        decoded = self._codec.decode(batch, time.time_ns() // 1_000)
        buffer.add(decoded, time.monotonic())
        self._rejection_warning.count(self._rules.stream, decoded)

    def _next_due_buffer(self, now_s: float) -> PartitionBuffer | None:
        """Return the buffer with a due commit that has waited longest; None without a due commit."""
        due = [buffer for buffer in self._buffers.values() if self._is_due(buffer, now_s)]
        return min(due, key=lambda buffer: buffer.pending_since_s, default=None)

    def _is_due(self, buffer: PartitionBuffer, now_s: float) -> bool:
        return buffer.is_due(self._control, now_s, finishing=self._stop_requested_s is not None)

    def _commit_due(self) -> None:
        self._refresh_control()
        for buffer in list(self._buffers.values()):
            while self._buffers.get(buffer.partition) is buffer and self._is_due(buffer, time.monotonic()):
                self._commit_next(buffer)

    def _refresh_control(self) -> None:
        """Read the control state while records are held back by it, or if it was never read."""
        waiting = self._control.revision < 0 or any(buffer.held_under is not None for buffer in self._buffers.values())
        now_s = time.monotonic()
        if waiting and now_s - self._control_read_s >= _HELD_CHECK_INTERVAL_S:
            self._apply_control(self._retry.retry_until_answered(lambda: self._ledger.read_control(self._stream_id)))
            self._control_read_s = now_s

    def _apply_control(self, control: StreamControl) -> None:
        """Set the control state; read new thresholds after it, so that they are as new or newer."""
        before = self._control
        if control.revision != before.revision:
            # The sealed windows need no row, apart from late events. Retention may have deleted rows, so that the
            # schedule is read anew.
            rows = self._read_schedule(from_us=control.sealed_until_us)
            shadows = self._retry.retry_until_answered(lambda: self._shadows.read_scheduled(self._stream_id))
            complete_from_us = NO_WATERMARK_US if control.sealed_until_us is None or not rows else rows[0].valid_from_us
            schedule = ThresholdSchedule.from_rows(rows, complete_from_us=complete_from_us)
            self._schedule = replace(schedule, shadows=tuple(shadows))
        elif control.last_tick_us != before.last_tick_us:
            # A new row is never valid earlier than the last one; the bound lets the read use the index.
            last_us = self._schedule.rows[-1].valid_from_us if self._schedule.rows else None
            rows = self._read_schedule(after_id=self._schedule.newest_id, from_us=last_us)
            self._schedule = self._schedule.extend(rows, sealed_until_us=control.sealed_until_us)
        self._control = control

    def _read_schedule(self, *, after_id: int = 0, from_us: int | None = None) -> list[ScheduledThreshold]:
        return self._retry.retry_until_answered(
            lambda: self._ledger.read_threshold_schedule(self._stream_id, after_id=after_id, from_us=from_us)
        )

    def _schedule_for(self, batch: DecodedBatch) -> ThresholdSchedule:
        """Return the schedule with the rows that late events of the batch need in addition.

        Many late windows cost one read of all rows since the earliest of them, which are kept until the next tick.
        """
        schedule = self._schedule
        starts = window_start(batch.events.times_us, self._rules.size_us)
        late_starts = np.unique(starts[starts < schedule.complete_from_us]).tolist()
        if not late_starts:
            return schedule
        if len(late_starts) > _MAX_SINGLE_READS:
            rows = self._read_schedule(from_us=late_starts[0])
            complete = ThresholdSchedule.from_rows(rows, complete_from_us=late_starts[0])
            self._schedule = replace(complete, shadows=schedule.shadows)
            return self._schedule
        rows = self._retry.retry_until_answered(lambda: self._ledger.read_thresholds_at(self._stream_id, late_starts))
        return schedule.with_rows(rows)

    def _commit_next(self, buffer: PartitionBuffer) -> None:
        """Commit the next batch of a buffer."""
        if not buffer.pending:
            self._store_end(buffer)
            return
        batch = buffer.take_batch()
        if is_unreadable_range(batch):
            self._commit_unreadable_range(buffer, batch)
            return
        while True:  # fold again under the new control state until the ledger accepts the commit
            control = self._control
            folded = self._fold_batch(buffer, batch)
            if _makes_no_progress(buffer, folded):
                self._repeat_watermark(buffer)
                self._put_back(buffer, batch, folded, control)
                return
            commit = build_commit(self._stream_id, buffer.claim, batch, folded, self._control, self._features)
            outcome = self._send_commit(buffer, commit)
            if isinstance(outcome, Stale):
                continue
            if isinstance(outcome, Committed):
                self._after_commit(buffer, commit, len(folded.scored.events) + len(folded.dead))
                if folded.remaining is not None:
                    self._put_back(buffer, folded.remaining, folded, control)
            return

    def _fold_batch(self, buffer: PartitionBuffer, batch: DecodedBatch) -> FoldedBatch:
        """Fold a batch as the final one if the source has ended or an unreadable range follows.

        The wait of an undecided event is bounded: it is decided when 10,000 records follow it that hold too few events.
        Without this bound its records would fill the buffer of the partition, which would stay paused.
        """
        final = is_unreadable_range(buffer.pending[0]) if buffer.pending else buffer.ended
        folded = self._fold_once(buffer, batch, final=final)
        full = len(batch.events) + len(batch.dead_letters) >= COMMIT_EVENTS
        if full and not folded.held_by_lead and _makes_no_progress(buffer, folded):
            return self._fold_once(buffer, batch, final=True)
        return folded

    def _fold_once(self, buffer: PartitionBuffer, batch: DecodedBatch, *, final: bool) -> FoldedBatch:
        return fold(
            batch,
            watermark_us=buffer.watermark_us,
            final=final,
            control=self._control,
            schedule=self._schedule_for(batch),
            rules=self._rules,
            scorer=self._scorer,
        )

    def _put_back(
        self, buffer: PartitionBuffer, remaining: DecodedBatch, folded: FoldedBatch, control: StreamControl
    ) -> None:
        """Put back records that the lead holds, or that further input has to decide (times of a file).

        Records that the lead holds wait until the control state differs from `control`, under which they were folded.
        The commit may have changed it already.
        """
        buffer.undecided = not folded.held_by_lead and not buffer.pending
        buffer.pending.appendleft(remaining)
        buffer.held_under = control if folded.held_by_lead else None
        buffer.pending_since_s = time.monotonic()

    def _repeat_watermark(self, buffer: PartitionBuffer) -> None:
        """Commit the watermark of held records again every `WATERMARK_REPEAT_S`; a fenced claim is claimed again."""
        now_s = time.monotonic()
        if buffer.held_under is None or now_s - buffer.last_announced_s < WATERMARK_REPEAT_S:
            return
        buffer.last_announced_s = now_s
        self._send_commit(buffer, self._build_position_commit(buffer, None))

    def _store_end(self, buffer: PartitionBuffer) -> None:
        """Commit the end of a source after all of its records."""
        commit = self._build_position_commit(buffer, None, ended=True)
        if isinstance(self._send_commit(buffer, commit), Committed):
            buffer.end_stored = True
            self._notify_committed()

    def _commit_unreadable_range(self, buffer: PartitionBuffer, batch: DecodedBatch) -> None:
        """Commit an unreadable range, as a gap or as its dead letter."""
        while isinstance(
            outcome := self._send_commit(buffer, commit := self._build_position_commit(buffer, batch)), Stale
        ):
            pass
        if isinstance(outcome, Committed):
            self._after_commit(buffer, commit, len(batch.dead_letters))

    def _build_position_commit(
        self, buffer: PartitionBuffer, batch: DecodedBatch | None, *, ended: bool = False
    ) -> Commit:
        return build_position_commit(
            self._stream_id,
            buffer.claim,
            batch,
            Position(next_offset=buffer.next_offset, cursor=buffer.cursor),
            buffer.watermark_us,
            self._control,
            ended=ended,
        )

    def _after_commit(self, buffer: PartitionBuffer, commit: Commit, records: int) -> None:
        buffer.next_offset = commit.end
        buffer.cursor = commit.end_cursor
        buffer.watermark_us = commit.watermark_us
        buffer.held_under = None
        buffer.end_stored = False
        buffer.last_announced_s = buffer.pending_since_s = self.last_commit_s = time.monotonic()
        self.events_committed += len(commit.scores)
        buffer.record_count -= records
        self._inbox.release(buffer.partition, records)
        self._intake.set_positions({each.partition: each.next_offset for each in self._buffers.values()})
        self._notify_committed()

    def _send_commit(self, buffer: PartitionBuffer, commit: Commit) -> Committed | Fenced | Stale:
        """Commit; after a fenced or unknown outcome discard the buffer and request a new claim."""
        try:
            outcome = self._retry.retry_until_answered(lambda: self._ledger.commit(commit))
        except CommitUnknown as unknown:
            log.warning(
                "%s; reading %s again from the stored position.",
                unknown,
                buffer.partition,
                extra={"action": "commit"},
            )
            outcome = Fenced()
        match outcome:
            case Committed() | Stale():
                self._apply_control(outcome.control)
            case Fenced():
                self._give_up_claim(buffer)
        return outcome

    def _renew_idle_lease(self, buffer: PartitionBuffer, message: PartitionCaughtUp) -> None:
        """Renew the idle lease of a source that is at the end of its log and has had no event for `idle_timeout`.

        `message` follows all records that were polled before it through the inbox. So without pending records all of
        them are committed; the ledger checks the position again.
        """
        silent = time.monotonic() - buffer.last_event_s >= self._rules.idle_timeout_us / 1e6
        control_unread = self._control.revision < 0
        if control_unread or buffer.ended or not silent or any(len(batch.events) for batch in buffer.pending):
            return
        while buffer.pending and self._buffers.get(buffer.partition) is buffer:
            self._commit_next(buffer)
        claim = buffer.claim
        if self._retry.retry_until_answered(
            lambda: self._ledger.mark_idle(claim.source_id, claim.epoch, buffer.next_offset, message.until_us)
        ):
            self._notify_committed()
        else:
            self._give_up_claim(buffer)
