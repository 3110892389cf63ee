"""Registering: store where every partition of a stream begins, before anything of it is committed."""

import time

from config.settings import StreamSettings
from consumers.batch import Partition, Position
from consumers.source import Found, Source
from storage.ledger import Ledger, NewSource


def register_sources(ledger: Ledger, stream_id: int, source: Source, settings: StreamSettings) -> None:
    """Store the partitions that are new, and those whose log is another one than before.

    The configured start holds only for a stream without any position: a partition that is added later, and a log
    that was made anew, begin at their beginning, so that nothing of them is missed.

    Raises:
        ConfigError: A topic or the file does not exist.
        BrokerUnavailable: Nobody answered.
    """
    found = source.discover()
    known = {(each.topic, each.partition): each for each in ledger.sources(stream_id)}
    begins = {each.partition: Position(next_offset=each.begin, cursor=None) for each in found}
    if not known:
        start = settings.source.initial.resolve(time.time_ns() // 1_000)
        begins |= source.resolve(start, found)
    ledger.register(stream_id, [_new_source(each, begins[each.partition]) for each in found])


def starts_of(ledger: Ledger, stream_id: int) -> dict[Partition, Position]:
    """Return the stored positions of a stream's partitions."""
    return {
        Partition(topic=each.topic, partition=each.partition): Position(
            next_offset=each.next_offset, cursor=each.cursor
        )
        for each in ledger.sources(stream_id)
    }


def _new_source(found: Found, position: Position) -> NewSource:
    return NewSource(
        topic=found.partition.topic,
        partition=found.partition.partition,
        identity=found.identity,
        next_offset=position.next_offset,
        cursor=position.cursor,
    )
