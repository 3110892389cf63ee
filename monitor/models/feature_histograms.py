"""Histograms of the features of a stream in training, before and in a horizon, from stored samples and quantiles."""

from collections.abc import Sequence

import numpy as np

from config.time_format import DAY_US, WEEK_US
from monitor.statistics.event_sample import decode_sample
from monitor.statistics.feature_histograms import (
    Distribution,
    FeatureHistogram,
    compare,
    decode_quantiles,
    from_quantiles,
    from_sample,
)
from storage.control.samples import StoredSample
from storage.database.engine import Database
from storage.queries.feature_histograms import (
    FeatureSummary,
    SampledModel,
    find_sampled_model,
    read_spread_samples,
    read_summaries,
)

MAX_WINDOWS = 300
"""Number of windows of one side whose samples are read; of more, every n-th."""

_BASE_CYCLES = 7
_CYCLES_US = (DAY_US, WEEK_US)


def load_feature_histograms(
    db: Database, stream_id: int, *, from_us: int, until_us: int, horizon_us: int | None = None
) -> list[FeatureHistogram]:
    """Return the histogram of each feature of the model, empty without sampled windows in the time.

    Args:
        db: The database.
        stream_id: The stream.
        from_us: Start of the horizon, or of any other interval of event time.
        until_us: Its end.
        horizon_us: Nominal length of a tested horizon. `before` is then the time that it is compared with: the frozen
            base of the horizon, or the seven days or weeks before. None: an interval of the same length before.
    """
    with db.read() as conn:
        model = find_sampled_model(conn, stream_id, until_us)
        if model is None:
            return []
        after = read_spread_samples(
            conn, stream_id, model.model_id, from_us=from_us, until_us=until_us, most=MAX_WINDOWS
        )
        summaries = read_summaries(conn, model.model_id)
        base = _find_base(summaries, horizon_us, until_us)
        before: Sequence[StoredSample] = ()
        if base is None:
            length_us = (until_us - from_us) * (_BASE_CYCLES if horizon_us in _CYCLES_US else 1)
            before = read_spread_samples(
                conn, stream_id, model.model_id, from_us=from_us - length_us, until_us=from_us, most=MAX_WINDOWS
            )
    if not after:
        return []
    training = next((each for each in summaries if each.kind == "training"), None)
    return compare(
        model.feature_names,
        training=_from_summary(training),
        before=_from_samples(before, model) if base is None else _from_summary(base),
        after=_from_samples(after, model),
    )


def _find_base(summaries: Sequence[FeatureSummary], horizon_us: int | None, until_us: int) -> FeatureSummary | None:
    """Return the newest base of a horizon that was frozen before a time; None for cycles and other intervals."""
    bases = [each for each in summaries if each.kind == "base" and each.horizon_us == horizon_us]
    return next((each for each in reversed(bases) if each.until_us <= until_us), None)


def _from_summary(summary: FeatureSummary | None) -> Distribution | None:
    return None if summary is None else from_quantiles(decode_quantiles(summary.payload), summary.sampled)


def _from_samples(samples: Sequence[StoredSample], model: SampledModel) -> Distribution | None:
    """Return the distribution of the sampled events; each stands for the events of its window that were not sampled."""
    pairs = [(sample.events, decode_sample(sample.payload)) for sample in samples]
    pairs = [(events, sample) for events, sample in pairs if len(sample)]
    if not pairs:
        return None
    # Behind the fields follows the history of their keys, if the stream derives features.
    fields = np.concatenate([sample.features[:, : len(model.feature_names)] for _, sample in pairs])
    weights = np.repeat([events / len(sample) for events, sample in pairs], [len(sample) for _, sample in pairs])
    return from_sample(fields, weights)
