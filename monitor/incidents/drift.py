"""The finding of a drift: the changed features or pairs in order, before and after, and the advice. Pure functions."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from config.time_format import format_utc
from config.units import format_duration
from monitor.incidents.drift_horizons import HorizonResult
from monitor.incidents.drift_test import recommend_action
from monitor.incidents.drift_text import describe_changes, summarise_change
from monitor.incidents.drift_values import DriftValues
from monitor.incidents.lifecycle import Finding, Kind, Severity
from monitor.statistics.drift_means import DriftStatistics
from storage.control.drift import DriftVerdictRow
from storage.control.drift_cells import DriftCellsRow, encode_cells

_MAX_SUMMARY_STATISTICS = 3
_MAX_STORED_STATISTICS = 20
_MAX_HISTOGRAMS = 8
_CRITICAL_EFFECT = 1.0
"""Effect, in training standard deviations, from which a drift is critical for any false-alarm budget."""


def build_drift_finding(
    results: Sequence[HorizonResult],
    statistics: DriftStatistics,
    *,
    model_version: int,
    config_hash: str,
    per_week: float,
    values: Sequence[DriftValues] = (),
) -> Finding | None:
    """Return the finding of the drifted horizons that end at one time, or None without one.

    Args:
        results: The results to tell, shortest horizon first.
        statistics: Statistics of the model.
        model_version: Version of the model.
        config_hash: Hash of the stream's settings.
        per_week: False-alarm budget per week.
        values: The values of the features before and in the horizon of each result; empty if they are not known.
    """
    known = dict(zip((id(each) for each in results), values, strict=False))
    drifted = [each for each in results if each.verdict.drifted]
    if not drifted:
        return None
    # The shortest horizon gives the most accurate start of the drift. The others are in the details.
    shortest = drifted[0]
    advice = _recommend_action(shortest)
    largest = max(float(np.abs(each.verdict.effect[list(each.verdict.drifted)]).max()) for each in drifted)
    return Finding(
        kind=Kind.DRIFT,
        severity=Severity.CRITICAL if largest >= _CRITICAL_EFFECT else Severity.WARNING,
        summary=_describe_drift(shortest, statistics, advice, known.get(id(shortest))),
        details={
            "advice": advice,
            "horizons": [_horizon_details(each, statistics, known.get(id(each))) for each in drifted],
            "promise_per_week": per_week,
            "model_version": model_version,
            "config_hash": config_hash,
        },
    )


def build_verdict_rows(result: HorizonResult, statistics: DriftStatistics) -> list[DriftVerdictRow]:
    """Return the rows of drift_history: the drifted statistics up to a bound, and the largest |z| of each name."""
    z = np.abs(result.verdict.z)
    furthest = [group.start + int(np.argmax(z[group])) for group in statistics.groups()]
    furthest.sort(key=lambda index: -z[index])
    indices = [*result.verdict.drifted[:_MAX_STORED_STATISTICS], *furthest]
    return [
        DriftVerdictRow(
            horizon=format_horizon(result.horizon_us),
            window_start_us=result.horizon.start_us,
            window_end_us=result.end_us,
            statistic=statistics.statistic_at(index).name,
            feature=statistics.statistic_at(index).feature,
            before=float(result.before[index]),
            after=float(result.after[index]),
            effect=float(result.verdict.effect[index]),
            z=float(result.verdict.z[index]),
            limit=result.verdict.z_threshold,
            drifted=index in result.verdict.drifted,
        )
        for index in dict.fromkeys(indices)
    ]


def build_cells(result: HorizonResult, statistics: DriftStatistics, model_id: int) -> DriftCellsRow:
    """Return the row of all statistics of a tested horizon."""
    verdict = result.verdict
    return DriftCellsRow(
        horizon_us=result.horizon_us,
        window_start_us=result.horizon.start_us,
        window_end_us=result.end_us,
        model_id=model_id,
        names=[(each.name, each.feature) for each in statistics.all_statistics],
        limit=verdict.z_threshold,
        payload=encode_cells(verdict.z, verdict.effect, result.before, result.after),
    )


def format_horizon(horizon_us: int) -> str:
    """Return the length of a horizon as the configuration writes it."""
    return format_duration(timedelta(microseconds=horizon_us))


def _recommend_action(result: HorizonResult) -> str:
    action = recommend_action(result.body_z, result.verdict.z_threshold, tail_fires=result.horizon.has_spike)
    # Features moved, but neither body nor tail of the energies: the model misses the change and needs a refit.
    return action or "drift: refit"


def _describe_drift(result: HorizonResult, statistics: DriftStatistics, advice: str, values: DriftValues | None) -> str:
    indices = result.verdict.drifted
    clauses = list(describe_changes(indices, result.before, result.after, result.verdict.effect, statistics, values))
    named = "; ".join(clauses[:_MAX_SUMMARY_STATISTICS])
    more = f"; and {len(clauses) - _MAX_SUMMARY_STATISTICS} more" if len(clauses) > _MAX_SUMMARY_STATISTICS else ""
    return (
        f"over the {format_horizon(result.horizon_us)} from {format_utc(result.horizon.start_us)}: {named}{more} "
        f"(|z| up to {np.abs(result.verdict.z[indices[0]]):.1f}, limit {result.verdict.z_threshold:.1f}, "
        f"against {result.compared}); {advice}"
    )


def _horizon_details(result: HorizonResult, statistics: DriftStatistics, values: DriftValues | None) -> dict[str, Any]:
    return {
        "horizon": format_horizon(result.horizon_us),
        "window": {
            "start": format_utc(result.horizon.start_us),
            "end": format_utc(result.end_us),
        },
        "events": result.horizon.events,
        "drifted": [
            _statistic_details(result, index, statistics, values)
            for index in result.verdict.drifted[:_MAX_STORED_STATISTICS]
        ],
        "histograms": _histograms(result, statistics, values),
        "n_drifted": len(result.verdict.drifted),
        "statistics": len(statistics),
        "limit": result.verdict.z_threshold,
        "alpha": result.alpha,
        "energy_body_z": result.body_z,
        "spike_in_it": result.horizon.has_spike,
        "threshold_raised": result.raised,
        "base": dict(result.base),
    }


def _histograms(
    result: HorizonResult, statistics: DriftStatistics, values: DriftValues | None
) -> dict[str, dict[str, Any]]:
    """Return the histograms of the drifted features before and in the horizon, by name: they outlive the samples."""
    if values is None:
        return {}
    drifted = [statistics.statistic_at(index) for index in result.verdict.drifted[:_MAX_STORED_STATISTICS]]
    features = dict.fromkeys(each.feature for each in drifted if each.name in {"rank", "spread"})
    found = {feature: values.histogram(feature) for feature in list(features)[:_MAX_HISTOGRAMS]}
    return {feature: histogram for feature, histogram in found.items() if histogram is not None}


def _statistic_details(
    result: HorizonResult, index: int, statistics: DriftStatistics, values: DriftValues | None
) -> dict[str, Any]:
    statistic = statistics.statistic_at(index)
    before, after = float(result.before[index]), float(result.after[index])
    return {
        "statistic": statistic.name,
        "feature": statistic.feature or None,
        "before": before,
        "after": after,
        "before_value": statistics.in_feature_units(index, before),
        "after_value": statistics.in_feature_units(index, after),
        "effect": float(result.verdict.effect[index]),
        "z": float(result.verdict.z[index]),
    } | summarise_change(index, result.before, result.after, statistics, values)
