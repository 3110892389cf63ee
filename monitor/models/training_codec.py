"""Features and codec of training events, and counts of rejected records before the features are known."""

import time
from collections.abc import Sequence

from config.errors import ConfigError
from config.streams import EventSettings, StreamSettings
from config.units import to_us
from consumers.batch import RawBatch
from consumers.codec import Codec, make_codec
from consumers.discovery.features import discover_features
from consumers.discovery.rejections import RejectionCounts, count_unparsable
from consumers.source import Layout

SAMPLE_RECORDS = 1_000
"""The number of records of each partition that `features: auto` examines."""

_PREVIEW_PAUSE = 20.0
"""The pause between two previews of rejected records, as a multiple of the duration of one."""


def find_features(
    event: EventSettings, sample: Sequence[RawBatch], names: tuple[str, ...] | None, label: str | None
) -> tuple[str, ...]:
    """Return the names of the features, discovered in the sample if `names` is None.

    Raises:
        ConfigError: No field is a feature, or a table lacks one of the columns.
    """
    if names is None:
        return tuple(name for name in discover_features(event, sample) if name != label)
    # A table without one of the columns fails here with its name, instead of rejecting every row.
    discover_features(event.model_copy(update={"features": names}), sample)
    return names


def build_training_codec(settings: StreamSettings, names: tuple[str, ...], layout: Layout, label: str | None) -> Codec:
    """Return the codec of training events; the label, if there is one, takes the place of the event id."""
    event = settings.event if label is None else settings.event.model_copy(update={"id": label})
    return make_codec(event, names, layout=layout, max_future_us=to_us(settings.window.max_future))


def sample_batches(batches: list[RawBatch]) -> list[RawBatch]:
    """Return the first `SAMPLE_RECORDS` records of a partition."""
    sample: list[RawBatch] = []
    remaining = SAMPLE_RECORDS
    for batch in batches:
        if remaining <= 0:
            break
        sample.append(batch.head(remaining))
        remaining -= len(batch)
    return sample


class RejectionPreview:
    """Counts of rejected records before the features are known; nothing that is decoded here is used for a fit."""

    def __init__(
        self, settings: StreamSettings, layout: Layout, features: tuple[str, ...] | None, label: str | None
    ) -> None:
        self._settings = settings
        self._layout = layout
        self._features = features
        self._label = label
        self._n_counted = -1
        self._next_s = float("-inf")
        self._counts = RejectionCounts(settings.event, ())

    def count(self, batches: Sequence[RawBatch]) -> RejectionCounts:
        """Return the counts of these batches; for a short time those of an earlier call, since decoding takes time."""
        n = sum(map(len, batches))
        started_s = time.monotonic()
        if n == self._n_counted or started_s < self._next_s:
            return self._counts
        self._counts = self._decode(batches)
        self._n_counted = n
        self._next_s = time.monotonic() + _PREVIEW_PAUSE * (time.monotonic() - started_s)
        return self._counts

    def _decode(self, batches: Sequence[RawBatch]) -> RejectionCounts:
        event = self._settings.event
        sample = sample_batches(list(batches))
        try:
            names = find_features(event, sample, self._features, self._label) if sample else ()
        except ConfigError:
            names = ()
        if not names:
            return count_unparsable(event, batches)
        counts = RejectionCounts(event, names)
        codec = build_training_codec(self._settings, names, self._layout, self._label)
        for raw in batches:
            counts.add(raw, codec.decode(raw, time.time_ns() // 1_000).dead_letters)
        return counts
