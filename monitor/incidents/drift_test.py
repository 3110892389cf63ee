"""Drift: a lasting change of bounded statistics of the stream against the stream's own frozen past. Pure.

A statistic is a running mean that merges over windows: mean ranks among the training values and mean squared distances
of the ranks from the middle (per feature and for the energy), component occupancies, clipped products of pairs of
standardised features. Means over one horizon are compared with the base, earlier means over the same horizon: what
they vary by, slow waves included, is what is normal. The predictive t says how far the next one may lie away.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from config.time_format import DAY_US, WEEK_US
from monitor.statistics.part import Float64, Int64

MIN_BASELINE_HORIZONS = 30
"""Horizons in a base before there is a verdict: below it the autocorrelation is not known well enough."""

MAX_AUTOCORRELATION = 0.95
"""Autocorrelation beyond which more blocks tell nothing more; the estimate is cut here."""

MIN_EVENT_SHARE = 0.5
"""Share of the base's typical number of events that a horizon needs: fewer events make a mean vary more."""

SEASON_DAYS = 2
"""Days before whose same time of day is subtracted; a fixed number, so that all differences vary alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftBaseline:
    """What J statistics are and vary by over one horizon; frozen when the model is activated.

    `effective` is the number of independent blocks in the base's mean, `dof` in its variance.
    """

    mean: Float64
    deviation: Float64
    blocks: int
    rho: float
    effective: float
    dof: float
    typical_events: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftVerdict:
    """The judgement of one horizon: z and effect of each statistic; `drifted` names those beyond, largest |z| first."""

    z: Float64
    effect: Float64
    z_threshold: float
    drifted: tuple[int, ...]


def horizon_false_alarm_probability(per_week: float, horizon_us: int, *, horizons: int, share: float = 0.25) -> float:
    """Return the probability of a false alarm that one horizon may spend, all statistics of it together.

    Args:
        per_week: Promised false alarms a week of the whole stream.
        horizon_us: Length of the horizon.
        horizons: Number of horizons that share the budget.
        share: Of the promise that drift may spend.
    """
    if not (per_week > 0 and horizon_us > 0 and horizons > 0 and 0 < share <= 1):
        raise ValueError(f"no budget from {per_week} a week, {horizons} horizons and a share of {share}")
    return min(per_week * share * horizon_us / WEEK_US / horizons, 0.5)


def earliest_verdict_us(horizon_us: int) -> int:
    """Return how long after a model became active there is a verdict at the earliest."""
    return max(DAY_US, MIN_BASELINE_HORIZONS * horizon_us)


def baseline_problem(starts_us: Int64, *, horizon_us: int) -> str | None:
    """Say why a base has no verdict yet; None where it has.

    A base shorter than a day takes the time of day for a drift, whatever the number of its horizons.
    """
    blocks = len(starts_us)
    span_us = int(starts_us[-1] - starts_us[0]) + horizon_us if blocks else 0
    if span_us < DAY_US:
        return f"the base spans {span_us / 3600e6:.1f} of the 24 hours that a verdict needs"
    if blocks < MIN_BASELINE_HORIZONS:
        return f"the base has {blocks} of the {MIN_BASELINE_HORIZONS} horizons that a verdict needs"
    return None


def fit_baseline(means: Float64, events: Int64, units: Float64) -> DriftBaseline:
    """Learn what is normal from the means of consecutive horizons.

    The lag-1 autocorrelation is pooled over the statistics, which steadies it, and corrected for its bias
    (Kendall 1954); the effective numbers are those of an autoregression of first order (Bayley and Hammersley 1946).

    Args:
        means: (W, J), in the order of time.
        events: Events of each horizon.
        units: Training deviation of one event in each statistic, (J,).

    Raises:
        ValueError: There are fewer than ten horizons.
    """
    blocks = len(means)
    if blocks < 10:
        raise ValueError(f"a base needs ten horizons at least, not {blocks}")
    mean = means.mean(axis=0)
    centred = means - mean
    rho = _pooled_autocorrelation(centred)
    effective = blocks * (1 - rho) / (1 + rho)
    # With strong autocorrelation the whole base may be worth little more than one block.
    shrink = 1 - 1 / max(effective, 1.5)
    return DriftBaseline(
        mean=mean,
        # A statistic that never varied (a constant feature) still must not divide by zero.
        deviation=np.maximum(np.sqrt((centred**2).mean(axis=0) / shrink), 1e-6 * units),
        blocks=blocks,
        rho=rho,
        effective=effective,
        dof=max(blocks * (1 - rho**2) / (1 + rho**2) - 1, 1.0),
        typical_events=float(np.median(events)),
    )


def _pooled_autocorrelation(centred: Float64) -> float:
    blocks = len(centred)
    square = (centred**2).sum(axis=0)
    varies = square > 0
    if not varies.any():
        return 0.0
    found = float(((centred[1:] * centred[:-1]).sum(axis=0)[varies] / square[varies]).mean())
    return float(np.clip((blocks * found + 1) / (blocks - 3), 0.0, MAX_AUTOCORRELATION))


def judge_drift(
    base: DriftBaseline, current: Float64, events: int, units: Float64, *, alpha: float, min_effect: float
) -> DriftVerdict | None:
    """Judge the means of one horizon; None where it has too few events to be compared.

    Args:
        base: Of the same horizon.
        current: Mean of each statistic, (J,).
        events: Events of the horizon.
        units: Training deviation of one event in each statistic, (J,).
        alpha: From `horizon_budget`.
        min_effect: Smallest change worth telling, in those units.
    """
    if events < MIN_EVENT_SHARE * base.typical_events:
        return None
    moved = current - base.mean
    z = moved / (base.deviation * np.sqrt(1 + 1 / base.effective))
    effect = moved / units
    limit = float(special.stdtrit(base.dof, 1 - alpha / (2 * len(z))))
    beyond = np.flatnonzero((np.abs(z) > limit) & (np.abs(effect) >= min_effect))
    order = beyond[np.argsort(-np.abs(z[beyond]), kind="stable")]
    return DriftVerdict(z=z, effect=effect, z_threshold=limit, drifted=tuple(order.tolist()))


def recommend_action(body_z: float, body_limit: float, *, tail_fires: bool) -> str | None:
    """Say what to do: `refit` where the body of the energies moved, `keep the limit` where only the tail is heavy."""
    if abs(body_z) > body_limit:
        return "drift: refit"
    return "spike: keep the limit" if tail_fires else None
