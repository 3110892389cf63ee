"""Slow rises: a rate of outliers that stays up a little, found by a Shiryaev-Roberts statistic. Pure.

Each window multiplies the evidence by the likelihood ratio of a raised rate; the sum of the evidence over all
possible onsets, less the number of windows, is a martingale on a clean stream. So the mean time to a false
alarm at the limit A is at least A windows, whatever the law's details: nothing is simulated or tuned
(Shiryaev 1963, Roberts 1966).
"""

from dataclasses import dataclass

import numpy as np

from config.time_format import WEEK_US
from monitor.statistics.counts import CountModel

RATE_RATIO = 1.75
"""The ratio of rates that the evidence is for: nearly as quick at 1.5 and at 3 as evidence made for those."""


BUDGET_SHARE = 0.25
"""Of `false_alarms`, what slow rises may spend; a half is the spikes', a quarter drift's."""

RECOVERY_THRESHOLD = float(np.log(100))
"""A rise is over when the clean rate explains what came since a hundred times better."""

MIN_WINDOWS = 100
"""Windows that a law is learned from before a rise is looked for: before, the dispersion is not known well enough."""

_POISSON_BELOW = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowRiseStatistic:
    """What is carried from window to window; all of it is finite, so that it can be stored as JSON.

    `evidence` is ln(1 + R), R the Shiryaev-Roberts statistic; `best` the largest log-likelihood ratio of a
    rise that began at `onset_us`, at least 0.
    """

    evidence: float = 0.0
    best: float = 0.0
    onset_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowRiseVerdict:
    """The judgement after one window: ln R against its limit, and since when the rate is probably up."""

    log_statistic: float
    log_threshold: float
    onset_us: int | None
    fires: bool


def windows_between_false_alarms(per_week: float, window_us: int, *, share: float = BUDGET_SHARE) -> float:
    """Return the number of windows in the promised time between two false alarms of slow rises."""
    if not (per_week > 0 and window_us > 0 and 0 < share <= 1):
        raise ValueError(f"no budget from {per_week} a week, windows of {window_us} us and a share of {share}")
    return max(WEEK_US / window_us / (per_week * share), 2.0)


def update_slow_rise(
    state: SlowRiseStatistic,
    law: CountModel,
    n: int,
    x: int,
    *,
    window_start_us: int,
    limit_windows: float,
    clean_rate: float,
    raised: float = RATE_RATIO,
) -> tuple[SlowRiseStatistic, SlowRiseVerdict]:
    """Take in one window of n events with x outliers; return the new state and the verdict.

    After an alarm the state is the first one again.

    Args:
        state: After the window before.
        law: Of counts at the limit in force; its dispersion is used.
        n: Events of the window.
        x: Outliers of it.
        window_start_us: Its start.
        limit_windows: From `alarm_windows`.
        clean_rate: The highest rate that is still clean, from `highest_clean_rate`.
        raised: The ratio of rates that the evidence is for.
    """
    gain = _log_likelihood_ratio(x, n * clean_rate, law.dispersion, raised)
    log_statistic = state.evidence + gain
    onset_us = state.onset_us if state.best > 0 else window_start_us
    best = max(state.best + gain, 0.0)
    log_limit = float(np.log(limit_windows))
    fires = log_statistic >= log_limit
    verdict = SlowRiseVerdict(
        log_statistic=log_statistic,
        log_threshold=log_limit,
        onset_us=onset_us if best > 0 else None,
        fires=fires,
    )
    if fires:
        return SlowRiseStatistic(), verdict
    evidence = float(np.logaddexp(0.0, log_statistic))
    return SlowRiseStatistic(evidence=evidence, best=best, onset_us=onset_us if best > 0 else None), verdict


def expected_windows_to_detection(
    law: CountModel, n: int, *, clean_rate: float, limit_windows: float, ratio: float = 2.0
) -> float:
    """Return after how many windows of n events a rate that has risen by `ratio` is found, about; infinite if never."""
    gain = _log_likelihood_ratio(ratio * n * law.rate, n * clean_rate, law.dispersion, RATE_RATIO)
    return float(np.log(limit_windows)) / gain if gain > 0 else float("inf")


def update_recovery(recovered: float, law: CountModel, n: int, x: int, *, clean_rate: float) -> float:
    """Return the evidence that a raised rate is down again, after a window of n events with x outliers.

    A cumulative sum (Page 1954) of the log-likelihood ratio of the clean rate to the raised one, 0 at the alarm: over
    `RECOVERED` the rise is over. The test that ends a rise is not the one that finds it, so that it does not flap.
    """
    return max(recovered - _log_likelihood_ratio(x, n * clean_rate, law.dispersion, RATE_RATIO), 0.0)


def _log_likelihood_ratio(x: float, mean: float, dispersion: float, raised: float) -> float:
    """Return theta x - Lambda: a negative binomial of this mean and dispersion tilted to a raised mean.

    Lambda is the logarithm of the moment-generating function at theta, so that the ratio's clean mean is 1.
    """
    excess = dispersion - 1
    tilt = raised * dispersion / (1 + raised * excess)
    if excess < _POISSON_BELOW:
        return x * float(np.log(raised)) - mean * (raised - 1)
    return x * float(np.log(tilt)) + mean / excess * float(np.log1p(-excess * (tilt - 1)))
