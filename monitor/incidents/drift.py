"""What is said of a drift: the features or pairs in order, before and after, and what to do. Pure."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from config.time_format import format_utc
from config.units import format_duration
from monitor.incidents.drift_horizons import HorizonResult
from monitor.incidents.drift_test import recommend_action
from monitor.incidents.lifecycle import Finding, Kind, Severity
from monitor.statistics.drift_means import DriftStatistics
from storage.control.drift import DriftVerdictRow

_MAX_SUMMARY_STATISTICS = 3
_MAX_STORED_STATISTICS = 20
_CRITICAL_EFFECT = 1.0
"""A mean that moved by a whole training deviation is no longer a matter of the promise."""


def build_drift_finding(
    judged: Sequence[HorizonResult],
    statistics: DriftStatistics,
    *,
    model_version: int,
    config_hash: str,
    per_week: float,
) -> Finding | None:
    """Return the finding of the horizons that end at one time; None where none of them drifted.

    Args:
        judged: The judged horizons, short to long.
        statistics: Of the model.
        model_version: The model's.
        config_hash: Of the stream's settings.
        per_week: The promise.
    """
    drifted = [each for each in judged if each.verdict.drifted]
    if not drifted:
        return None
    # The shortest horizon tells best when; the others are in the details.
    first = drifted[0]
    advice = _recommend_action(first)
    largest = max(float(np.abs(each.verdict.effect[list(each.verdict.drifted)]).max()) for each in drifted)
    return Finding(
        kind=Kind.DRIFT,
        severity=Severity.CRITICAL if largest >= _CRITICAL_EFFECT else Severity.WARNING,
        summary=_describe_drift(first, statistics, advice),
        details={
            "advice": advice,
            "horizons": [_horizon_details(each, statistics) for each in drifted],
            "promise_per_week": per_week,
            "model_version": model_version,
            "config_hash": config_hash,
        },
    )


def build_verdict_rows(judged: HorizonResult, statistics: DriftStatistics) -> list[DriftVerdictRow]:
    """Return what drift_history keeps: all that drifted, to a bound, and the furthest statistic of each name."""
    z = np.abs(judged.verdict.z)
    furthest = [group.start + int(np.argmax(z[group])) for group in statistics.groups()]
    furthest.sort(key=lambda place: -z[place])
    places = [*judged.verdict.drifted[:_MAX_STORED_STATISTICS], *furthest]
    end_us = judged.horizon.start_us + judged.horizon_us
    return [
        DriftVerdictRow(
            horizon=format_horizon(judged.horizon_us),
            window_start_us=judged.horizon.start_us,
            window_end_us=end_us,
            statistic=statistics.statistic_at(place).name,
            feature=statistics.statistic_at(place).feature,
            before=_baseline_value(judged, place),
            after=float(judged.after[place]),
            effect=float(judged.verdict.effect[place]),
            z=float(judged.verdict.z[place]),
            limit=judged.verdict.z_threshold,
            drifted=place in judged.verdict.drifted,
        )
        for place in dict.fromkeys(places)
    ]


def format_horizon(horizon_us: int) -> str:
    """Return a horizon's length as the configuration writes it."""
    return format_duration(timedelta(microseconds=horizon_us))


def _baseline_value(judged: HorizonResult, place: int) -> float:
    """Return what was normal: the days before or the base, with what the base says that differences usually are."""
    offset = judged.baseline.baseline.mean[place] if judged.baseline.is_seasonal else 0.0
    return float(judged.before[place] + offset)


def _recommend_action(judged: HorizonResult) -> str:
    found = recommend_action(judged.body_z, judged.verdict.z_threshold, tail_fires=judged.horizon.has_spike)
    # Features moved, and neither body nor tail of the energies: the model does not see it, and should.
    return found or "drift: refit"


def _describe_drift(judged: HorizonResult, statistics: DriftStatistics, advice: str) -> str:
    places = judged.verdict.drifted
    named = "; ".join(_describe_change(judged, place, statistics) for place in places[:_MAX_SUMMARY_STATISTICS])
    more = f"; and {len(places) - _MAX_SUMMARY_STATISTICS} more" if len(places) > _MAX_SUMMARY_STATISTICS else ""
    compared = "the same time on days before" if judged.baseline.is_seasonal else "the first horizons after activation"
    return (
        f"over the {format_horizon(judged.horizon_us)} from {format_utc(judged.horizon.start_us)}: {named}{more} "
        f"(|z| up to {np.abs(judged.verdict.z[places[0]]):.1f}, limit {judged.verdict.z_threshold:.1f}, against {compared}); "
        f"{advice}"
    )


def _describe_change(judged: HorizonResult, place: int, statistics: DriftStatistics) -> str:
    """Return one change in words: typical values in the feature's own unit where there are any."""
    statistic = statistics.statistic_at(place)
    before, after = _baseline_value(judged, place), float(judged.after[place])
    own = [statistics.in_feature_units(place, value) for value in (before, after)]
    effect = f"{judged.verdict.effect[place]:+.2f} deviations"
    if own[0] is not None and own[1] is not None:
        subject = statistic.feature or "energy"
        return f"{subject} is typically {own[1]:.4g}, was {own[0]:.4g} ({effect})"
    return f"{statistic} is {after:.3g}, was {before:.3g} ({effect})"


def _horizon_details(judged: HorizonResult, statistics: DriftStatistics) -> dict[str, Any]:
    base = judged.baseline.baseline
    return {
        "horizon": format_horizon(judged.horizon_us),
        "window": {
            "start": format_utc(judged.horizon.start_us),
            "end": format_utc(judged.horizon.start_us + judged.horizon_us),
        },
        "events": judged.horizon.events,
        "drifted": [
            _statistic_details(judged, place, statistics) for place in judged.verdict.drifted[:_MAX_STORED_STATISTICS]
        ],
        "n_drifted": len(judged.verdict.drifted),
        "statistics": len(statistics),
        "limit": judged.verdict.z_threshold,
        "alpha": judged.alpha,
        "energy_body_z": judged.body_z,
        "spike_in_it": judged.horizon.has_spike,
        "base": {
            "against": "days before" if judged.baseline.is_seasonal else "base",
            "frozen_at": format_utc(judged.baseline.frozen_at_us),
            "horizons": base.blocks,
            "autocorrelation": base.rho,
            "effective_horizons": base.effective,
            "degrees_of_freedom": base.dof,
        },
    }


def _statistic_details(judged: HorizonResult, place: int, statistics: DriftStatistics) -> dict[str, Any]:
    statistic = statistics.statistic_at(place)
    before, after = _baseline_value(judged, place), float(judged.after[place])
    return {
        "statistic": statistic.name,
        "feature": statistic.feature or None,
        "before": before,
        "after": after,
        "before_value": statistics.in_feature_units(place, before),
        "after_value": statistics.in_feature_units(place, after),
        "effect": float(judged.verdict.effect[place]),
        "z": float(judged.verdict.z[place]),
    }
