"""What is said of a drift: the features or pairs in order, before and after, and what to do. Pure."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from config.units import format_duration
from monitor.drift import advise
from monitor.drifts.drift_statistics import Statistics
from monitor.findings.drifting import Judged
from monitor.findings.lives import when
from monitor.incidents import Finding, Kind, Severity
from storage.drift import VerdictRow

_NAMED = 3
_KEPT = 20
_CRITICAL_EFFECT = 1.0
"""A mean that moved by a whole training deviation is no longer a matter of the promise."""


def drift_finding(
    judged: Sequence[Judged], statistics: Statistics, *, model_version: int, config_hash: str, per_week: float
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
    advice = _advice(first)
    largest = max(float(np.abs(each.verdict.effect[list(each.verdict.drifted)]).max()) for each in drifted)
    return Finding(
        kind=Kind.DRIFT,
        severity=Severity.CRITICAL if largest >= _CRITICAL_EFFECT else Severity.WARNING,
        summary=_summary(first, statistics, advice),
        details={
            "advice": advice,
            "horizons": [_horizon(each, statistics) for each in drifted],
            "promise_per_week": per_week,
            "model_version": model_version,
            "config_hash": config_hash,
        },
    )


def verdict_rows(judged: Judged, statistics: Statistics) -> list[VerdictRow]:
    """Return what drift_history keeps: all that drifted, to a bound, and the furthest statistic of each name."""
    z = np.abs(judged.verdict.z)
    furthest = [group.start + int(np.argmax(z[group])) for group in statistics.groups()]
    furthest.sort(key=lambda place: -z[place])
    places = [*judged.verdict.drifted[:_KEPT], *furthest]
    end_us = judged.horizon.start_us + judged.horizon_us
    return [
        VerdictRow(
            horizon=length_of(judged.horizon_us),
            window_start_us=judged.horizon.start_us,
            window_end_us=end_us,
            statistic=statistics.named(place).name,
            feature=statistics.named(place).feature,
            before=_before(judged, place),
            after=float(judged.after[place]),
            effect=float(judged.verdict.effect[place]),
            z=float(judged.verdict.z[place]),
            limit=judged.verdict.limit,
            drifted=place in judged.verdict.drifted,
        )
        for place in dict.fromkeys(places)
    ]


def length_of(horizon_us: int) -> str:
    """Return a horizon's length as the configuration writes it."""
    return format_duration(timedelta(microseconds=horizon_us))


def _before(judged: Judged, place: int) -> float:
    """Return what was normal: the days before or the base, with what the base says that differences usually are."""
    offset = judged.frozen.base.mean[place] if judged.frozen.season else 0.0
    return float(judged.before[place] + offset)


def _advice(judged: Judged) -> str:
    found = advise(judged.body_z, judged.verdict.limit, tail_fires=judged.horizon.fired)
    # Features moved, and neither body nor tail of the energies: the model does not see it, and should.
    return found or "drift: refit"


def _summary(judged: Judged, statistics: Statistics, advice: str) -> str:
    places = judged.verdict.drifted
    named = "; ".join(_phrase(judged, place, statistics) for place in places[:_NAMED])
    more = f"; and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    compared = "the same time on days before" if judged.frozen.season else "the first horizons after activation"
    return (
        f"over the {length_of(judged.horizon_us)} from {when(judged.horizon.start_us)}: {named}{more} "
        f"(|z| up to {np.abs(judged.verdict.z[places[0]]):.1f}, limit {judged.verdict.limit:.1f}, against {compared}); "
        f"{advice}"
    )


def _phrase(judged: Judged, place: int, statistics: Statistics) -> str:
    """Return one change in words: typical values in the feature's own unit where there are any."""
    statistic = statistics.named(place)
    before, after = _before(judged, place), float(judged.after[place])
    own = [statistics.in_own_unit(place, value) for value in (before, after)]
    effect = f"{judged.verdict.effect[place]:+.2f} deviations"
    if own[0] is not None and own[1] is not None:
        subject = statistic.feature or "energy"
        return f"{subject} is typically {own[1]:.4g}, was {own[0]:.4g} ({effect})"
    return f"{statistic} is {after:.3g}, was {before:.3g} ({effect})"


def _horizon(judged: Judged, statistics: Statistics) -> dict[str, Any]:
    base = judged.frozen.base
    return {
        "horizon": length_of(judged.horizon_us),
        "window": {
            "start": when(judged.horizon.start_us),
            "end": when(judged.horizon.start_us + judged.horizon_us),
        },
        "events": judged.horizon.events,
        "drifted": [_statistic(judged, place, statistics) for place in judged.verdict.drifted[:_KEPT]],
        "n_drifted": len(judged.verdict.drifted),
        "statistics": len(statistics),
        "limit": judged.verdict.limit,
        "alpha": judged.alpha,
        "energy_body_z": judged.body_z,
        "spike_in_it": judged.horizon.fired,
        "base": {
            "against": "days before" if judged.frozen.season else "base",
            "frozen_at": when(judged.frozen.until_us),
            "horizons": base.blocks,
            "autocorrelation": base.rho,
            "effective_horizons": base.effective,
            "degrees_of_freedom": base.dof,
        },
    }


def _statistic(judged: Judged, place: int, statistics: Statistics) -> dict[str, Any]:
    statistic = statistics.named(place)
    before, after = _before(judged, place), float(judged.after[place])
    return {
        "statistic": statistic.name,
        "feature": statistic.feature or None,
        "before": before,
        "after": after,
        "before_value": statistics.in_own_unit(place, before),
        "after_value": statistics.in_own_unit(place, after),
        "effect": float(judged.verdict.effect[place]),
        "z": float(judged.verdict.z[place]),
    }
