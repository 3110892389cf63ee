"""The polling thread of a stream: it owns the source, claims positions, and fills the inbox.

Claims are made here and nowhere else: one thread decides which partitions are ours, and every batch carries the epoch
under which it was fetched, so that what an older claim left behind in the queue is recognised and dropped.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from config.errors import BrokerUnavailable, StorageUnavailable
from consumers.batch import Partition, Position
from consumers.source import PartitionInfo, PollResult, Source
from monitor.pipeline.inbox import (
    Inbox,
    PartitionCaughtUp,
    PartitionClaimed,
    PartitionEnded,
    PartitionRevoked,
    RecordsFetched,
    StopRequested,
)
from monitor.pipeline.sources import build_new_source
from storage.ledger.ledger import Ledger
from storage.ledger.sources import NewSource, SourceClaim, SourceState

log = logging.getLogger(__name__)

_POLL_S = 0.25
_END_CHECK_INTERVAL_S = 1.0
_PUBLISH_INTERVAL_S = 5.0
_BACKOFF_S = 1.0
_RECLAIM_DELAY_S = 1.0
_IDLE_LEASE_US = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReclaimRequest:
    """The worker lost this claim (fenced, or a commit of unknown outcome): claim again if it is still ours."""

    partition: Partition
    epoch: int


class _PartitionGoneError(Exception):
    """The topic is there, and does not have the partition."""


class Intake:
    """Polls one source until it is told to stop; all calls to the source are made in `run`."""

    def __init__(
        self,
        *,
        stream_id: int,
        owner: str,
        open_source: Callable[[], Source],
        ledger: Ledger,
        now_us: Callable[[], int],
        inbox: Inbox,
        stop: threading.Event,
        drained: threading.Event,
        drain_timeout_s: float,
        assigned: frozenset[Partition] = frozenset(),
    ) -> None:
        self._stream_id = stream_id
        self._owner = owner
        self._open_source = open_source
        self._ledger = ledger
        self._now_us = now_us
        self._inbox = inbox
        self._stop = stop
        self._drained = drained
        self._drain_timeout_s = drain_timeout_s
        self._requests: queue.SimpleQueue[ReclaimRequest] = queue.SimpleQueue()
        self._claims: dict[Partition, SourceClaim] = {}
        self._unclaimed = set(assigned)
        self._lost: dict[Partition, float] = {}
        self._replaced: set[Partition] = set()
        self._positions: Mapping[Partition, int] = {}
        self.last_poll_s = time.monotonic()

    def request_reclaim(self, request: ReclaimRequest) -> None:
        """Ask for a fresh claim; called by the worker's thread."""
        self._requests.put(request)

    def set_positions(self, positions: Mapping[Partition, int]) -> None:
        """Leave the committed positions for lag tools; called by the worker's thread."""
        self._positions = positions

    def run(self) -> None:
        """Poll until told to stop; then let the worker finish and close the source."""
        source: Source | None = None
        try:
            source = self._open_source()
            next_check_s = next_publish_s = time.monotonic()
            while not self._stop.is_set():
                self._claim_partitions(source)
                source.set_paused(self._inbox.over_limit(frozenset(self._claims)))
                self._process_poll(self._poll(source))
                now_s = self.last_poll_s = time.monotonic()
                self._process_reclaims(now_s)
                if now_s >= next_check_s:
                    self._report_caught_up(source)
                    next_check_s = now_s + _END_CHECK_INTERVAL_S
                if now_s >= next_publish_s and self._positions:
                    source.publish(self._positions)
                    next_publish_s = now_s + _PUBLISH_INTERVAL_S
        finally:
            self._inbox.put(StopRequested())
            self._drained.wait(self._drain_timeout_s)
            if source is not None:
                source.close()

    def _poll(self, source: Source) -> PollResult:
        try:
            return source.poll(_POLL_S)
        except BrokerUnavailable as away:
            log.warning("%s; trying again.", away, extra={"action": "poll"})
            self._stop.wait(_BACKOFF_S)
            return PollResult()

    def _process_poll(self, polled: PollResult) -> None:
        for partition in polled.revoked:
            self._discard_claim(partition)
            self._inbox.put(PartitionRevoked(partition=partition))
        for partition in polled.replaced:
            self._discard_claim(partition)
            self._inbox.put(PartitionRevoked(partition=partition))
        self._replaced |= polled.replaced
        self._unclaimed |= polled.assigned
        for batch in polled.batches:
            claim = self._claims.get(batch.partition)
            if claim is not None:
                self._inbox.put(RecordsFetched(epoch=claim.epoch, batch=batch))
        for partition in polled.ended:
            if partition in self._claims:
                self._inbox.put(PartitionEnded(partition=partition, epoch=self._claims[partition].epoch))

    def _discard_claim(self, partition: Partition) -> None:
        self._claims.pop(partition, None)
        self._unclaimed.discard(partition)
        self._replaced.discard(partition)
        self._lost.pop(partition, None)

    def _process_reclaims(self, now_s: float) -> None:
        """Give up claims that were lost, and claim again what is still assigned a while later.

        Not at once: a process that was frozen learns only from the polls after it whether it still owns the
        partition, and must not take it from whoever does.
        """
        while not self._requests.empty():
            request = self._requests.get()
            claim = self._claims.get(request.partition)
            if claim is not None and claim.epoch == request.epoch:
                del self._claims[request.partition]
                self._lost[request.partition] = now_s
        for partition in [p for p, at_s in self._lost.items() if now_s - at_s >= _RECLAIM_DELAY_S]:
            del self._lost[partition]
            self._unclaimed.add(partition)

    def _claim_partitions(self, source: Source) -> None:
        """Claim what was assigned, and begin anew what was replaced; what cannot be stored now is tried again."""
        for partition in sorted(self._replaced | self._unclaimed):
            try:
                if partition in self._replaced:
                    self._start_incarnation(source, partition)
                claim = self._ledger.claim_source(self._find_or_register_source(source, partition), self._owner)
            except _PartitionGoneError:
                with contextlib.suppress(StorageUnavailable):  # then the next round tries again
                    self._retire_partition(partition)
                continue
            except (StorageUnavailable, BrokerUnavailable) as away:
                log.warning("Cannot claim %s: %s; trying again.", partition, away, extra={"action": "claim"})
                self._stop.wait(_BACKOFF_S)
                return
            self._replaced.discard(partition)
            self._unclaimed.discard(partition)
            if claim is None:  # another incarnation has begun meanwhile: look again
                self._lost[partition] = time.monotonic()
                continue
            try:
                source.seek(partition, Position(next_offset=claim.next_offset, cursor=claim.cursor))
            except KeyError:
                continue
            self._claims[partition] = claim
            self._inbox.put(PartitionClaimed(partition=partition, claim=claim))

    def _retire_partition(self, partition: Partition) -> None:
        """Wait no longer for a partition that its topic does not have any more: it was made again with fewer."""
        known = _find_source_state(partition, self._ledger.active_sources(self._stream_id))
        self._ledger.retire_sources(self._stream_id, [] if known is None else [known])
        self._discard_claim(partition)
        log.warning("%s is gone: its topic has fewer partitions now.", partition, extra={"action": "retire"})

    def _find_or_register_source(self, source: Source, partition: Partition) -> int:
        """Return the stored source of a partition.

        One that was added since the start begins at its beginning, one that was retired where it stood.
        """
        known = _find_source_state(partition, self._ledger.active_sources(self._stream_id))
        if known is not None:
            return known.source_id
        found = _discover_partition(source, partition)
        joined = _find_source_state(
            partition, self._ledger.register_sources(self._stream_id, [_source_at_beginning(found)])
        )
        assert joined is not None, "what was registered is among the active sources"
        log.info("The partition %s joins, at offset %d.", partition, joined.next_offset, extra={"action": "claim"})
        return joined.source_id

    def _start_incarnation(self, source: Source, partition: Partition) -> None:
        """Begin a new incarnation: the log under this name is another one, or ends before the stored position."""
        found = _discover_partition(source, partition)
        log.warning(
            "%s is another log than the stored position belongs to; a new incarnation starts at offset %d.",
            partition,
            found.begin,
            extra={"action": "incarnation"},
        )
        self._ledger.restart_sources(self._stream_id, [_source_at_beginning(found)])

    def _report_caught_up(self, source: Source) -> None:
        """Ask the broker which partitions are at their end; only there may they be idle.

        All are asked, not only the silent ones: a partition that brings nothing but dead letters is never silent,
        and has to be able to be idle all the same.
        """
        if not self._claims:
            return
        try:
            # The lease is timed from before the question: a process that is frozen after it gives no stale answer.
            until_us = self._now_us() + _IDLE_LEASE_US
            caught_up = source.caught_up(frozenset(self._claims))
        except (BrokerUnavailable, StorageUnavailable):
            return
        for partition in caught_up:
            self._inbox.put(PartitionCaughtUp(partition=partition, until_us=until_us))


def _find_source_state(partition: Partition, sources: Sequence[SourceState]) -> SourceState | None:
    """Return the source of a partition among the active ones of its stream."""
    wanted = (partition.topic, partition.partition)
    return next((each for each in sources if (each.topic, each.partition) == wanted), None)


def _discover_partition(source: Source, partition: Partition) -> PartitionInfo:
    """Return a partition as it is now; while its topic is not there (being made again) it is as if away."""
    there = [found for found in source.discover() if found.partition.topic == partition.topic]
    for found in there:
        if found.partition == partition:
            return found
    if there:
        raise _PartitionGoneError
    raise BrokerUnavailable(f"{partition} is not there now: waiting for it")


def _source_at_beginning(found: PartitionInfo) -> NewSource:
    return build_new_source(found, Position(next_offset=found.begin, cursor=None))
