"""The statistical test for slow rises: a Shiryaev-Roberts statistic of the outlier rate. Pure functions.

Each window multiplies the evidence by the likelihood ratio of a raised rate. The sum of the evidence over all possible
onsets, less the number of windows, is a martingale on a clean stream. The mean time to a false alarm at the threshold A
is therefore at least A windows, for any details of the distribution: nothing is simulated or tuned (Shiryaev 1963,
Roberts 1966).
"""

from dataclasses import dataclass

import numpy as np

from config.time_format import WEEK_US
from monitor.statistics.counts import CountModel

RATE_RATIO = 1.75
"""Ratio of raised to clean rate in the likelihood ratio.

Rises by 1.5 or 3 are found almost as fast as with their own ratio.
"""


BUDGET_SHARE = 0.25
"""Share of `false_alarms` for slow rises. Spikes have a half and drift a quarter."""

RECOVERY_THRESHOLD = float(np.log(100))
"""Log-likelihood ratio at which a rise ends: the clean rate is a hundred times more likely than the raised rate."""

MIN_WINDOWS = 100
"""Minimum number of learned windows of the count model before the test starts.

With fewer, the dispersion is too uncertain.
"""

_POISSON_BELOW = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowRiseStatistic:
    """The state of the test between windows. All values are finite, so that it can be stored as JSON.

    `evidence` is ln(1 + R), with R the Shiryaev-Roberts statistic. `best` is the largest log-likelihood ratio of a rise
    that began at `onset_us`, at least 0.
    """

    evidence: float = 0.0
    best: float = 0.0
    onset_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowRiseVerdict:
    """The test result after one window: ln R, its threshold, and the most likely onset of the rise."""

    log_statistic: float
    log_threshold: float
    onset_us: int | None
    fires: bool


def windows_between_false_alarms(per_week: float, window_us: int, *, share: float = BUDGET_SHARE) -> float:
    """Return the number of windows in the budgeted time between two false alarms of slow rises.

    Raises:
        ValueError: An argument is not positive, or the share exceeds 1.
    """
    if not (per_week > 0 and window_us > 0 and 0 < share <= 1):
        raise ValueError(
            f"per_week and window_us must be positive and share in (0, 1], not {per_week}, {window_us} and {share}"
        )
    return max(WEEK_US / window_us / (per_week * share), 2.0)


def update_slow_rise(
    state: SlowRiseStatistic,
    count_model: CountModel,
    n: int,
    x: int,
    *,
    window_start_us: int,
    threshold_windows: float,
    clean_rate: float,
    raised: float = RATE_RATIO,
) -> tuple[SlowRiseStatistic, SlowRiseVerdict]:
    """Return the state and the test result after one window of n events with x outliers.

    After an alarm the state is the initial one.

    Args:
        state: State after the previous window.
        count_model: Count model at the threshold in force. Its dispersion is used.
        n: Events of the window.
        x: Outliers of the window.
        window_start_us: Start of the window.
        threshold_windows: Result of `windows_between_false_alarms`.
        clean_rate: Highest rate that is still clean, from `highest_clean_rate`.
        raised: Ratio of raised to clean rate.
    """
    gain = _log_likelihood_ratio(x, n * clean_rate, count_model.dispersion, raised)
    log_statistic = state.evidence + gain
    onset_us = state.onset_us if state.best > 0 else window_start_us
    best = max(state.best + gain, 0.0)
    log_threshold = float(np.log(threshold_windows))
    fires = log_statistic >= log_threshold
    verdict = SlowRiseVerdict(
        log_statistic=log_statistic,
        log_threshold=log_threshold,
        onset_us=onset_us if best > 0 else None,
        fires=fires,
    )
    if fires:
        return SlowRiseStatistic(), verdict
    evidence = float(np.logaddexp(0.0, log_statistic))
    return SlowRiseStatistic(evidence=evidence, best=best, onset_us=onset_us if best > 0 else None), verdict


def expected_windows_to_detection(
    count_model: CountModel, n: int, *, clean_rate: float, threshold_windows: float, ratio: float = 2.0
) -> float:
    """Return the approximate number of windows of n events until a rise by `ratio` is found.

    It is infinite for a rise that is never found.
    """
    gain = _log_likelihood_ratio(ratio * n * count_model.rate, n * clean_rate, count_model.dispersion, RATE_RATIO)
    return float(np.log(threshold_windows)) / gain if gain > 0 else float("inf")


def update_recovery(recovered: float, count_model: CountModel, n: int, x: int, *, clean_rate: float) -> float:
    """Return the evidence that a raised rate is down again, after a window of n events with x outliers.

    It is a cumulative sum (Page 1954) of the log-likelihood ratio of the clean rate to the raised one, 0 at the alarm.
    Above `RECOVERY_THRESHOLD` the rise ends. The test that ends a rise differs from the test that finds it, so that an
    incident does not oscillate.
    """
    return max(recovered - _log_likelihood_ratio(x, n * clean_rate, count_model.dispersion, RATE_RATIO), 0.0)


def _log_likelihood_ratio(x: float, mean: float, dispersion: float, raised: float) -> float:
    """Return theta x - Lambda: a negative binomial of this mean and dispersion, tilted to a raised mean.

    Lambda is the logarithm of the moment-generating function at theta, so that the clean mean of the ratio is 1.
    """
    excess = dispersion - 1
    tilt = raised * dispersion / (1 + raised * excess)
    if excess < _POISSON_BELOW:
        return x * float(np.log(raised)) - mean * (raised - 1)
    return x * float(np.log(tilt)) + mean / excess * float(np.log1p(-excess * (tilt - 1)))
