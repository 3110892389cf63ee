"""Registration of a stream's partitions: the first position of each is stored before its first commit."""

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
    """Register new and re-created partitions, retire removed ones, and return all partitions of the source.

    The configured `start` applies only to a stream without any stored position. Partitions that are added later and
    re-created logs are read from their beginning, so that no event is missed. Partitions that no longer exist are
    retired: no source reads them, and windows must not wait for them.

    Raises:
        ConfigError: A topic or the file does not exist.
        BrokerUnavailable: No broker answered.
    """
    partitions = source.discover()
    positions = {each.partition: Position(next_offset=each.begin, cursor=None) for each in partitions}
    if not ledger.active_sources(stream_id):
        start = settings.source.initial_position.resolve(time.time_ns() // 1_000)
        positions |= source.resolve(start, partitions)
    ledger.register_sources(stream_id, [build_new_source(each, positions[each.partition]) for each in partitions])
    existing = {(each.partition.topic, each.partition.partition) for each in partitions}
    _retire_sources(ledger, stream, stream_id, lambda each: (each.topic, each.partition) in existing)
    return partitions


class SourceRetirement:
    """Retires partitions of topics that are not configured, once a minute.

    A daemon with an older configuration may have registered them again before it stopped.
    """

    def __init__(self, ledger: Ledger, stream: str, stream_id: int, topics: frozenset[str]) -> None:
        self._ledger = ledger
        self._stream = stream
        self._stream_id = stream_id
        self._topics = topics
        self._next_s = time.monotonic() + _RETIRE_INTERVAL_S

    def run_due(self) -> bool:
        """Retire the partitions of topics that are not configured if the interval has passed.

        Returns:
            Whether a partition was retired.
        """
        if time.monotonic() < self._next_s:
            return False
        self._next_s = time.monotonic() + _RETIRE_INTERVAL_S
        return _retire_sources(self._ledger, self._stream, self._stream_id, lambda each: each.topic in self._topics)


def _retire_sources(ledger: Ledger, stream: str, stream_id: int, is_read: Callable[[SourceState], bool]) -> bool:
    retired = ledger.retire_sources(stream_id, [each for each in ledger.active_sources(stream_id) if not is_read(each)])
    for each in retired:
        log.warning(
            "Stream %s: %s[%d] is no longer read; its position stays at %d for the case that it is configured again.",
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


def build_new_source(info: PartitionInfo, position: Position) -> NewSource:
    """Build the record that registers a partition at a position."""
    return NewSource(
        topic=info.partition.topic,
        partition=info.partition.partition,
        identity=info.identity,
        next_offset=position.next_offset,
        cursor=position.cursor,
    )
