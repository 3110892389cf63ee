"""The inbox: the records in flight, and the partitions that are paused for them."""

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
)

A, B = Partition(topic="t", partition=0), Partition(topic="t", partition=1)
BOTH = frozenset([A, B])


def fetched(values: Sequence[bytes | None] | Table, of: Partition = A) -> RecordsFetched:
    n = len(values)
    batch = RawBatch(partition=of, begin=0, end=n, offsets=np.arange(n, dtype=np.int64), values=values)
    return RecordsFetched(epoch=1, batch=batch)


def test_messages_are_returned_in_the_order_they_were_added() -> None:
    inbox = Inbox()
    messages = [ControlChanged(), fetched([b"1"]), PartitionRevoked(partition=A), StopRequested()]
    for message in messages:
        inbox.put(message)
    assert [inbox.get(0.0) for _ in range(5)] == [*messages, None]


def test_a_partition_over_the_limit_is_paused_until_its_records_are_released() -> None:
    inbox = Inbox()
    inbox.put(fetched([b""] * MAX_PENDING_RECORDS))
    inbox.put(fetched([b""] * (MAX_PENDING_RECORDS - 1), B))
    assert inbox.over_limit(BOTH) == {A}
    inbox.get(0.0)
    assert inbox.over_limit(BOTH) == {A}
    inbox.release(A, 1)
    assert inbox.over_limit(BOTH) == frozenset()


def test_a_full_queue_pauses_all_partitions_until_a_message_is_taken() -> None:
    inbox = Inbox()
    inbox.put(fetched([b"x" * (MAX_QUEUED_BYTES - 100)]))
    assert inbox.over_limit(BOTH) == frozenset()
    inbox.put(fetched([b"x" * 100], B))
    assert inbox.over_limit(BOTH) == BOTH
    inbox.get(0.0)
    assert inbox.over_limit(BOTH) == frozenset()


def test_releasing_more_records_than_pending_has_no_lasting_effect() -> None:
    inbox = Inbox()
    inbox.release(A, 500)
    inbox.put(fetched([b""] * MAX_PENDING_RECORDS))
    assert inbox.over_limit(BOTH) == {A}


def test_only_the_given_partitions_are_returned() -> None:
    inbox = Inbox()
    inbox.put(fetched([b""] * MAX_PENDING_RECORDS))
    assert inbox.over_limit(frozenset([B])) == frozenset()


def test_concurrent_puts_and_releases_leave_no_pending_records() -> None:
    inbox = Inbox()

    def put() -> None:
        for _ in range(500):
            inbox.put(fetched([b"x"] * 80))

    def release() -> None:
        for _ in range(500):
            while inbox.get(1.0) is None:
                pass
            inbox.release(A, 80)

    threads = [threading.Thread(target=each) for each in (put, release, put, release)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    inbox.put(fetched([b"x"] * (MAX_PENDING_RECORDS - 1)))
    assert inbox.over_limit(BOTH) == frozenset()
