"""The distributions that the drift step stores and tells: of training, of new baselines, and around a drift."""

from collections.abc import Sequence

import numpy as np

from monitor.control_plane.stores import DriftStoreProtocol
from monitor.incidents.drift_horizons import HorizonResult
from monitor.incidents.drift_test import CYCLES_US
from monitor.incidents.drift_values import DriftValues, distribution_of, distribution_of_summary, is_sufficient
from monitor.models.scoring import LoadedModel
from monitor.statistics.feature_histograms import encode_quantiles, to_quantiles
from storage.control.drift import DriftBaselineRow
from storage.control.drift_cells import FeatureSummaryRow


def read_values(store: DriftStoreProtocol, stream_id: int, model: LoadedModel, result: HorizonResult) -> DriftValues:
    """Return the values of the features before and in a drifted horizon, as far as samples of them are stored."""
    model_id, names = model.record.id, model.record.feature_names
    from_us, until_us = result.before_us
    before = None
    if result.horizon_us not in CYCLES_US:
        before = distribution_of_summary(store.base_summary(model_id, result.horizon_us, from_us))
    if before is None:
        before = distribution_of(store.spread_samples(stream_id, model_id, from_us, until_us), len(names))
    samples = store.spread_samples(stream_id, model_id, result.horizon.start_us, result.end_us)
    after = distribution_of(samples, len(names))
    return DriftValues(
        names=names,
        before=before if is_sufficient(before) else None,
        after=after if is_sufficient(after) else None,
    )


def summarise_training(model: LoadedModel) -> FeatureSummaryRow | None:
    """Return the distribution of the fields among the training events; None for a model without a profile."""
    if model.training_profile is None:
        return None
    return FeatureSummaryRow(
        model_id=model.record.id,
        kind="training",
        horizon_us=0,
        from_us=0,
        until_us=0,
        sampled=int(model.record.summary.get("events", 0)),
        payload=encode_quantiles(model.training_profile.features.edges.astype(np.float64)),
    )


def summarise_bases(
    store: DriftStoreProtocol, stream_id: int, model: LoadedModel, baselines: Sequence[DriftBaselineRow]
) -> list[FeatureSummaryRow]:
    """Return the distribution of the fields in each new baseline of which samples are stored."""
    rows = []
    for baseline in baselines:
        samples = store.spread_samples(stream_id, model.record.id, baseline.from_us, baseline.until_us)
        found = distribution_of(samples, len(model.record.feature_names))
        if found is None:
            continue
        rows.append(
            FeatureSummaryRow(
                model_id=model.record.id,
                kind="base",
                horizon_us=baseline.horizon_us,
                from_us=baseline.from_us,
                until_us=baseline.until_us,
                sampled=found.sampled,
                payload=encode_quantiles(to_quantiles(found)),
            )
        )
    return rows
