"""The intake: claims, messages in the inbox, and the final stop message."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from config.errors import ConfigError
from consumers.batch import Partition
from consumers.source import PartitionInfo, PollResult, Source
from monitor.pipeline.inbox import (
    Inbox,
    InboxMessage,
    PartitionClaimed,
    PartitionEnded,
    PartitionRevoked,
    PartitionsCaughtUp,
    RecordsFetched,
    StopRequested,
)
from monitor.pipeline.intake import Intake, ReclaimRequest
from monitor.pipeline.outages import Outages
from storage.database.engine import Database
from storage.ledger.ledger import Ledger
from storage.ledger.sources import SourceClaim
from tests.integration.control.worker_bench import TOPIC, open_stream, partition, wait_until
from tests.unit.consumers.memory_source import MemorySource


@dataclass
class RunningIntake:
    """An intake in its thread, with the messages of its inbox."""

    db: Database
    stream_id: int
    source: MemorySource
    messages: list[InboxMessage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inbox, self.stop, self.drained = Inbox(), threading.Event(), threading.Event()
        self.intake = Intake(
            stream_id=self.stream_id,
            owner="me",
            open_source=self.open_source,
            ledger=Ledger(self.db),
            now_us=self.db.now_us,
            inbox=self.inbox,
            stop=self.stop,
            drained=self.drained,
            outages=Outages(),
            drain_timeout_s=20,
        )
        self.thread = threading.Thread(target=self.intake.run, daemon=True)

    def open_source(self) -> Source:
        return self.source

    def end(self) -> None:
        self.stop.set()
        self.drained.set()
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.received(StopRequested)

    def received(self, *kinds: type, n: int = 1) -> bool:
        while (message := self.inbox.get(0.0)) is not None:
            self.messages.append(message)
        return len(self.of(*kinds)) >= n

    def of(self, *kinds: type) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kinds)]


def logs(partitions: int = 2, n: int = 5) -> dict[Partition, list[bytes]]:
    return {partition(p): [b"%d" % i for i in range(n)] for p in range(partitions)}


@pytest.fixture
def running(sqlite_db: Database) -> Iterator[RunningIntake]:
    running = RunningIntake(sqlite_db, open_stream(sqlite_db, partitions=2), MemorySource(logs(), ends=True))
    running.thread.start()
    yield running
    running.end()


def test_each_partition_is_claimed_before_its_first_records(running: RunningIntake) -> None:
    wait_until(lambda: running.received(PartitionEnded, n=2))
    for p in range(2):
        mine = [
            message
            for message in running.of(PartitionClaimed, RecordsFetched, PartitionEnded)
            if getattr(message, "partition", None) == partition(p)
            or (isinstance(message, RecordsFetched) and message.batch.partition == partition(p))
        ]
        assert [type(message) for message in mine] == [PartitionClaimed, RecordsFetched, PartitionEnded]
        assert mine[0].claim.epoch == mine[1].epoch == mine[2].epoch


def test_the_partitions_of_an_assignment_are_claimed_in_one_transaction(sqlite_db: Database) -> None:
    running = RunningIntake(sqlite_db, open_stream(sqlite_db, partitions=8), MemorySource(logs(8), ends=True))
    claimed: list[int] = []
    claim_sources = running.intake._ledger.claim_sources

    def count(source_ids: Sequence[int], owner: str) -> dict[int, SourceClaim]:
        claimed.append(len(source_ids))
        return claim_sources(source_ids, owner)

    running.intake._ledger.claim_sources = count  # type: ignore[method-assign]
    running.thread.start()
    try:
        wait_until(lambda: running.received(PartitionEnded, n=8))
        assert claimed == [8]
    finally:
        running.end()


def test_the_lag_counts_the_records_behind_the_stored_positions_of_all_claimed_partitions(
    running: RunningIntake,
) -> None:
    assert RunningIntake(running.db, running.stream_id, running.source).intake.lag_events() is None
    wait_until(lambda: running.intake.lag_events() == 10)
    running.intake.set_positions({partition(0): 5, partition(1): 2})
    assert running.intake.lag_events() == 3


def test_a_lost_claim_is_renewed_from_the_stored_position(running: RunningIntake) -> None:
    wait_until(lambda: running.received(PartitionEnded, n=2))
    old = next(message.claim for message in running.of(PartitionClaimed) if message.partition == partition(0))
    running.intake.request_reclaim(ReclaimRequest(partition=partition(0), epoch=old.epoch))
    wait_until(lambda: running.received(PartitionClaimed, n=3))
    assert running.of(PartitionClaimed)[2].claim.epoch == old.epoch + 1
    wait_until(lambda: running.received(RecordsFetched, n=3))
    assert running.of(RecordsFetched)[2].batch.begin == 0


def test_a_reclaim_request_for_an_older_claim_is_ignored(running: RunningIntake) -> None:
    wait_until(lambda: running.received(PartitionEnded, n=2))
    running.intake.request_reclaim(ReclaimRequest(partition=partition(0), epoch=-1))
    wait_until(lambda: running.received(PartitionsCaughtUp, n=2))
    assert len(running.of(PartitionClaimed)) == 2


def test_an_added_partition_is_read_from_its_beginning(sqlite_db: Database) -> None:
    running = RunningIntake(sqlite_db, open_stream(sqlite_db, partitions=1), MemorySource(logs(3), ends=True))
    running.thread.start()
    try:
        wait_until(lambda: running.received(PartitionEnded, n=3))
        sources = [(each.topic, each.partition) for each in Ledger(sqlite_db).active_sources(running.stream_id)]
        assert sources == [(TOPIC, 0), (TOPIC, 1), (TOPIC, 2)]
        claimed = {message.claim.source_id: message.partition for message in running.of(PartitionClaimed)}
        stored = {
            each.source_id: partition(each.partition) for each in Ledger(sqlite_db).active_sources(running.stream_id)
        }
        assert claimed == stored
    finally:
        running.end()


def test_a_re_created_log_starts_a_new_incarnation(sqlite_db: Database) -> None:
    class Replaced(MemorySource):
        reported = False

        def poll(self, timeout_s: float) -> PollResult:
            polled = super().poll(timeout_s)
            if self.reported or partition(0) not in self._next:
                return polled
            self.reported = True
            return PollResult(replaced=frozenset([partition(0)]))

    running = RunningIntake(sqlite_db, open_stream(sqlite_db), Replaced(logs(1), ends=True))
    running.thread.start()
    try:
        wait_until(lambda: running.received(PartitionClaimed, n=2))
        assert len(running.of(PartitionRevoked)) == 1
        (source,) = Ledger(sqlite_db).active_sources(running.stream_id)
        assert source.incarnation == 2
        assert running.of(PartitionClaimed)[1].claim.source_id == source.source_id
    finally:
        running.end()


def test_partitions_missing_from_a_re_created_topic_are_retired(sqlite_db: Database) -> None:
    class Smaller(MemorySource):
        reported = False

        def poll(self, timeout_s: float) -> PollResult:
            polled = super().poll(timeout_s)
            if self.reported or partition(1) not in self._next:
                return polled
            self.reported = True
            return PollResult(replaced=frozenset([partition(0), partition(1)]))

        def discover(self) -> list[PartitionInfo]:
            return [found for found in super().discover() if not (self.reported and found.partition == partition(1))]

    running = RunningIntake(sqlite_db, open_stream(sqlite_db, partitions=2), Smaller(logs(), ends=True))
    running.thread.start()
    try:
        wait_until(lambda: [each.incarnation for each in Ledger(sqlite_db).active_sources(running.stream_id)] == [2])
        wait_until(lambda: running.received(PartitionClaimed, n=3))
        assert running.of(PartitionClaimed)[2].partition == partition(0)
    finally:
        running.end()


def test_partitions_over_the_limit_are_paused_until_records_are_released(
    sqlite_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.pipeline.inbox.MAX_PENDING_RECORDS", 3)
    source = MemorySource(logs(1, n=30), amounts=lambda _: 3)
    running = RunningIntake(sqlite_db, open_stream(sqlite_db), source)
    running.thread.start()
    try:
        wait_until(lambda: running.received(RecordsFetched))
        wait_until(lambda: source._paused == frozenset([partition(0)]))
        assert len(running.of(RecordsFetched)) == 1
        running.inbox.release(partition(0), 3)
        wait_until(lambda: running.received(RecordsFetched, n=2))
        assert running.of(RecordsFetched)[1].batch.begin == 3
    finally:
        running.end()


def test_an_intake_that_fails_to_open_its_source_still_stops_the_worker(sqlite_db: Database) -> None:
    running = RunningIntake(sqlite_db, open_stream(sqlite_db), MemorySource(logs(1)))

    def refused() -> Source:
        raise ConfigError("there is no such file")

    running.intake._open_source = refused
    running.drained.set()
    with pytest.raises(ConfigError):
        running.intake.run()
    assert running.received(StopRequested)
