"""Training events from the stored samples of windows. Pure functions.

Each sampled event of a window stands for (events of the window) / (sampled events of it). Events of windows with an
incident are left out; those above the threshold in other windows are not: a fit on events below a threshold would
narrow the model with each repetition.
"""

from collections.abc import Collection, Sequence

import numpy as np

from monitor.models.training_history import split_history
from monitor.models.training_set import TrainingSet
from monitor.statistics.event_sample import MAX_SAMPLED_EVENTS, EventSample, decode_sample
from storage.control.models import ModelRecord
from storage.control.samples import StoredSample

MAX_EQUAL_RATIO = 1.05
"""Weights whose largest is at most this multiple of the smallest count as equal."""


def min_sampled_events(n_features: int) -> int:
    """Return the number of sampled events from which a model is fitted on them instead of on events of the source."""
    return max(400, 20 * n_features)


def derived_fields(model: ModelRecord) -> tuple[int, ...]:
    """Return the indices of the fields that a stored model derives features of."""
    derive = model.summary.get("derive", "none")
    return () if isinstance(derive, str) else tuple(model.feature_names.index(name) for name in derive)


def select_samples(
    samples: Sequence[StoredSample], excluded: Sequence[tuple[int, int]], model_ids: Collection[int]
) -> list[StoredSample]:
    """Return the samples of windows that overlap no excluded interval and were scored by one of the models.

    Args:
        samples: The samples, in the order of their windows.
        excluded: Intervals [start, end) of event time.
        model_ids: The models whose features are those of the model to fit. The sample of another model has other
            columns: a changed selection or derivation of features begins to collect samples anew.
    """
    return [
        sample
        for sample in samples
        if sample.model_id in model_ids
        and not any(
            sample.window_start_us < end_us and sample.window_end_us > start_us for start_us, end_us in excluded
        )
    ]


def build_training_set(
    samples: Sequence[StoredSample], names: tuple[str, ...], *, derived: tuple[int, ...] = (), last: int | None = None
) -> TrainingSet:
    """Return the sampled events in the order of event time, `MAX_SAMPLED_EVENTS` or little more.

    Args:
        samples: The samples of windows.
        names: The feature names of the samples.
        derived: Indices of the fields that the model derives features of; samples without a history are left out then.
        last: The number of newest events to use; None for all.
    """
    pairs = [(sample, decode_sample(sample.payload)) for sample in samples]
    if derived:
        pairs = [(sample, each) for sample, each in pairs if each.features.shape[1] > len(names)]
    all_events = [each for _, each in pairs]
    ratio = MAX_SAMPLED_EVENTS / max(sum(map(len, all_events)), 1)
    decoded = [_keep_first(each, ratio) for each in all_events]
    if not decoded:
        return TrainingSet(features=np.empty((0, len(names))), names=names, rejected=0, exhausted=True)
    stands_for = [sample.events / len(each) for (sample, _), each in zip(pairs, decoded, strict=True)]
    hashes = np.concatenate([each.hashes for each in decoded])
    times_us = np.concatenate([each.times_us for each in decoded])
    width = max(each.features.shape[1] for each in decoded) if derived else len(names)
    features = np.concatenate([each.features[:, :width] for each in decoded])
    weights = np.repeat(stands_for, [len(each) for each in decoded])
    order = np.lexsort((hashes, times_us))
    if last is not None:
        order = order[-last:]
    own = weights[order]
    is_equal = own.max() <= MAX_EQUAL_RATIO * own.min()
    fields, history = split_history(np.ascontiguousarray(features[order]), len(names), derived)
    return TrainingSet(
        features=np.ascontiguousarray(fields),
        names=names,
        rejected=0,
        exhausted=True,
        history=history,
        weights=None if is_equal else own,
    )


def _keep_first(sample: EventSample, ratio: float) -> EventSample:
    """Return the sample of the smallest hashes, at least one event: it is uniform as well."""
    if ratio >= 1:
        return sample
    kept = max(int(ratio * len(sample)), 1)
    return EventSample(
        capacity=kept,
        hashes=sample.hashes[:kept],
        times_us=sample.times_us[:kept],
        features=sample.features[:kept],
    )
