"""The statistical test for drift: statistics of the stream compared with a frozen baseline. Pure functions.

The statistics are means that merge over windows:

* the mean rank among the training values, of each feature and of the energy,
* the mean squared distance of the rank from the middle, of each feature and of the energy,
* the component occupancies,
* the clipped products of pairs of standardised features.

The means over one horizon are compared with the baseline, which consists of earlier means over horizons of this length.
The variation of the baseline, slow variation included, is normal. A predictive t distribution gives the range of the
next mean.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special

from config.time_format import DAY_US, WEEK_US
from monitor.statistics.part import Float64, Int64

CYCLES_US = (DAY_US, WEEK_US)
"""The lengths of a cycle. Horizons of these lengths are local days and weeks, with a test of their own."""

FIRST_VERDICT_CYCLES = 10
"""The whole cycle since the start of the base that has the first verdict."""

MIN_BASELINE_HORIZONS = 30
"""Minimum number of horizons in a baseline. With fewer, the autocorrelation is too uncertain."""

MAX_AUTOCORRELATION = 0.95
"""Upper bound of the estimated autocorrelation. Beyond it, more horizons carry almost no information."""

MIN_EVENT_SHARE = 0.5
"""Minimum number of events of a horizon, as a share of the baseline's typical number. Fewer events vary more."""

DEPENDENCE_LEVEL = 0.05
"""Probability that independent horizons count as dependent ones."""

MIN_EFFECTIVE_HORIZONS = 30
"""Minimum number of independent horizons in a baseline.

The means of a day with a season, or of a level that wanders, are worth few independent ones: of 24 hours with a daily
sine 1, of 144 intervals of ten minutes 4. Their spread says little about the next day.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftBaseline:
    """Mean and variation of J statistics over one horizon, frozen when the model is activated.

    `effective` is the number of independent horizons in the mean of the baseline, `dof` the degrees of freedom of its
    variance.
    """

    mean: Float64
    deviation: Float64
    blocks: int
    rho: float
    effective: float
    dof: float
    typical_events: float

    def to_json(self) -> dict[str, Any]:
        """Return the baseline as a JSON object. Floats are written so that they are read back bit for bit."""
        return asdict(self) | {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "DriftBaseline":
        """Return the baseline that `to_json` wrote."""
        arrays = {name: np.array(stored[name], np.float64) for name in ("mean", "deviation")}
        return DriftBaseline(**{**stored, **arrays})


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftVerdict:
    """The test result of one horizon: z, effect and deviation of the change of each statistic, (J,).

    `drifted` holds the indices of the drifted statistics, ordered by |z|, largest first.
    """

    z: Float64
    effect: Float64
    deviation: Float64
    z_threshold: float
    drifted: tuple[int, ...]


def horizon_false_alarm_probability(per_week: float, horizon_us: int, *, horizons: int, share: float = 0.25) -> float:
    """Return the false-alarm probability of one horizon, for all its statistics together.

    Args:
        per_week: False-alarm budget of the whole stream per week.
        horizon_us: Length of the horizon.
        horizons: Number of horizons that share the budget.
        share: Share of the budget for drift.

    Raises:
        ValueError: An argument is not positive, or the share exceeds 1.
    """
    if not (per_week > 0 and horizon_us > 0 and horizons > 0 and 0 < share <= 1):
        raise ValueError(
            "per_week, horizon_us and horizons must be positive and share in (0, 1], "
            f"not {per_week}, {horizon_us}, {horizons} and {share}"
        )
    return min(per_week * share * horizon_us / WEEK_US / horizons, 0.5)


def earliest_verdict_us(horizon_us: int) -> int:
    """Return the shortest time from the activation of a model to its first verdict; of a cycle, ten of them."""
    if horizon_us in CYCLES_US:
        return FIRST_VERDICT_CYCLES * horizon_us
    return max(DAY_US, MIN_BASELINE_HORIZONS * horizon_us)


def baseline_problem(starts_us: Int64, *, horizon_us: int) -> str | None:
    """Return the reason why a baseline has no verdict yet, or None if it has.

    With a baseline shorter than a day, the course of the day would look like drift, for any number of horizons.
    """
    blocks = len(starts_us)
    span_us = int(starts_us[-1] - starts_us[0]) + horizon_us if blocks else 0
    if span_us < DAY_US:
        return f"the base spans {span_us / 3600e6:.1f} of the 24 hours that a verdict needs"
    if blocks < MIN_BASELINE_HORIZONS:
        return f"the base has {blocks} of the {MIN_BASELINE_HORIZONS} horizons that a verdict needs"
    return None


def explain_dependence(means: Float64) -> str | None:
    """Return the reason why the means of horizons are no baseline yet because they depend on each other, or None.

    The statistic that varies most slowly decides. Its lag-1 autocorrelation counts as far as it is certain, by the
    standard error 1 / sqrt(W) of independent means and a one-sided level of `DEPENDENCE_LEVEL` over all statistics.

    Args:
        means: Means in order of time, (W, J).
    """
    blocks = len(means)
    centred = means - means.mean(axis=0)
    square = (centred**2).sum(axis=0)
    products = (centred[1:] * centred[:-1]).sum(axis=0)
    autocorrelation = float(np.divide(products, square, out=np.zeros_like(square), where=square > 0).max())
    error = -float(special.ndtri(DEPENDENCE_LEVEL / means.shape[1])) / np.sqrt(blocks)
    certain = float(np.clip(autocorrelation - error, 0.0, MAX_AUTOCORRELATION))
    effective = blocks * (1 - certain) / (1 + certain)
    if effective >= MIN_EFFECTIVE_HORIZONS:
        return None
    return (
        f"the {blocks} horizons of the base count as {effective:.0f} of the {MIN_EFFECTIVE_HORIZONS} independent ones "
        f"that a verdict needs: a statistic varies slowly, with an autocorrelation of {autocorrelation:.2f}"
    )


def fit_baseline(means: Float64, events: Int64, units: Float64) -> DriftBaseline:
    """Estimate the baseline from the means of consecutive horizons.

    The lag-1 autocorrelation is pooled over the statistics, which reduces its variance, and corrected for its bias
    (Kendall 1954). The effective numbers are those of a first-order autoregression (Bayley and Hammersley 1946).

    Args:
        means: Means in order of time, (W, J).
        events: Events of each horizon, (W,).
        units: Training deviation of one event in each statistic, (J,).

    Raises:
        ValueError: There are fewer than ten horizons.
    """
    blocks = len(means)
    if blocks < 10:
        raise ValueError(f"a baseline needs at least ten horizons, not {blocks}")
    mean = means.mean(axis=0)
    centred = means - mean
    rho = _pooled_autocorrelation(centred)
    effective = blocks * (1 - rho) / (1 + rho)
    # With strong autocorrelation the whole baseline may be worth little more than one independent horizon.
    shrink = 1 - 1 / max(effective, 1.5)
    return DriftBaseline(
        mean=mean,
        # A statistic that never varied (a constant feature) must not cause a division by zero.
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
    autocorrelation = float(((centred[1:] * centred[:-1]).sum(axis=0)[varies] / square[varies]).mean())
    return float(np.clip((blocks * autocorrelation + 1) / (blocks - 3), 0.0, MAX_AUTOCORRELATION))


def judge_drift(
    baseline: DriftBaseline,
    current: Float64,
    events: int,
    units: Float64,
    *,
    alpha: float,
    min_effect: float,
    least_deviation: Float64 | None = None,
    raised: float = 1.0,
) -> DriftVerdict | None:
    """Test the means of one horizon. None if it has too few events for a comparison.

    Args:
        baseline: Baseline of the same horizon.
        current: Mean of each statistic, (J,).
        events: Events of the horizon.
        units: Training deviation of one event in each statistic, (J,).
        alpha: Result of `horizon_false_alarm_probability`.
        min_effect: Smallest change that counts as drift, in those units.
        least_deviation: Smallest deviation of the change of each statistic, (J,): that of independent events. The
            baseline's deviation is a mean over all times of day, and is too small for the busiest of them.
        raised: Factor on the threshold of |z|, at least 1.
    """
    if events < MIN_EVENT_SHARE * baseline.typical_events:
        return None
    change = current - baseline.mean
    deviation = baseline.deviation * np.sqrt(1 + 1 / baseline.effective)
    if least_deviation is not None:
        deviation = np.maximum(deviation, least_deviation)
    return decide_drift(change, deviation, units, dof=baseline.dof, alpha=alpha, min_effect=min_effect, raised=raised)


def decide_drift(
    change: Float64,
    deviation: Float64,
    units: Float64,
    *,
    dof: float,
    alpha: float,
    min_effect: float,
    raised: float,
    tested: int | None = None,
) -> DriftVerdict:
    """Return the verdict on the changes of J statistics together (Bonferroni) under Student's t distribution.

    Args:
        change: Change of each statistic, (J,).
        deviation: Standard deviation of each change, (J,).
        units: Training deviation of one event in each statistic, (J,).
        dof: Degrees of freedom of the deviations.
        alpha: False-alarm probability of all statistics together.
        min_effect: Smallest change that counts as drift, in the units.
        raised: Factor on the threshold of |z|, at least 1.
        tested: Number of statistics that are tested, the first ones; None: all. The others are reported only.
    """
    z, effect = change / deviation, change / units
    threshold = raised * float(special.stdtrit(dof, 1 - alpha / (2 * len(z[:tested]))))
    beyond = np.flatnonzero((np.abs(z) > threshold)[:tested] & (np.abs(effect) >= min_effect)[:tested])
    order = beyond[np.argsort(-np.abs(z[beyond]), kind="stable")]
    return DriftVerdict(z=z, effect=effect, deviation=deviation, z_threshold=threshold, drifted=tuple(order.tolist()))


def recommend_action(body_z: float, z_threshold: float, *, tail_fires: bool) -> str | None:
    """Return the advice of a test result.

    It is `drift: refit` if the body of the energies moved, `spike: keep the threshold` if only the tail is heavy, and
    otherwise None.
    """
    if abs(body_z) > z_threshold:
        return "drift: refit"
    return "spike: keep the threshold" if tail_fires else None
