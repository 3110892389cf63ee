"""The values of a stream's `auto` settings at its first model, from the first events of its source."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from config.auto_sizes import find_sizes
from config.sizing import EventVolume
from config.streams import StreamSettings
from consumers.batch import Partition, Position
from consumers.discovery.event_rate import estimate_rate
from consumers.source import PartitionInfo
from monitor.models.training_set import TrainingSet

SAMPLE_EVENTS = 5_000
"""The number of first events that the rate is estimated from, as in `outrider init`."""


def find_first_sizes(
    settings: StreamSettings,
    sample: TrainingSet,
    *,
    available: int | None,
    longest_look_back: timedelta,
) -> dict[str, Any]:
    """Return the values of the settings that are `auto` by their dotted keys.

    Args:
        settings: The settings of the stream.
        sample: Its first events.
        available: The number of events of a source that has an end; None for one that grows.
        longest_look_back: A bound on the look-back.
    """
    volume = EventVolume(
        available=len(sample) if available is None else available,
        grows=available is None,
        rate=estimate_rate(sample.partition_times_us) if has_event_times(settings) else None,
    )
    return find_sizes(settings, volume, len(sample.names), longest_look_back=longest_look_back)


def has_event_times(settings: StreamSettings) -> bool:
    """Return whether the events have times of their own, and not the time of reading a file."""
    return settings.source.type != "file" or settings.event.time is not None


def count_available(
    settings: StreamSettings,
    partitions: Sequence[PartitionInfo],
    starts: Mapping[Partition, Position],
    sample: TrainingSet,
) -> int | None:
    """Return the number of usable events of a file; None for a source that grows."""
    if settings.source.type != "file" or settings.source.is_stdin:
        return None
    records = sum(each.end - starts[each.partition].next_offset for each in partitions if each.partition in starts)
    usable = len(sample) / max(1, len(sample) + sample.rejected)
    return max(len(sample), int(records * usable))
