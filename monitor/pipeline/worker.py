"""The worker of a stream: one thread that decodes, folds and commits, in order of offsets per source and epoch.

The path of a batch: `Inbox.get` -> `Codec.decode` -> `next_step` (join, cut, score, flag, build parts) ->
`Ledger.commit_group`, with the commits of all partitions that are due. The state of the worker can be discarded at any
time: records are read again from the stored position.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, assert_never

from config.stream_rules import StreamRules
from consumers.batch import Partition
from consumers.codec import Codec
from consumers.window_schedule import make_window_schedule
from monitor.metrics.counters import StreamCounters
from monitor.metrics.delivery import DeliveryTimes
from monitor.pipeline.commit import build_step_commit
from monitor.pipeline.control_need import ControlNeed, KnownProgress, advance_progress, find_need
from monitor.pipeline.control_reader import ControlReader, WorkerSettings
from monitor.pipeline.fold import BatchScorer
from monitor.pipeline.group_commit import CommitPace, select_due, store_group
from monitor.pipeline.inbox import (
    ControlChanged,
    Inbox,
    InboxMessage,
    PartitionClaimed,
    PartitionEnded,
    PartitionRevoked,
    PartitionsCaughtUp,
    RecordsFetched,
    StopRequested,
)
from monitor.pipeline.intake import RECLAIM_DELAY_S, ReclaimRequest
from monitor.pipeline.key_states import KeyedSource
from monitor.pipeline.partition_buffer import BufferState, PartitionBuffer
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
from monitor.pipeline.waiting import WaitingPartition, find_waiting
from monitor.statistics.key_states import FieldHistory
from storage.control.shadows import ShadowStore
from storage.ledger.commit import Commit, Committed, Fenced, Refused, Stale
from storage.ledger.idle import IdleSource
from storage.ledger.ledger import GROUP_ROWS, Ledger

log = logging.getLogger(__name__)

_IDLE_WAIT_S = 3.0
"""Maximum wait for a message."""

_MAX_REFUSAL_DELAY_S = 60.0
"""Maximum delay before a partition whose rows the database refuses is claimed again."""


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
        ask_control: Callable[[ControlNeed], None],
        retry: StorageRetry,
        clock: Callable[[], float] = time.monotonic,
        read_settings: Callable[[], WorkerSettings] | None = None,
        read_derives: Callable[[], bool] = lambda: False,
        n_streams: int = 1,
        counters: StreamCounters | None = None,
    ) -> None:
        self._clock = clock
        self._stream_id = stream_id
        self._codec = codec
        self._features = features
        self._scorer = scorer
        self._ledger = ledger
        self._stream = rules.stream
        settings = WorkerSettings(rules=rules, codec=codec)
        self._control = ControlReader(
            stream_id, ledger, shadows, retry, settings, read_settings=read_settings, read_derives=read_derives
        )
        self._inbox = inbox
        self._intake = intake
        self._ask_control = ask_control
        self._progress = self._asked_at = KnownProgress()
        self._retry = retry
        self._buffers: dict[Partition, PartitionBuffer] = {}
        self._refusals: dict[Partition, int] = {}
        self._pace = CommitPace()
        self._n_streams = n_streams
        self._counters = counters or StreamCounters()
        self._delivery = DeliveryTimes(self._counters.delivery)
        self._stop_requested_s: float | None = None
        self._rejection_warning = AllRejectedWarning()
        self.events_committed = 0
        self.last_commit_s = self.last_round_s = self._clock()

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

    def find_waiting(self) -> tuple[WaitingPartition, ...]:
        """Return the partitions that have records and have not moved for some time; for any thread."""
        return find_waiting(list(self._buffers.values()), self._clock())

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
            message = None if self._is_group_full() else self._inbox.get(0.0)
        self._commit_due()
        self.last_round_s = self._clock()
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
                due.append(self._pace.next_start_s - now_s)
        return 0.0 if self._is_finishing else max(0.0, min(due))

    def _process_message(self, message: InboxMessage) -> None:
        match message:
            case RecordsFetched():
                self._decode(message)
            case PartitionClaimed():
                self._open_buffer(message)
            case PartitionRevoked():
                self._discard_buffer(message.partition)
                self._refusals.pop(message.partition, None)
            case PartitionsCaughtUp():
                self._reach_log_end(message)
            case PartitionEnded():
                buffer = self._buffers.get(message.partition)
                if buffer is not None and buffer.claim.epoch == message.epoch:
                    buffer.end(message.seen_us)
            case ControlChanged():
                self._control.invalidate()
            case StopRequested():
                self._stop_requested_s = self._clock()

    def _open_buffer(self, message: PartitionClaimed) -> None:
        self._discard_buffer(message.partition)
        self._buffers[message.partition] = PartitionBuffer.from_claim(message.partition, message.claim, self._clock())

    def _read_key_states(self, buffer: PartitionBuffer) -> None:
        """Read the stored states of the keys of a source, once a model derives features from them."""
        if buffer.keyed is not None or not self._control.derives:
            return
        source_id, position = buffer.claim.source_id, buffer.position.next_offset
        rows = self._retry.retry_until_answered(lambda: self._ledger.read_key_states(source_id, position))
        buffer.set_keyed(KeyedSource.from_rows(rows, FieldHistory(n_fields=len(self._features))))

    def _discard_buffer(self, partition: Partition) -> None:
        buffer = self._buffers.pop(partition, None)
        self._delivery.forget_partition(partition)
        if buffer is not None:
            self._inbox.release(partition, buffer.record_count)

    def _give_up_claim(self, buffer: PartitionBuffer, delay_s: float = RECLAIM_DELAY_S) -> None:
        """Discard a buffer, and request a new claim of its partition after a delay."""
        log.info("Claiming %s again; its pending records are read again.", buffer.partition, extra={"action": "fence"})
        self._discard_buffer(buffer.partition)
        self._intake.request_reclaim(
            ReclaimRequest(partition=buffer.partition, epoch=buffer.claim.epoch, delay_s=delay_s)
        )

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
        started_s = self._clock()
        decoded = self._codec.decode(batch, time.time_ns() // 1_000)
        decoded_s = self._clock()
        self._counters.stages["decode"].add(decoded_s - started_s)
        buffer.add(decoded, decoded_s)
        self._delivery.note_records(batch.partition, batch.offsets, batch.timestamps_us)
        self._rejection_warning.count(self._stream, decoded)

    def _is_group_full(self) -> bool:
        """Return whether the next group is due and further messages would not be part of it."""
        now_s = self._clock()
        buffers = self._buffers.values()
        if any(buffer.is_urgent(self._control.control, now_s) for buffer in buffers):
            return True
        return self._pace.is_open(now_s) and sum(buffer.record_count for buffer in buffers) >= GROUP_ROWS

    def _commit_due(self) -> None:
        """Carry out the due steps of all buffers."""
        now_s = self._clock()
        held = any(buffer.state is BufferState.HELD_BY_LEAD for buffer in self._buffers.values())
        if held or self._control.never_read:
            self._control.refresh(now_s)
            self._replace_codec()
        is_open = self._is_finishing or self._pace.is_open(now_s)
        due = select_due(self._buffers.values(), self._control.control, now_s, is_open=is_open)
        duration_s = self._run_steps(due)
        if is_open and due:
            # A full buffer between two groups does not delay the next one, which takes the records of all partitions.
            self._pace = CommitPace.after(now_s, duration_s, self._n_streams)

    def _run_steps(self, buffers: Iterable[PartitionBuffer]) -> float:
        """Carry out the steps of buffers in groups of commits; return the duration of the groups in seconds.

        Each buffer takes one step. It takes further ones while it is full, and after a stale commit, whose step is
        computed again under the new control state.
        """
        duration_s = 0.0
        waiting = deque(buffers)
        while waiting:
            group = self._take_group(waiting)
            started_s = self._clock()
            stale = self._send_group(group) if group else []
            now_s = self._clock()
            duration_s += now_s - started_s
            stored = [buffer for buffer, _ in group if buffer not in stale]
            control = self._control.control
            waiting += filter(self._is_current, stale)
            waiting += select_due(filter(self._is_current, stored), control, now_s, is_open=self._is_finishing)
        return duration_s

    def _is_current(self, buffer: PartitionBuffer) -> bool:
        return self._buffers.get(buffer.partition) is buffer

    def _take_group(self, waiting: deque[PartitionBuffer]) -> list[tuple[PartitionBuffer, CommitStep]]:
        """Remove the first buffers, with at most `GROUP_ROWS` events; return those with a commit, and its step."""
        group: list[tuple[PartitionBuffer, CommitStep]] = []
        rows = 0
        while waiting and (not rows or rows + waiting[0].count_next_events() <= GROUP_ROWS):
            buffer = waiting.popleft()
            if not self._is_current(buffer):  # its claim was given up since it became due
                continue
            rows += buffer.count_next_events()
            started_s = self._clock()
            step = self._next_commit_step(buffer)
            self._counters.stages["score"].add(self._clock() - started_s)
            if step is not None:
                group.append((buffer, step))
        return group

    def _next_commit_step(self, buffer: PartitionBuffer) -> CommitStep | None:
        """Return the next step of a buffer that has to be stored, after those that have not; None if none is due."""
        schedule = self._control.schedule
        self._read_key_states(buffer)
        while True:
            step = next_step(
                buffer,
                self._control.control,
                schedule,
                self._clock(),
                rules=self._control.settings.rules,
                scorer=self._scorer,
            )
            match step:
                case NothingDue():
                    return None
                case ReadThresholds():
                    schedule = self._control.read_schedule_for(step.window_starts_us)
                case WaitForLead() | WaitForInput():
                    buffer.apply_hold(step.hold, self._clock())
                case CommitBatch() | CommitUnreadableRange() | CommitEnd() | RepeatWatermark():
                    return step
                case other:
                    assert_never(other)

    def _send_group(self, group: Sequence[tuple[PartitionBuffer, CommitStep]]) -> list[PartitionBuffer]:
        """Store the commits of steps as a group and apply their outcomes; return the buffers of stale commits."""
        commits = [
            build_step_commit(step, buffer, stream_id=self._stream_id, features=self._features)
            for buffer, step in group
        ]
        stale: list[PartitionBuffer] = []
        stored: list[Commit] = []
        started_s = self._clock()
        outcomes = store_group(self._ledger, self._retry, commits)
        self._counters.stages["commit"].add(self._clock() - started_s)
        for (buffer, step), commit, outcome in zip(group, commits, outcomes, strict=True):
            match outcome:
                case Committed():
                    self._control.apply(outcome.control)
                    self._apply_stored_step(buffer, step)
                    stored.append(commit)
                case Stale():
                    self._control.apply(outcome.control)
                    stale.append(buffer)
                case Fenced():
                    log.info("The claim of %s was lost.", buffer.partition, extra={"action": "fence"})
                    self._give_up_claim(buffer)
                case Refused():
                    self._set_aside(buffer, outcome.error)
                case other:
                    assert_never(other)
        self._replace_codec()
        if stored:
            self._counters.count_commits(stored)
            self._intake.set_positions({each.partition: each.position.next_offset for each in self._buffers.values()})
            self._note_progress(stored)
        return stale

    def _note_progress(self, commits: Iterable[Commit]) -> None:
        """Ask for a step of the control plane if stored commits, or sources that became idle, need one."""
        control, rules = self._control.control, self._control.settings.rules
        windows = make_window_schedule(rules.windows)
        parts = (part for commit in commits for part in commit.parts)
        progress = advance_progress(self._progress, self._buffers.values(), parts, control, windows)
        need = find_need(self._asked_at, progress, control)
        self._progress = progress
        if need is not ControlNeed.NONE:
            self._asked_at = progress
            self._ask_control(need)

    def _apply_stored_step(self, buffer: PartitionBuffer, step: CommitStep) -> None:
        """Apply a stored step to its buffer, and release its records."""
        now_s = self._clock()
        match step:
            case RepeatWatermark():
                buffer.apply_repeated_watermark(now_s)
            case CommitEnd():
                buffer.apply_stored_end()
            case CommitBatch() | CommitUnreadableRange():
                self.last_commit_s = now_s
                buffer.apply_commit(step.advance, now_s)
                self._delivery.observe_commit(buffer.partition, buffer.position.next_offset, time.time_ns() // 1_000)
                self.events_committed += step.advance.n_events
                self._inbox.release(buffer.partition, step.advance.n_records)
                self._refusals.pop(buffer.partition, None)
            case other:
                assert_never(other)

    def _set_aside(self, buffer: PartitionBuffer, error: Exception) -> None:
        """Claim a partition whose rows the database refuses again after a delay, so that the others go on.

        Raises:
            Exception: `error`, if every partition is refused, so that the fault is not one of a single partition.
        """
        refusals = self._refusals[buffer.partition] = self._refusals.get(buffer.partition, 0) + 1
        log.error(
            "The database refuses the rows of %s from offset %d on (%s); trying again in %.0f s.",
            buffer.partition,
            buffer.position.next_offset,
            error,
            delay_s := min(RECLAIM_DELAY_S * 2**refusals, _MAX_REFUSAL_DELAY_S),
            extra={"action": "commit"},
        )
        self._give_up_claim(buffer, delay_s)
        if not self._buffers.keys() - self._refusals.keys():
            raise error

    def _reach_log_end(self, message: PartitionsCaughtUp) -> None:
        """Decide pending times by the clock, and mark sources as idle that have had no event for `idle_timeout`.

        `message` follows all records that were polled before it through the inbox. So without pending records all of
        them are committed; the ledger checks the positions again. A source that waits for the decision on a future time
        may be idle: its position is before that event.
        """
        found = [self._buffers[partition] for partition in message.partitions if partition in self._buffers]
        found = [buffer for buffer in found if not buffer.ended]
        undecided = [buffer for buffer in found if buffer.state is BufferState.UNDECIDED]
        for buffer in found:
            buffer.reach_log_end(message.seen_us)
        if self._control.never_read:
            return
        silent = [buffer for buffer in found if self._is_silent(buffer)]
        self._run_steps([*undecided, *(buffer for buffer in silent if not any(buffer is each for each in undecided))])
        idle = {
            buffer.claim.source_id: buffer
            for buffer in silent
            if self._is_current(buffer) and buffer.state in {BufferState.CLAIMED, BufferState.UNDECIDED}
        }
        sources = [
            IdleSource(source_id=source_id, epoch=buffer.claim.epoch, next_offset=buffer.position.next_offset)
            for source_id, buffer in idle.items()
        ]
        marked = self._retry.retry_until_answered(lambda: self._ledger.mark_idle(sources, message.seen_us))
        for source_id, buffer in idle.items():
            if source_id in marked:
                buffer.apply_idle()
            else:
                self._give_up_claim(buffer)
        self._note_progress(())

    def _is_silent(self, buffer: PartitionBuffer) -> bool:
        return self._clock() - buffer.last_event_s >= self._control.settings.rules.idle_timeout_us / 1e6
