"""The worker of a stream: one thread that decodes, folds and commits, in order of offsets per source and epoch.

The path of a batch: `Inbox.get` -> `Codec.decode` -> `next_step` (join, cut, score, flag, build parts) ->
`Ledger.commit`. The state of the worker can be discarded at any time: records are read again from the stored position.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol, assert_never

from config.stream_rules import StreamRules
from consumers.batch import Partition
from consumers.codec import Codec
from monitor.pipeline.commit import build_step_commit
from monitor.pipeline.control_reader import ControlReader, WorkerSettings
from monitor.pipeline.fold import BatchScorer
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
from monitor.pipeline.partition_buffer import COMMIT_INTERVAL_S, BufferAdvance, BufferState, PartitionBuffer
from monitor.pipeline.rejection_warning import AllRejectedWarning
from monitor.pipeline.retry import StorageRetry
from monitor.pipeline.step import (
    CommitBatch,
    CommitEnd,
    CommitStep,
    CommitUnreadableRange,
    NothingDue,
    ReadThresholds,
    RepeatWatermark,
    WaitForInput,
    WaitForLead,
    next_step,
)
from storage.control.shadows import ShadowStore
from storage.database.errors import CommitUnknown
from storage.ledger.commit import Committed, Fenced, Stale
from storage.ledger.idle import IdleSource
from storage.ledger.ledger import Ledger

log = logging.getLogger(__name__)

_IDLE_WAIT_S = 3.0
"""Maximum wait for a message."""


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
        clock: Callable[[], float] = time.monotonic,
        read_settings: Callable[[], WorkerSettings] | None = None,
    ) -> None:
        self._clock = clock
        self._stream_id = stream_id
        self._codec = codec
        self._features = features
        self._scorer = scorer
        self._ledger = ledger
        self._stream = rules.stream
        settings = WorkerSettings(rules=rules, codec=codec)
        self._control = ControlReader(stream_id, ledger, shadows, retry, settings, read_settings)
        self._inbox = inbox
        self._intake = intake
        self._notify_committed = notify_committed
        self._retry = retry
        self._buffers: dict[Partition, PartitionBuffer] = {}
        self._stop_requested_s: float | None = None
        self._rejection_warning = AllRejectedWarning()
        self.events_committed = 0
        self.last_commit_s = self._clock()

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
        return 0.0 if since_s is None else self._clock() - max(since_s, self.last_commit_s)

    def run(self) -> None:
        """Process messages until `StopRequested` was received and the decoded records are committed."""
        while not self.run_once(self._wait_s()):
            pass

    def run_once(self, wait_s: float) -> bool:
        """Process the messages of the inbox and carry out the due steps; return whether the worker has finished.

        Args:
            wait_s: The longest wait for the first message.
        """
        message = self._inbox.get(wait_s)
        while message is not None:
            self._process_message(message)
            message = None if self._is_commit_due() else self._inbox.get(0.0)
        self._commit_due()
        return self._is_finishing and self._is_drained()

    @property
    def _is_finishing(self) -> bool:
        return self._stop_requested_s is not None

    def _is_drained(self) -> bool:
        waiting = any(buffer.state is BufferState.PENDING for buffer in self._buffers.values())
        return not waiting or self._clock() - (self._stop_requested_s or 0.0) > self._retry.drain_timeout_s

    def _wait_s(self) -> float:
        """Return the longest wait for a message: until the next commit or read of the control state is due."""
        now_s = self._clock()
        due = [_IDLE_WAIT_S]
        for buffer in self._buffers.values():
            if buffer.state is BufferState.HELD_BY_LEAD:
                due.append(self._control.next_read_s - now_s)
            elif buffer.state is BufferState.PENDING:
                due.append(buffer.pending_since_s + COMMIT_INTERVAL_S - now_s)
        return 0.0 if self._is_finishing else max(0.0, min(due))

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
                    buffer.end()
            case ControlChanged():
                self._control.invalidate()
            case StopRequested():
                self._stop_requested_s = self._clock()

    def _open_buffer(self, message: PartitionClaimed) -> None:
        self._discard_buffer(message.partition)
        self._buffers[message.partition] = PartitionBuffer.from_claim(message.partition, message.claim, self._clock())

    def _discard_buffer(self, partition: Partition) -> None:
        buffer = self._buffers.pop(partition, None)
        if buffer is not None:
            self._inbox.release(partition, buffer.record_count)

    def _give_up_claim(self, buffer: PartitionBuffer) -> None:
        log.info("Claiming %s again; its pending records are read again.", buffer.partition, extra={"action": "fence"})
        self._discard_buffer(buffer.partition)
        self._intake.request_reclaim(ReclaimRequest(partition=buffer.partition, epoch=buffer.claim.epoch))

    def _replace_codec(self) -> None:
        """Decode with the codec of the present settings; read records again that another codec has decoded."""
        codec = self._control.settings.codec
        if codec is not self._codec:
            self._codec = codec
            for buffer in list(self._buffers.values()):
                self._give_up_claim(buffer)

    def _decode(self, message: RecordsFetched) -> None:
        batch = message.batch
        buffer = self._buffers.get(batch.partition)
        if buffer is None or buffer.claim.epoch != message.epoch:
            self._inbox.release(batch.partition, len(batch))
            return
        decoded = self._codec.decode(batch, time.time_ns() // 1_000)
        buffer.add(decoded, self._clock())
        self._rejection_warning.count(self._stream, decoded)

    def _is_commit_due(self) -> bool:
        now_s = self._clock()
        return any(
            buffer.is_due(self._control.control, now_s, finishing=self._is_finishing)
            for buffer in self._buffers.values()
        )

    def _commit_due(self) -> None:
        held = any(buffer.state is BufferState.HELD_BY_LEAD for buffer in self._buffers.values())
        if held or self._control.never_read:
            self._control.refresh(self._clock())
            self._replace_codec()
        for buffer in list(self._buffers.values()):
            self._run_steps(buffer, finishing=self._is_finishing)

    def _run_steps(self, buffer: PartitionBuffer, *, finishing: bool) -> None:
        """Carry out the steps of a buffer until none is due or its claim is lost.

        After a stale commit the next step is computed under the new control state.
        """
        schedule = self._control.schedule
        while self._buffers.get(buffer.partition) is buffer:
            step = next_step(
                buffer,
                self._control.control,
                schedule,
                self._clock(),
                rules=self._control.settings.rules,
                scorer=self._scorer,
                finishing=finishing,
            )
            if isinstance(step, NothingDue):
                return
            if isinstance(step, ReadThresholds):
                schedule = self._control.read_schedule_for(step.window_starts_us)
            else:
                self._carry_out(buffer, step)
                schedule = self._control.schedule

    def _carry_out(self, buffer: PartitionBuffer, step: CommitStep | WaitForLead | WaitForInput) -> None:
        match step:
            case WaitForLead() | WaitForInput():
                buffer.apply_hold(step.hold, self._clock())
            case RepeatWatermark():
                buffer.apply_repeated_watermark(self._clock())
                self._send_commit(buffer, step)
            case CommitEnd():
                if self._send_commit(buffer, step):
                    buffer.apply_stored_end()
                    self._notify_committed()
            case CommitBatch() | CommitUnreadableRange():
                if self._send_commit(buffer, step):
                    self._advance(buffer, step.advance)
            case other:
                assert_never(other)

    def _advance(self, buffer: PartitionBuffer, advance: BufferAdvance) -> None:
        """Apply a stored commit to its buffer, release its records and publish the position."""
        self.last_commit_s = self._clock()
        buffer.apply_commit(advance, self.last_commit_s)
        self.events_committed += advance.n_events
        self._inbox.release(buffer.partition, advance.n_records)
        self._intake.set_positions({each.partition: each.position.next_offset for each in self._buffers.values()})
        self._notify_committed()

    def _send_commit(self, buffer: PartitionBuffer, step: CommitStep) -> bool:
        """Commit a step and return whether it is stored.

        After a fenced or unknown outcome the buffer is discarded and a new claim requested.
        """
        commit = build_step_commit(step, buffer, stream_id=self._stream_id, features=self._features)
        try:
            outcome = self._retry.retry_until_answered(lambda: self._ledger.commit(commit))
        except CommitUnknown as unknown:
            log.warning(
                "%s; reading %s again from the stored position.", unknown, buffer.partition, extra={"action": "commit"}
            )
            outcome = Fenced()
        match outcome:
            case Committed() | Stale():
                self._control.apply(outcome.control)
                self._replace_codec()
            case Fenced():
                self._give_up_claim(buffer)
        return isinstance(outcome, Committed)

    def _renew_idle_lease(self, buffer: PartitionBuffer, message: PartitionCaughtUp) -> None:
        """Renew the idle lease of a source that is at the end of its log and has had no event for `idle_timeout`.

        `message` follows all records that were polled before it through the inbox. So without pending records all of
        them are committed; the ledger checks the position again.
        """
        silent = self._clock() - buffer.last_event_s >= self._control.settings.rules.idle_timeout_us / 1e6
        has_events = any(len(batch.events) for batch in buffer.pending)
        if self._control.never_read or buffer.ended or not silent or has_events:
            return
        self._run_steps(buffer, finishing=True)
        if self._buffers.get(buffer.partition) is not buffer:
            return
        source = IdleSource(
            source_id=buffer.claim.source_id, epoch=buffer.claim.epoch, next_offset=buffer.position.next_offset
        )
        if self._retry.retry_until_answered(lambda: self._ledger.mark_idle([source], message.seen_us)):
            self._notify_committed()
        else:
            self._give_up_claim(buffer)
