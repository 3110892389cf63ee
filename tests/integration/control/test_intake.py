"""The intake: it alone claims; it fills the inbox, and always sends the message to finish."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from config.errors import StorageUnavailable
from consumers.batch import Partition
from consumers.source import Found, Poll, Source
from monitor.data_plane.inbox import Arrived, CaughtUp, Claimed, Ended, Finish, Inbox, Message, Revoked
from monitor.data_plane.intake import Intake, Reclaim
from storage.engine import Database
from storage.ledger import Ledger
from tests.integration.control.feeding import TOPIC, open_stream, partition, until
from tests.unit.consumers.memory import MemorySource


@dataclass
class Running:
    """An intake in its thread, and all that it has put into its inbox."""

    db: Database
    stream_id: int
    source: MemorySource
    messages: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inbox, self.stop, self.drained = Inbox(), threading.Event(), threading.Event()
        self.intake = Intake(
            stream_id=self.stream_id,
            owner="me",
            open_source=self.open_source,
            ledger=Ledger(self.db),
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
        self.saw(Finish)

    def saw(self, *kinds: type, n: int = 1) -> bool:
        while (message := self.inbox.get(0.0)) is not None:
            self.messages.append(message)
        return len(self.of(*kinds)) >= n

    def of(self, *kinds: type) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kinds)]


def logs(partitions: int = 2, n: int = 5) -> dict[Partition, list[bytes]]:
    return {partition(p): [b"%d" % i for i in range(n)] for p in range(partitions)}


@pytest.fixture
def running(sqlite_db: Database) -> Iterator[Running]:
    of = Running(sqlite_db, open_stream(sqlite_db, partitions=2), MemorySource(logs(), ends=True))
    of.thread.start()
    yield of
    of.end()


def test_each_partition_is_claimed_before_anything_of_it_arrives(running: Running) -> None:
    until(lambda: running.saw(Ended, n=2))
    for p in range(2):
        mine = [
            message
            for message in running.of(Claimed, Arrived, Ended)
            if getattr(message, "partition", None) == partition(p)
            or (isinstance(message, Arrived) and message.batch.partition == partition(p))
        ]
        assert [type(message) for message in mine] == [Claimed, Arrived, Ended]
        assert mine[0].claim.epoch == mine[1].epoch == mine[2].epoch


def test_a_claim_that_was_lost_is_made_again_from_the_stored_position(running: Running) -> None:
    until(lambda: running.saw(Ended, n=2))
    old = next(message.claim for message in running.of(Claimed) if message.partition == partition(0))
    running.intake.reclaim(Reclaim(partition=partition(0), epoch=old.epoch))
    until(lambda: running.saw(Claimed, n=3))
    assert running.of(Claimed)[2].claim.epoch == old.epoch + 1
    until(lambda: running.saw(Arrived, n=3))
    assert running.of(Arrived)[2].batch.begin == 0


def test_a_request_about_an_older_claim_is_nothing_new(running: Running) -> None:
    until(lambda: running.saw(Ended, n=2))
    running.intake.reclaim(Reclaim(partition=partition(0), epoch=-1))
    until(lambda: running.saw(CaughtUp, n=4))
    assert len(running.of(Claimed)) == 2


def test_a_partition_that_was_added_begins_at_its_beginning(sqlite_db: Database) -> None:
    running = Running(sqlite_db, open_stream(sqlite_db, partitions=1), MemorySource(logs(3), ends=True))
    running.thread.start()
    try:
        until(lambda: running.saw(Ended, n=3))
        known = [(each.topic, each.partition) for each in Ledger(sqlite_db).sources(running.stream_id)]
        assert known == [(TOPIC, 0), (TOPIC, 1), (TOPIC, 2)]
        of_claims = {message.claim.source_id: message.partition for message in running.of(Claimed)}
        stored = {each.source_id: partition(each.partition) for each in Ledger(sqlite_db).sources(running.stream_id)}
        assert of_claims == stored
    finally:
        running.end()


def test_a_log_that_was_replaced_is_begun_anew(sqlite_db: Database) -> None:
    class Replaced(MemorySource):
        told = False

        def poll(self, timeout_s: float) -> Poll:
            polled = super().poll(timeout_s)
            if self.told or partition(0) not in self._next:
                return polled
            self.told = True
            return Poll(replaced=frozenset([partition(0)]))

    running = Running(sqlite_db, open_stream(sqlite_db), Replaced(logs(1), ends=True))
    running.thread.start()
    try:
        until(lambda: running.saw(Claimed, n=2))
        assert len(running.of(Revoked)) == 1
        (source,) = Ledger(sqlite_db).sources(running.stream_id)
        assert source.incarnation == 2
        assert running.of(Claimed)[1].claim.source_id == source.source_id
    finally:
        running.end()


def test_a_topic_that_was_made_again_with_fewer_partitions_waits_for_none_that_is_gone(sqlite_db: Database) -> None:
    class Smaller(MemorySource):
        told = False

        def poll(self, timeout_s: float) -> Poll:
            polled = super().poll(timeout_s)
            if self.told or partition(1) not in self._next:
                return polled
            self.told = True
            return Poll(replaced=frozenset([partition(0), partition(1)]))

        def discover(self) -> list[Found]:
            return [found for found in super().discover() if not (self.told and found.partition == partition(1))]

    running = Running(sqlite_db, open_stream(sqlite_db, partitions=2), Smaller(logs(), ends=True))
    running.thread.start()
    try:
        until(lambda: [each.incarnation for each in Ledger(sqlite_db).sources(running.stream_id)] == [2])
        until(lambda: running.saw(Claimed, n=3))
        assert running.of(Claimed)[2].partition == partition(0)
    finally:
        running.end()


def test_crowded_partitions_are_held_until_they_are_settled(
    sqlite_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.data_plane.inbox.MAX_PENDING_RECORDS", 3)
    source = MemorySource(logs(1, n=30), amounts=lambda _: 3)
    running = Running(sqlite_db, open_stream(sqlite_db), source)
    running.thread.start()
    try:
        until(lambda: running.saw(Arrived))
        until(lambda: source._held == frozenset([partition(0)]))
        assert len(running.of(Arrived)) == 1
        running.inbox.settle(partition(0), 3)
        until(lambda: running.saw(Arrived, n=2))
        assert running.of(Arrived)[1].batch.begin == 3
    finally:
        running.end()


def test_an_intake_that_cannot_open_its_source_still_tells_the_worker_to_finish(sqlite_db: Database) -> None:
    running = Running(sqlite_db, open_stream(sqlite_db), MemorySource(logs(1)))

    def away() -> Source:
        raise StorageUnavailable("the store is away")

    running.intake._open_source = away
    running.drained.set()
    with pytest.raises(StorageUnavailable):
        running.intake.run()
    assert running.saw(Finish)
