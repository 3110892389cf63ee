"""The inbox: how much is under way, and who is held back for it."""

import threading
from collections.abc import Sequence

import numpy as np

from consumers.batch import Partition, RawBatch, Table
from monitor.pipeline.inbox import (
    MAX_PENDING_RECORDS,
    MAX_QUEUED_BYTES,
    ControlChanged,
    Inbox,
    PartitionRevoked,
    RecordsFetched,
    StopRequested,
    estimate_size_bytes,
)

A, B = Partition(topic="t", partition=0), Partition(topic="t", partition=1)
BOTH = frozenset([A, B])


def arrived(values: Sequence[bytes | None] | Table, of: Partition = A) -> RecordsFetched:
    n = len(values)
    batch = RawBatch(partition=of, begin=0, end=n, offsets=np.arange(n, dtype=np.int64), values=values)
    return RecordsFetched(epoch=1, batch=batch)


def test_messages_come_out_in_the_order_in_which_they_went_in() -> None:
    inbox = Inbox()
    messages = [ControlChanged(), arrived([b"1"]), PartitionRevoked(partition=A), StopRequested()]
    for message in messages:
        inbox.put(message)
    assert [inbox.get(0.0) for _ in range(5)] == [*messages, None]


def test_a_partition_with_enough_under_way_is_held_until_that_is_settled() -> None:
    inbox = Inbox()
    inbox.put(arrived([b""] * MAX_PENDING_RECORDS))
    inbox.put(arrived([b""] * (MAX_PENDING_RECORDS - 1), B))
    assert inbox.over_limit(BOTH) == {A}
    inbox.get(0.0)
    assert inbox.over_limit(BOTH) == {A}
    inbox.release(A, 1)
    assert inbox.over_limit(BOTH) == frozenset()


def test_a_full_queue_holds_all_until_it_is_taken_from() -> None:
    inbox = Inbox()
    inbox.put(arrived([b"x" * (MAX_QUEUED_BYTES - 1)]))
    assert inbox.over_limit(BOTH) == frozenset()
    inbox.put(arrived([b"x"], B))
    assert inbox.over_limit(BOTH) == BOTH
    inbox.get(0.0)
    assert inbox.over_limit(BOTH) == frozenset()


def test_more_than_there_was_cannot_be_settled() -> None:
    inbox = Inbox()
    inbox.release(A, 500)
    inbox.put(arrived([b""] * MAX_PENDING_RECORDS))
    assert inbox.over_limit(BOTH) == {A}


def test_only_partitions_that_were_asked_for_are_named() -> None:
    inbox = Inbox()
    inbox.put(arrived([b""] * MAX_PENDING_RECORDS))
    assert inbox.over_limit(frozenset([B])) == frozenset()


def test_the_size_of_a_batch_is_that_of_its_values_and_a_guess_for_tables() -> None:
    assert estimate_size_bytes(arrived([b"abc", None, b""]).batch) == 3
    table = Table(columns={"x": ["1", "2"]}, n_rows=2)
    assert estimate_size_bytes(arrived(table).batch) > 0


def test_threads_that_put_and_settle_at_once_leave_nothing_under_way() -> None:
    inbox = Inbox()

    def put() -> None:
        for _ in range(500):
            inbox.put(arrived([b"x"] * 80))

    def settle() -> None:
        for _ in range(500):
            while inbox.get(1.0) is None:
                pass
            inbox.release(A, 80)

    threads = [threading.Thread(target=each) for each in (put, settle, put, settle)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    inbox.put(arrived([b"x"] * (MAX_PENDING_RECORDS - 1)))
    assert inbox.over_limit(BOTH) == frozenset()
