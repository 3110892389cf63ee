"""The worker of a stream: decode, fold, commit. One thread, one ordered chain of commits per source and epoch.

A batch's way is one straight line: `Inbox.get` -> `Codec.decode` -> `fold` (cut, score, flag, summarise) ->
`Ledger.commit`. Everything kept here can be dropped at any time and read again from the stored position.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from consumers.batch import DecodedBatch, Partition, Position
from consumers.codec import Codec
from monitor.pipeline.commit import build_commit, build_position_commit
from monitor.pipeline.fold import BatchScorer, FoldedBatch, ThresholdSchedule, WindowRule, fold
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
from storage.control.shadows import ShadowStore
from storage.database.engine import CommitUnknown
from storage.ledger.commit import Commit, Committed, Fenced, Stale, StreamControl
from storage.ledger.ledger import Ledger

log = logging.getLogger(__name__)

_HELD_CHECK_INTERVAL_S = 0.5
_IDLE_WAIT_S = 3.0


def _makes_no_progress(lane: PartitionBuffer, folded: FoldedBatch) -> bool:
    return folded.end == lane.next_offset and folded.watermark_us == lane.watermark_us


class Worker:
    """Turns what the inbox holds into commits until it is told to finish."""

    def __init__(
        self,
        *,
        stream: str,
        stream_id: int,
        rule: WindowRule,
        idle_timeout_s: float,
        codec: Codec,
        ledger: Ledger,
        shadows: ShadowStore,
        inbox: Inbox,
        scores: BatchScorer,
        reclaim: Callable[[ReclaimRequest], None],
        publish: Callable[[dict[Partition, int]], None],
        committed: Callable[[], None],
        features: tuple[str, ...],
        stop: threading.Event,
        drain_timeout_s: float,
    ) -> None:
        self._stream = stream
        self._stream_id = stream_id
        self._rule = rule
        self._idle_timeout_s = idle_timeout_s
        self._codec = codec
        self._ledger = ledger
        self._shadows = shadows
        self._inbox = inbox
        self._scores = scores
        self._reclaim = reclaim
        self._publish = publish
        self._committed = committed
        self._features = features
        self._drain_timeout_s = drain_timeout_s
        self._patience = StorageRetry(stop, drain_timeout_s)
        self._lanes: dict[Partition, PartitionBuffer] = {}
        self._control = StreamControl(sealed_until_us=None, revision=-1, last_tick_us=None)
        self._schedule = ThresholdSchedule.from_rows([])
        self._control_seen_s = float("-inf")
        self._finishing_s: float | None = None
        self._refusals = AllRejectedWarning()
        self.events_committed = 0
        self.last_commit_s = time.monotonic()

    @property
    def ended(self) -> bool:
        """Return whether every source said its end and the end is stored."""
        lanes = list(self._lanes.values())
        return bool(lanes) and all(lane.end_stored for lane in lanes)

    def stuck_s(self) -> float:
        """Return how long records have been waiting without a commit; 0 while nothing waits."""
        since_s = min((lane.records_since_s for lane in list(self._lanes.values()) if lane.pending), default=None)
        # After a quiet night the last commit says nothing of the first record.
        return 0.0 if since_s is None else time.monotonic() - max(since_s, self.last_commit_s)

    def run(self) -> None:
        """Work until `Finish` has come and what was decoded is committed."""
        while True:
            message = self._inbox.get(self._wait_s())
            while message is not None:
                self._process_message(message)
                message = self._inbox.get(0.0) if self._next_due_buffer(time.monotonic()) is None else None
            self._commit_due()
            if self._finishing_s is not None and self._is_drained():
                return

    def _is_drained(self) -> bool:
        waiting = any(lane.pending and lane.held_under is None and not lane.undecided for lane in self._lanes.values())
        return not waiting or time.monotonic() - (self._finishing_s or 0.0) > self._drain_timeout_s

    def _wait_s(self) -> float:
        """Return how long to wait for a message: until the next commit or look at the stream is due."""
        now_s = time.monotonic()
        due = [_IDLE_WAIT_S]
        for lane in self._lanes.values():
            if lane.held_under is not None:
                due.append(self._control_seen_s + _HELD_CHECK_INTERVAL_S - now_s)
            elif lane.pending and not lane.undecided:
                due.append(lane.pending_since_s + COMMIT_INTERVAL_S - now_s)
        return max(0.0, min(due)) if self._finishing_s is None else 0.0

    def _process_message(self, message: InboxMessage) -> None:
        match message:
            case RecordsFetched():
                self._decode(message)
            case PartitionClaimed():
                self._open_buffer(message)
            case PartitionRevoked():
                self._discard_buffer(message.partition)
            case PartitionCaughtUp():
                if message.partition in self._lanes:
                    self._renew_idle_lease(self._lanes[message.partition], message)
            case PartitionEnded():
                lane = self._lanes.get(message.partition)
                if lane is not None and lane.claim.epoch == message.epoch:
                    lane.ended = True
                    lane.undecided = False
            case ControlChanged():
                self._control_seen_s = float("-inf")
            case StopRequested():
                self._finishing_s = time.monotonic()

    def _open_buffer(self, message: PartitionClaimed) -> None:
        self._discard_buffer(message.partition)
        claim = message.claim
        self._lanes[message.partition] = PartitionBuffer(
            partition=message.partition,
            claim=claim,
            next_offset=claim.next_offset,
            cursor=claim.cursor,
            watermark_us=claim.watermark_us,
            last_event_s=time.monotonic(),
        )

    def _discard_buffer(self, partition: Partition) -> None:
        lane = self._lanes.pop(partition, None)
        if lane is not None:
            self._inbox.release(partition, lane.record_count)

    def _give_up_claim(self, lane: PartitionBuffer) -> None:
        log.info("%s was taken over; dropping what is pending.", lane.partition, extra={"action": "fence"})
        self._discard_buffer(lane.partition)
        self._reclaim(ReclaimRequest(partition=lane.partition, epoch=lane.claim.epoch))

    def _decode(self, message: RecordsFetched) -> None:
        batch = message.batch
        lane = self._lanes.get(batch.partition)
        if lane is None or lane.claim.epoch != message.epoch:
            self._inbox.release(batch.partition, len(batch))
            return
        decoded = self._codec.decode(batch, time.time_ns() // 1_000)
        lane.add(decoded, time.monotonic())
        self._refusals.count(self._stream, decoded)

    def _next_due_buffer(self, now_s: float) -> PartitionBuffer | None:
        """Return a lane whose commit is due, the one that waits longest first; None when none is due."""
        due = [lane for lane in self._lanes.values() if self._is_due(lane, now_s)]
        return min(due, key=lambda lane: lane.pending_since_s, default=None)

    def _is_due(self, lane: PartitionBuffer, now_s: float) -> bool:
        return lane.is_due(self._control, now_s, finishing=self._finishing_s is not None)

    def _commit_due(self) -> None:
        self._refresh_control()
        for lane in list(self._lanes.values()):
            while self._lanes.get(lane.partition) is lane and self._is_due(lane, time.monotonic()):
                self._commit_next(lane)

    def _refresh_control(self) -> None:
        """Read how far the stream is sealed while something waits for it."""
        waits = self._control.revision < 0 or any(lane.held_under is not None for lane in self._lanes.values())
        now_s = time.monotonic()
        if waits and now_s - self._control_seen_s >= _HELD_CHECK_INTERVAL_S:
            self._apply_control(self._patience.retry_until_answered(lambda: self._ledger.read_control(self._stream_id)))
            self._control_seen_s = now_s

    def _apply_control(self, control: StreamControl) -> None:
        """Take over the stream's state; what was scheduled since is read after it, so it can only be newer."""
        seen = self._control
        if (control.revision, control.last_tick_us) != (seen.revision, seen.last_tick_us):
            newest_id = self._schedule.newest_id
            rows = self._patience.retry_until_answered(
                lambda: self._ledger.read_threshold_schedule(self._stream_id, after_id=newest_id)
            )
            self._schedule = self._schedule.extend(rows)
        if control.revision != seen.revision:
            shadows = self._patience.retry_until_answered(lambda: self._shadows.read_scheduled(self._stream_id))
            self._schedule = replace(self._schedule, shadows=tuple(shadows))
        self._control = control

    def _commit_next(self, lane: PartitionBuffer) -> None:
        """Commit the next piece of a lane."""
        if not lane.pending:
            self._store_end(lane)
            return
        piece = lane.take_batch()
        if is_unreadable_range(piece):
            self._commit_unreadable_range(lane, piece)
            return
        while True:  # until the ledger takes it: each round folds under what the stream is by then
            under = self._control
            folded = self._fold_batch(lane, piece)
            if _makes_no_progress(lane, folded):
                self._repeat_watermark(lane)
                self._put_back(lane, piece, folded, under)
                return
            commit = build_commit(self._stream_id, lane.claim, piece, folded, self._control, self._features)
            outcome = self._send_commit(lane, commit)
            if isinstance(outcome, Stale):
                continue
            if isinstance(outcome, Committed):
                self._after_commit(lane, commit, len(folded.scored.events) + len(folded.dead))
                if folded.remaining is not None:
                    self._put_back(lane, folded.remaining, folded, under)
            return

    def _fold_batch(self, lane: PartitionBuffer, piece: DecodedBatch) -> FoldedBatch:
        """Fold a piece; nothing more is waited for behind its end when the source has ended or could not be read on.

        An event that has to wait for those after it does not wait for ever: behind it, 10,000 records that are no
        events are as good as an end. Else what must wait would fill the bound on memory, and nothing more would come.
        """
        final = is_unreadable_range(lane.pending[0]) if lane.pending else lane.ended
        folded = self._fold_once(lane, piece, final=final)
        crowded = len(piece.events) + len(piece.dead_letters) >= COMMIT_EVENTS
        if crowded and not folded.held_by_lead and _makes_no_progress(lane, folded):
            return self._fold_once(lane, piece, final=True)
        return folded

    def _fold_once(self, lane: PartitionBuffer, piece: DecodedBatch, *, final: bool) -> FoldedBatch:
        return fold(
            piece,
            watermark_us=lane.watermark_us,
            final=final,
            control=self._control,
            schedule=self._schedule,
            rule=self._rule,
            scores=self._scores,
        )

    def _put_back(self, lane: PartitionBuffer, rest: DecodedBatch, folded: FoldedBatch, under: StreamControl) -> None:
        """Put back what lead holds, or what more input has to settle (times of a file that may be stray).

        What lead holds waits for another state of the stream than the one it was folded `under`: the commit may have
        brought it already.
        """
        lane.undecided = not folded.held_by_lead and not lane.pending
        lane.pending.appendleft(rest)
        lane.held_under = under if folded.held_by_lead else None
        lane.pending_since_s = time.monotonic()

    def _repeat_watermark(self, lane: PartitionBuffer) -> None:
        """Say the watermark of what lead holds back again, now and then; where the position is not ours, claim anew."""
        now_s = time.monotonic()
        if lane.held_under is None or now_s - lane.last_announced_s < WATERMARK_REPEAT_S:
            return
        lane.last_announced_s = now_s
        self._send_commit(lane, self._build_position_commit(lane, None))

    def _store_end(self, lane: PartitionBuffer) -> None:
        """Say that nothing will ever follow, once everything of the source is committed."""
        commit = self._build_position_commit(lane, None, ended=True)
        if isinstance(self._send_commit(lane, commit), Committed):
            lane.end_stored = True
            self._committed()

    def _commit_unreadable_range(self, lane: PartitionBuffer, piece: DecodedBatch) -> None:
        """Commit a range that could not be read: as a gap, or as the dead letter that it became."""
        while isinstance(outcome := self._send_commit(lane, commit := self._build_position_commit(lane, piece)), Stale):
            pass
        if isinstance(outcome, Committed):
            self._after_commit(lane, commit, len(piece.dead_letters))

    def _build_position_commit(
        self, lane: PartitionBuffer, piece: DecodedBatch | None, *, ended: bool = False
    ) -> Commit:
        return build_position_commit(
            self._stream_id,
            lane.claim,
            piece,
            Position(next_offset=lane.next_offset, cursor=lane.cursor),
            lane.watermark_us,
            self._control,
            ended=ended,
        )

    def _after_commit(self, lane: PartitionBuffer, commit: Commit, records: int) -> None:
        lane.next_offset = commit.end
        lane.cursor = commit.end_cursor
        lane.watermark_us = commit.watermark_us
        lane.held_under = None
        lane.end_stored = False
        lane.last_announced_s = lane.pending_since_s = self.last_commit_s = time.monotonic()
        self.events_committed += len(commit.scores)
        lane.record_count -= records
        self._inbox.release(lane.partition, records)
        self._publish({each.partition: each.next_offset for each in self._lanes.values()})
        self._committed()

    def _send_commit(self, lane: PartitionBuffer, commit: Commit) -> Committed | Fenced | Stale:
        """Commit; a fenced or unknown outcome drops the lane and asks for a fresh claim."""
        try:
            outcome = self._patience.retry_until_answered(lambda: self._ledger.commit(commit))
        except CommitUnknown as unknown:
            log.warning(
                "%s; reading %s again from the stored position.",
                unknown,
                lane.partition,
                extra={"action": "commit"},
            )
            outcome = Fenced()
        match outcome:
            case Committed() | Stale():
                self._apply_control(outcome.control)
            case Fenced():
                self._give_up_claim(lane)
        return outcome

    def _renew_idle_lease(self, lane: PartitionBuffer, seen: PartitionCaughtUp) -> None:
        """Renew the idle lease of a source that is at its log's end and has been silent for `idle_timeout`.

        `seen` has come through the inbox after everything that was polled before it, so that with nothing pending
        all of that is committed; the ledger checks the position again.
        """
        silent = time.monotonic() - lane.last_event_s >= self._idle_timeout_s
        unknown = self._control.revision < 0
        if unknown or lane.ended or not silent or any(len(piece.events) for piece in lane.pending):
            return
        while lane.pending and self._lanes.get(lane.partition) is lane:
            self._commit_next(lane)
        claim = lane.claim
        if self._patience.retry_until_answered(
            lambda: self._ledger.mark_idle(claim.source_id, claim.epoch, lane.next_offset, seen.until_us)
        ):
            self._committed()
        else:
            self._give_up_claim(lane)
