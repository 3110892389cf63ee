"""Registering: store where every partition of a stream begins, before anything of it is committed."""

import logging
import time
from collections.abc import Callable, Sequence

from config.settings import StreamSettings
from consumers.batch import Partition, Position
from consumers.source import PartitionInfo, Source
from storage.ledger.ledger import Ledger
from storage.ledger.sources import NewSource, SourceState

log = logging.getLogger(__name__)

_RETIRE_INTERVAL_S = 60.0


def register_sources(
    ledger: Ledger, stream: str, stream_id: int, source: Source, settings: StreamSettings
) -> Sequence[PartitionInfo]:
    """Store the partitions that are new, and those whose log is another one than before; return all that there are.

    The configured start holds only for a stream without any position: a partition that is added later, and a log
    that was made anew, begin at their beginning, so that nothing of them is missed. What is not among them any more
    is retired: nobody reads it, and windows must not wait for it.

    Raises:
        ConfigError: A topic or the file does not exist.
        BrokerUnavailable: Nobody answered.
    """
    found = source.discover()
    known = {(each.topic, each.partition): each for each in ledger.active_sources(stream_id)}
    begins = {each.partition: Position(next_offset=each.begin, cursor=None) for each in found}
    if not known:
        start = settings.source.initial_position.resolve(time.time_ns() // 1_000)
        begins |= source.resolve(start, found)
    ledger.register_sources(stream_id, [build_new_source(each, begins[each.partition]) for each in found])
    there = {(each.partition.topic, each.partition.partition) for each in found}
    _retire_sources(ledger, stream, stream_id, lambda each: (each.topic, each.partition) in there)
    return found


class SourceRetirement:
    """Retires now and then what another daemon, of an older configuration, has taken up again before it ended."""

    def __init__(self, ledger: Ledger, stream: str, stream_id: int, topics: frozenset[str]) -> None:
        self._ledger = ledger
        self._stream = stream
        self._stream_id = stream_id
        self._topics = topics
        self._next_s = time.monotonic() + _RETIRE_INTERVAL_S

    def run_due(self) -> bool:
        """Retire the partitions of topics that are not configured; return whether there were any."""
        if time.monotonic() < self._next_s:
            return False
        self._next_s = time.monotonic() + _RETIRE_INTERVAL_S
        return _retire_sources(self._ledger, self._stream, self._stream_id, lambda each: each.topic in self._topics)


def _retire_sources(ledger: Ledger, stream: str, stream_id: int, is_read: Callable[[SourceState], bool]) -> bool:
    retired = ledger.retire_sources(stream_id, [each for each in ledger.active_sources(stream_id) if not is_read(each)])
    for each in retired:
        log.warning(
            "Stream %s is not read from %s[%d] any more; its position stays at %d, for when it comes back.",
            stream,
            each.topic,
            each.partition,
            each.next_offset,
            extra={"action": "retire", "stream": stream},
        )
    return bool(retired)


def stored_positions(ledger: Ledger, stream_id: int) -> dict[Partition, Position]:
    """Return the stored positions of a stream's partitions."""
    return {
        Partition(topic=each.topic, partition=each.partition): Position(
            next_offset=each.next_offset, cursor=each.cursor
        )
        for each in ledger.active_sources(stream_id)
    }


def build_new_source(found: PartitionInfo, position: Position) -> NewSource:
    """Return a partition as it is registered, to begin at a position."""
    return NewSource(
        topic=found.partition.topic,
        partition=found.partition.partition,
        identity=found.identity,
        next_offset=position.next_offset,
        cursor=position.cursor,
    )
