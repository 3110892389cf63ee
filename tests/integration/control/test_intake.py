"""The intake: it alone claims; it fills the inbox, and always sends the message to finish."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from config.errors import StorageUnavailable
from consumers.batch import Partition
from consumers.source import PartitionInfo, PollResult, Source
from monitor.pipeline.inbox import (
    Inbox,
    InboxMessage,
    PartitionCaughtUp,
    PartitionClaimed,
    PartitionEnded,
    PartitionRevoked,
    RecordsFetched,
    StopRequested,
)
from monitor.pipeline.intake import Intake, ReclaimRequest
from storage.database.engine import Database
from storage.ledger.ledger import Ledger
from tests.integration.control.worker_bench import TOPIC, open_stream, partition, wait_until
from tests.unit.consumers.memory_source import MemorySource


@dataclass
class RunningIntake:
    """An intake in its thread, and all that it has put into its inbox."""

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
        self.saw(StopRequested)

    def saw(self, *kinds: type, n: int = 1) -> bool:
        while (message := self.inbox.get(0.0)) is not None:
            self.messages.append(message)
        return len(self.of(*kinds)) >= n

    def of(self, *kinds: type) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kinds)]


def logs(partitions: int = 2, n: int = 5) -> dict[Partition, list[bytes]]:
    return {partition(p): [b"%d" % i for i in range(n)] for p in range(partitions)}


@pytest.fixture
def running(sqlite_db: Database) -> Iterator[RunningIntake]:
    of = RunningIntake(sqlite_db, open_stream(sqlite_db, partitions=2), MemorySource(logs(), ends=True))
    of.thread.start()
    yield of
    of.end()


def test_each_partition_is_claimed_before_anything_of_it_arrives(running: RunningIntake) -> None:
    wait_until(lambda: running.saw(PartitionEnded, n=2))
    for p in range(2):
        mine = [
            message
            for message in running.of(PartitionClaimed, RecordsFetched, PartitionEnded)
            if getattr(message, "partition", None) == partition(p)
            or (isinstance(message, RecordsFetched) and message.batch.partition == partition(p))
        ]
        assert [type(message) for message in mine] == [PartitionClaimed, RecordsFetched, PartitionEnded]
        assert mine[0].claim.epoch == mine[1].epoch == mine[2].epoch


def test_a_claim_that_was_lost_is_made_again_from_the_stored_position(running: RunningIntake) -> None:
    wait_until(lambda: running.saw(PartitionEnded, n=2))
    old = next(message.claim for message in running.of(PartitionClaimed) if message.partition == partition(0))
    running.intake.request_reclaim(ReclaimRequest(partition=partition(0), epoch=old.epoch))
    wait_until(lambda: running.saw(PartitionClaimed, n=3))
    assert running.of(PartitionClaimed)[2].claim.epoch == old.epoch + 1
    wait_until(lambda: running.saw(RecordsFetched, n=3))
    assert running.of(RecordsFetched)[2].batch.begin == 0


def test_a_request_about_an_older_claim_is_nothing_new(running: RunningIntake) -> None:
    wait_until(lambda: running.saw(PartitionEnded, n=2))
    running.intake.request_reclaim(ReclaimRequest(partition=partition(0), epoch=-1))
    wait_until(lambda: running.saw(PartitionCaughtUp, n=4))
    assert len(running.of(PartitionClaimed)) == 2


def test_a_partition_that_was_added_begins_at_its_beginning(sqlite_db: Database) -> None:
    running = RunningIntake(sqlite_db, open_stream(sqlite_db, partitions=1), MemorySource(logs(3), ends=True))
    running.thread.start()
    try:
        wait_until(lambda: running.saw(PartitionEnded, n=3))
        known = [(each.topic, each.partition) for each in Ledger(sqlite_db).active_sources(running.stream_id)]
        assert known == [(TOPIC, 0), (TOPIC, 1), (TOPIC, 2)]
        of_claims = {message.claim.source_id: message.partition for message in running.of(PartitionClaimed)}
        stored = {
            each.source_id: partition(each.partition) for each in Ledger(sqlite_db).active_sources(running.stream_id)
        }
        assert of_claims == stored
    finally:
        running.end()


def test_a_log_that_was_replaced_is_begun_anew(sqlite_db: Database) -> None:
    class Replaced(MemorySource):
        told = False

        def poll(self, timeout_s: float) -> PollResult:
            polled = super().poll(timeout_s)
            if self.told or partition(0) not in self._next:
                return polled
            self.told = True
            return PollResult(replaced=frozenset([partition(0)]))

    running = RunningIntake(sqlite_db, open_stream(sqlite_db), Replaced(logs(1), ends=True))
    running.thread.start()
    try:
        wait_until(lambda: running.saw(PartitionClaimed, n=2))
        assert len(running.of(PartitionRevoked)) == 1
        (source,) = Ledger(sqlite_db).active_sources(running.stream_id)
        assert source.incarnation == 2
        assert running.of(PartitionClaimed)[1].claim.source_id == source.source_id
    finally:
        running.end()


def test_a_topic_that_was_made_again_with_fewer_partitions_waits_for_none_that_is_gone(sqlite_db: Database) -> None:
    class Smaller(MemorySource):
        told = False

        def poll(self, timeout_s: float) -> PollResult:
            polled = super().poll(timeout_s)
            if self.told or partition(1) not in self._next:
                return polled
            self.told = True
            return PollResult(replaced=frozenset([partition(0), partition(1)]))

        def discover(self) -> list[PartitionInfo]:
            return [found for found in super().discover() if not (self.told and found.partition == partition(1))]

    running = RunningIntake(sqlite_db, open_stream(sqlite_db, partitions=2), Smaller(logs(), ends=True))
    running.thread.start()
    try:
        wait_until(lambda: [each.incarnation for each in Ledger(sqlite_db).active_sources(running.stream_id)] == [2])
        wait_until(lambda: running.saw(PartitionClaimed, n=3))
        assert running.of(PartitionClaimed)[2].partition == partition(0)
    finally:
        running.end()


def test_crowded_partitions_are_held_until_they_are_settled(
    sqlite_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.pipeline.inbox.MAX_PENDING_RECORDS", 3)
    source = MemorySource(logs(1, n=30), amounts=lambda _: 3)
    running = RunningIntake(sqlite_db, open_stream(sqlite_db), source)
    running.thread.start()
    try:
        wait_until(lambda: running.saw(RecordsFetched))
        wait_until(lambda: source._held == frozenset([partition(0)]))
        assert len(running.of(RecordsFetched)) == 1
        running.inbox.release(partition(0), 3)
        wait_until(lambda: running.saw(RecordsFetched, n=2))
        assert running.of(RecordsFetched)[1].batch.begin == 3
    finally:
        running.end()


def test_an_intake_that_cannot_open_its_source_still_tells_the_worker_to_finish(sqlite_db: Database) -> None:
    running = RunningIntake(sqlite_db, open_stream(sqlite_db), MemorySource(logs(1)))

    def away() -> Source:
        raise StorageUnavailable("the store is away")

    running.intake._open_source = away
    running.drained.set()
    with pytest.raises(StorageUnavailable):
        running.intake.run()
    assert running.saw(StopRequested)
