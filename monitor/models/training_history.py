"""The history of training events by key, and the decision whether a model derives features from it. Pure functions."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from config.errors import ConfigError
from config.streams import EventSettings, StreamSettings
from consumers.batch import Partition, RawBatch, Table
from consumers.decoded_batch import Events
from consumers.source import Layout
from monitor.models.training_codec import build_training_codec
from monitor.statistics.key_history import PAUSE_FACTOR
from monitor.statistics.key_states import FieldHistory, KeyStates

MAX_PAUSE_VARIATION = 0.5
"""Largest coefficient of variation of the pauses of a key with regular arrival; that of a Poisson process is 1."""

MIN_PAUSES = 10
"""Smallest number of pauses of a key for a verdict on its arrival."""

MIN_PAUSE_US = 500_000
"""Smallest median pause of regular arrival. Faster events of one key are a flood of events, not a measurement."""

MIN_EVENTS_PER_INPUT = 25
"""Training events for each input of a model with derived features, of which each field has three.

With 400 events for 24 inputs (7 files of SKAB) derived features raised the AUROC, but lowered the recall of segments
from 6 to 4 of 7: the reference energies of so few events have no tail.
"""

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingHistory:
    """The history of training events.

    Attributes:
        context: Changes, movements and first weights of all fields, (n, 3 D).
        derived: Indices of the fields that features are derived of.
    """

    context: Float64
    derived: tuple[int, ...]

    def select(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> "TrainingHistory":
        """Return the history of some of the events."""
        return replace(self, context=self.context[rows])


def find_history(partitions: Sequence[Events], event: EventSettings, names: Sequence[str]) -> TrainingHistory | None:
    """Return the history of training events, in the order of the partitions; None if no feature is derived.

    Each partition begins without states, as in the daemon at the first event of a log.

    Args:
        partitions: The events of each partition, in the order of offsets.
        event: The settings of the events.
        names: The D fields.

    Raises:
        ConfigError: `event.derive` names a field that is no feature.
    """
    derived = find_derived_fields(partitions, event, names)
    if not derived or not partitions:
        return None
    step = FieldHistory(n_fields=len(names))
    contexts = []
    for events in partitions:
        keys = [None] * len(events) if events.keys is None else events.keys
        states = KeyStates.empty(step.width)
        contexts.append(states.advance(keys, events.offsets, events.times_us, events.features, step)[0])
    return TrainingHistory(context=np.concatenate(contexts), derived=derived)


def split_history(
    events: NDArray[np.floating], n_fields: int, derived: tuple[int, ...]
) -> tuple[NDArray[np.floating], TrainingHistory | None]:
    """Return the raw fields of sampled events, (n, D), and their history; None if they have none.

    Args:
        events: Events as the fold stores samples of them, (n, D) or (n, 4 D).
        n_fields: D.
        derived: Indices of the fields that features are derived of.
    """
    if not derived or events.shape[1] == n_fields:
        return events[:, :n_fields], None
    return events[:, :n_fields], TrainingHistory(context=events[:, n_fields:].astype(np.float64), derived=derived)


def find_derived_fields(partitions: Sequence[Events], event: EventSettings, names: Sequence[str]) -> tuple[int, ...]:
    """Return the indices of the fields that features are derived of, by `event.derive`.

    Raises:
        ConfigError: It names a field that is no feature.
    """
    if event.derive == "none":
        return ()
    if event.derive != "auto":
        unknown = [name for name in event.derive if name not in names]
        if unknown:
            raise ConfigError(f"event.derive: {', '.join(unknown)} is not among the features {', '.join(names)}")
        return tuple(place for place, name in enumerate(names) if name in event.derive)
    enough = sum(map(len, partitions)) >= MIN_EVENTS_PER_INPUT * 3 * len(names)
    return tuple(range(len(names))) if enough and is_regular(partitions) else ()


def arrives_regularly(batches: Sequence[RawBatch], settings: StreamSettings, names: Sequence[str]) -> bool:
    """Return whether the events in a sample of records arrive regularly by key, so that `derive: auto` has an effect.

    Args:
        batches: Consecutive records of each partition, from the first.
        settings: The settings of the stream, with its time and key.
        names: The features.
    """
    pieces: dict[Partition, list[Events]] = {}
    for raw in batches:
        layout: Layout = "table" if isinstance(raw.values, Table) else "lines"
        codec = build_training_codec(settings, tuple(names), layout, None)
        pieces.setdefault(raw.partition, []).append(codec.decode(raw, time.time_ns() // 1_000).events)
    return bool(pieces) and is_regular([Events.concat(each) for each in pieces.values()])


def is_regular(partitions: Sequence[Events]) -> bool:
    """Return whether most events are of keys whose events arrive at regular intervals of event time."""
    total = sum(map(len, partitions))
    keys = (times_us for events in partitions for times_us in _split_by_key(events))
    return 2 * sum(len(times_us) for times_us in keys if _has_regular_pauses(times_us)) > total


def _split_by_key(events: Events) -> list[Int64]:
    """Return the times of the events of each key, in the order of offsets."""
    if events.keys is None:
        return [events.times_us]
    places: dict[str | None, int] = {}
    rows = np.fromiter((places.setdefault(key, len(places)) for key in events.keys), np.int64, len(events))
    order = np.argsort(rows, kind="stable")
    return np.split(events.times_us[order], np.flatnonzero(np.diff(rows[order])) + 1)


def _has_regular_pauses(times_us: Int64) -> bool:
    """Return whether pauses vary by less than half of their mean; pauses after which a history begins anew are gaps."""
    pauses = np.diff(times_us)
    if len(pauses) < MIN_PAUSES:
        return False
    median = float(np.median(pauses))
    if median < MIN_PAUSE_US:
        return False
    usual = pauses[pauses <= PAUSE_FACTOR * median]
    return bool(usual.std() < MAX_PAUSE_VARIATION * usual.mean())
