"""Histograms of the features of a stream in training, before and in a horizon, from stored samples and quantiles."""

from collections.abc import Sequence

from config.time_format import DAY_US, WEEK_US
from monitor.incidents.drift_values import distribution_of, distribution_of_summary
from monitor.statistics.feature_histograms import FeatureHistogram, compare
from storage.control.drift_cells import FeatureSummaryRow
from storage.control.samples import StoredSample, read_spread_samples
from storage.database.engine import Database
from storage.queries.feature_histograms import (
    find_sampled_model,
    read_summaries,
)

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
        after = read_spread_samples(conn, stream_id, model.model_id, from_us=from_us, until_us=until_us)
        summaries = read_summaries(conn, model.model_id)
        base = _find_base(summaries, horizon_us, until_us)
        before: Sequence[StoredSample] = ()
        if base is None:
            length_us = (until_us - from_us) * (_BASE_CYCLES if horizon_us in _CYCLES_US else 1)
            before = read_spread_samples(conn, stream_id, model.model_id, from_us=from_us - length_us, until_us=from_us)
    if not after:
        return []
    training = next((each for each in summaries if each.kind == "training"), None)
    return compare(
        model.feature_names,
        training=distribution_of_summary(training),
        before=distribution_of(before, len(model.feature_names)) if base is None else distribution_of_summary(base),
        after=distribution_of(after, len(model.feature_names)),
    )


def _find_base(
    summaries: Sequence[FeatureSummaryRow], horizon_us: int | None, until_us: int
) -> FeatureSummaryRow | None:
    """Return the newest base of a horizon that was frozen before a time; None for cycles and other intervals."""
    bases = [each for each in summaries if each.kind == "base" and each.horizon_us == horizon_us]
    return next((each for each in reversed(bases) if each.until_us <= until_us), None)
