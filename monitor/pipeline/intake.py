"""The polling thread of a stream: it owns the source, claims positions and fills the inbox.

Only this thread claims partitions. Every batch carries the epoch of the claim under which it was fetched, so that the
worker can recognise and discard records of an older claim.
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
from monitor.metrics.counters import StreamCounters
from monitor.pipeline.inbox import (
    Inbox,
    PartitionClaimed,
    PartitionEnded,
    PartitionRevoked,
    PartitionsCaughtUp,
    RecordsFetched,
    StopRequested,
)
from monitor.pipeline.outages import Outages
from monitor.pipeline.sources import build_new_source
from storage.ledger.ledger import Ledger
from storage.ledger.sources import NewSource, SourceClaim, SourceState

log = logging.getLogger(__name__)

_POLL_TIMEOUT_S = 0.25
_END_CHECK_INTERVAL_S = 1.0
_PUBLISH_INTERVAL_S = 5.0
_BACKOFF_S = 1.0
RECLAIM_DELAY_S = 1.0
"""Delay before a lost partition is claimed again: a process that was suspended learns only from its next polls whether
it still owns the partition, and must not fence the new owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReclaimRequest:
    """A claim that the worker lost, by fencing or a commit of unknown outcome.

    The intake claims the partition again after `delay_s`, if it is still assigned to this process.
    """

    partition: Partition
    epoch: int
    delay_s: float = RECLAIM_DELAY_S


class _PartitionGoneError(Exception):
    """The topic exists and does not have the partition."""


class Intake:
    """The polling loop of one source; `run` makes all calls to the source."""

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
        outages: Outages,
        counters: StreamCounters | None = None,
        assigned: frozenset[Partition] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._stream_id = stream_id
        self._owner = owner
        self._open_source = open_source
        self._ledger = ledger
        self._now_us = now_us
        self._inbox = inbox
        self._stop = stop
        self._drained = drained
        self._drain_timeout_s = drain_timeout_s
        self._outages = outages
        self._counters = counters or StreamCounters()
        self._requests: queue.SimpleQueue[ReclaimRequest] = queue.SimpleQueue()
        self._claims: dict[Partition, SourceClaim] = {}
        self._unclaimed = set(assigned)
        self._lost: dict[Partition, float] = {}
        self._replaced: set[Partition] = set()
        self._positions: Mapping[Partition, int] = {}
        self._log_ends: Mapping[Partition, int] = {}
        self.last_round_s = self._next_check_s = self._next_publish_s = clock()

    def request_reclaim(self, request: ReclaimRequest) -> None:
        """Request a new claim; called by the worker thread."""
        self._requests.put(request)

    def set_positions(self, positions: Mapping[Partition, int]) -> None:
        """Set the committed positions to publish for lag tools; called by the worker thread."""
        self._positions = positions

    def lag_events(self) -> int | None:
        """Return the offsets between the stored positions and the ends of the logs of the claimed partitions.

        For any thread. None if the end of a claimed log is not known.
        """
        claims, positions, ends = dict(self._claims), self._positions, self._log_ends
        if not claims or claims.keys() - ends.keys():
            return None
        return sum(
            max(0, ends[each] - max(claim.next_offset, positions.get(each, 0))) for each, claim in claims.items()
        )

    def run(self) -> None:
        """Poll until the stop event is set; then wait for the worker to drain and close the source."""
        source: Source | None = None
        try:
            source = self._open_until_answered()
            while source is not None and not self._stop.is_set():
                self.run_once(source)
        finally:
            self._inbox.put(StopRequested())
            self._drained.wait(self._drain_timeout_s)
            if source is not None:
                source.close()

    def _open_until_answered(self) -> Source | None:
        """Open the source; try again while the database does not answer. None when a stop is requested."""
        while not self._stop.is_set():
            try:
                return self._open_source()
            except (StorageUnavailable, BrokerUnavailable) as error:
                log.warning("%s; trying again.", error, extra={"action": "poll"})
                self._stop.wait(_BACKOFF_S)
        return None

    def run_once(self, source: Source) -> None:
        """Claim partitions, poll once, and report and publish the positions that are due."""
        is_claimed = self._claim_partitions(source)
        source.set_paused(self._inbox.over_limit(frozenset(self._claims)))
        self._process_poll(self._poll(source))
        now_s = self._clock()
        if is_claimed:
            self.last_round_s = now_s
        self._process_reclaims(now_s)
        if now_s >= self._next_check_s:
            self._report_caught_up(source)
            self._next_check_s = now_s + _END_CHECK_INTERVAL_S
        if now_s >= self._next_publish_s and self._positions:
            source.publish(self._positions)
            self._next_publish_s = now_s + _PUBLISH_INTERVAL_S

    def _poll(self, source: Source) -> PollResult:
        try:
            started_s = self._clock()
            polled = source.poll(_POLL_TIMEOUT_S)
            if polled.batches:  # without records the duration is the wait for them
                self._counters.stages["poll"].add(self._clock() - started_s)
            self._outages.update(source.problem)
            return polled
        except BrokerUnavailable as error:
            self._outages.update(error)
            log.warning("%s; trying again.", error, extra={"action": "poll"})
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
                epoch = self._claims[partition].epoch
                self._inbox.put(PartitionEnded(partition=partition, epoch=epoch, seen_us=self._read_clock()))

    def _read_clock(self) -> int | None:
        """Return the time of the database's clock; None while the database is unavailable."""
        try:
            return self._now_us()
        except StorageUnavailable:
            return None

    def _discard_claim(self, partition: Partition) -> None:
        self._claims.pop(partition, None)
        self._unclaimed.discard(partition)
        self._replaced.discard(partition)
        self._lost.pop(partition, None)

    def _process_reclaims(self, now_s: float) -> None:
        """Discard lost claims, and claim partitions that are still assigned again after their delay."""
        while not self._requests.empty():
            request = self._requests.get()
            claim = self._claims.get(request.partition)
            if claim is not None and claim.epoch == request.epoch:
                del self._claims[request.partition]
                self._lost[request.partition] = now_s + request.delay_s
        for partition in [p for p, from_s in self._lost.items() if now_s >= from_s]:
            del self._lost[partition]
            self._unclaimed.add(partition)

    def _claim_partitions(self, source: Source) -> bool:
        """Claim the assigned partitions, all in one transaction; return whether none has to be tried again.

        Re-created partitions start a new incarnation first.
        """
        wanted = sorted(self._replaced | self._unclaimed)
        if not wanted:
            return True
        try:
            ids = self._find_source_ids(source, wanted)
            claims = self._ledger.claim_sources(list(ids.values()), self._owner) if ids else {}
        except (StorageUnavailable, BrokerUnavailable) as error:
            log.warning(
                "Cannot claim %s: %s; trying again.", _list_partitions(wanted), error, extra={"action": "claim"}
            )
            self._stop.wait(_BACKOFF_S)
            return False
        for partition, source_id in ids.items():
            self._start_claim(source, partition, claims.get(source_id))
        return True

    def _start_claim(self, source: Source, partition: Partition, claim: SourceClaim | None) -> None:
        """Read a partition from the position of its claim on; None if its source was replaced meanwhile."""
        self._replaced.discard(partition)
        self._unclaimed.discard(partition)
        if claim is None:  # another incarnation has started in the meantime: look it up again
            self._lost[partition] = self._clock() + RECLAIM_DELAY_S
            return
        with contextlib.suppress(KeyError):  # no longer assigned
            source.seek(partition, Position(next_offset=claim.next_offset, cursor=claim.cursor))
            self._claims[partition] = claim
            self._positions = {each: at for each, at in self._positions.items() if each != partition}
            self._inbox.put(PartitionClaimed(partition=partition, claim=claim))

    def _find_source_ids(self, source: Source, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Return the ids of the stored sources of partitions; those that their topic no longer has are left out."""
        active = self._ledger.active_sources(self._stream_id)
        ids = {}
        for partition in partitions:
            state = None if partition in self._replaced else _find_source_state(partition, active)
            try:
                ids[partition] = self._register_source(source, partition) if state is None else state.source_id
            except _PartitionGoneError:
                with contextlib.suppress(StorageUnavailable):  # the next round tries again
                    self._retire_partition(partition)
        return ids

    def _retire_partition(self, partition: Partition) -> None:
        """Retire a partition that its topic no longer has: the topic was re-created with fewer partitions."""
        source = _find_source_state(partition, self._ledger.active_sources(self._stream_id))
        self._ledger.retire_sources(self._stream_id, [] if source is None else [source])
        self._discard_claim(partition)
        log.warning("Retired %s: its topic now has fewer partitions.", partition, extra={"action": "retire"})

    def _register_source(self, source: Source, partition: Partition) -> int:
        """Register a partition without a source, or a re-created one; return the id of its source.

        A partition that was added after the start is read from its beginning, a retired one from its stored position.
        """
        if partition in self._replaced:
            self._start_incarnation(source, partition)
            self._replaced.discard(partition)  # another failure must not start a further incarnation
            self._unclaimed.add(partition)
        state = _find_source_state(partition, self._ledger.active_sources(self._stream_id))
        if state is not None:
            return state.source_id
        info = _discover_partition(source, partition)
        added = _find_source_state(
            partition, self._ledger.register_sources(self._stream_id, [_source_at_beginning(info)])
        )
        assert added is not None, "a registered partition is among the active sources"
        log.info("Added partition %s at offset %d.", partition, added.next_offset, extra={"action": "claim"})
        return added.source_id

    def _start_incarnation(self, source: Source, partition: Partition) -> None:
        """Start a new incarnation of a partition: its log was re-created or ends before the stored position."""
        info = _discover_partition(source, partition)
        log.warning(
            "The log of %s was re-created since its position was stored; a new incarnation starts at offset %d.",
            partition,
            info.begin,
            extra={"action": "incarnation"},
        )
        self._ledger.restart_sources(self._stream_id, [_source_at_beginning(info)])

    def _report_caught_up(self, source: Source) -> None:
        """Report the partitions that are read to the end of their log: only these may become idle.

        All claimed partitions are checked, not only the silent ones: a partition with nothing but dead letters is never
        silent and must still be able to become idle.
        """
        if not self._claims:
            return
        try:
            # The time before the check, so that a process that is suspended after it reports nothing stale.
            seen_us = self._now_us()
            caught_up = source.caught_up(frozenset(self._claims))
            self._log_ends = source.log_ends
        except (BrokerUnavailable, StorageUnavailable):
            return
        if caught_up:
            self._inbox.put(PartitionsCaughtUp(partitions=caught_up, seen_us=seen_us))


def _list_partitions(partitions: Sequence[Partition]) -> str:
    further = len(partitions) - 1
    return f"{partitions[0]} and {further} further partitions" if further else str(partitions[0])


def _find_source_state(partition: Partition, sources: Sequence[SourceState]) -> SourceState | None:
    """Return the stored source of a partition; None if it is not among the active sources."""
    key = (partition.topic, partition.partition)
    return next((each for each in sources if (each.topic, each.partition) == key), None)


def _discover_partition(source: Source, partition: Partition) -> PartitionInfo:
    """Return the current state of a partition.

    Raises:
        _PartitionGoneError: The topic exists without this partition.
        BrokerUnavailable: The topic does not exist; it may be about to be re-created.
    """
    infos = [info for info in source.discover() if info.partition.topic == partition.topic]
    for info in infos:
        if info.partition == partition:
            return info
    if infos:
        raise _PartitionGoneError
    raise BrokerUnavailable(f"the topic of {partition} does not exist now; waiting for it")


def _source_at_beginning(info: PartitionInfo) -> NewSource:
    return build_new_source(info, Position(next_offset=info.begin, cursor=None))
