"""Spikes: windows with improbably many outliers, judged by a learned law of counts at a promised rate. Pure.

Counts of outliers in windows vary more than coin tosses: events come in bursts, and the limit's own
exceedance is only known as well as its calibration allows. The law learns rate and dispersion from clean
windows; its predictive variance holds both. The tail is that of a negative binomial with that mean and
variance (moments suffice: simulated against exact laws of autocorrelated energies it errs to the quiet side).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from monitor.statistics.part import Int64

HOUR_US = 3600 * 1_000_000
DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US

LEARNED_WINDOWS = 300
"""Windows from which the promise is learned; below it is provisional, and may be off several times."""

SIGNIFICANT_ERRORS = 2.0
"""Standard errors above 1 from which a dispersion is more than chance, and is raised for its own error."""

MIN_DISPERSION_WINDOWS = 30
"""Windows from which a dispersion can be told. By chance five show one of 2.5, raised for its error 10: blind."""

HALF_LOG_ALPHA = 5.0
"""Half of ln(1 / alpha) at one alarm a week of windows of 10 s to 1 m: how steeply a tail answers to dispersion.

A tail at alpha is near exp(-ln(1 / alpha) x true / estimated dispersion), so that an estimate with relative
error s has a mean realised rate of alpha exp(ln(1 / alpha)^2 s^2 / 2): raising it by s^2 ln(1 / alpha) / 2 brings
the mean back to alpha.
"""

POISSON_BELOW = 1e-6
"""Excess of variance over mean below which the Poisson tail stands in for an endless negative binomial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountModel:
    """How many outliers a clean window has.

    `rate` is the probability that a clean event is above the limit, known from `calibration_n` events;
    `dispersion` the variance of counts over their mean, at least 1; `windows` how many it was learned from.
    """

    rate: float
    calibration_n: int
    dispersion: float
    windows: int
    state: str

    def variance_ratio(self, n: float) -> float:
        """Return predictive variance over mean for a window of n events: dispersion and calibration error."""
        return self.dispersion * (1 + n / self.calibration_n)


def fit_count_model(
    reference_exceed: int,
    reference_n: int,
    outliers: Int64,
    events: Int64,
    *,
    otherwise: CountModel | None = None,
) -> CountModel:
    """Learn the law of counts at one limit from clean windows.

    Clean are the windows that fired no detector: a single one that did, learned as normal, lifts the dispersion until
    nothing fires any more.

    Args:
        reference_exceed: Reference energies above the limit; 0 where the limit is the look-back's own
            percentile, for its windows must not count twice.
        reference_n: How many reference energies there are; 0 in the same case.
        outliers: Events above the limit in each window, counted at this limit.
        events: Events of each window.
        otherwise: The law that stays where there is neither a reference nor a window with events.

    Raises:
        ValueError: There is nothing of all that.
    """
    filled = events > 0
    x, n = outliers[filled].astype(np.float64), events[filled].astype(np.float64)
    total = reference_n + int(n.sum())
    if not total:
        if otherwise is not None:
            return otherwise
        raise ValueError("a law of counts needs reference energies or windows with events")
    # No exceedance at all says that the rate is small, not that it is zero: half an event bounds it.
    rate = max(reference_exceed + float(x.sum()), 0.5) / total
    windows = len(n)
    return CountModel(
        rate=rate,
        calibration_n=total,
        dispersion=_estimate_dispersion(x, n, rate),
        windows=windows,
        state="learned" if windows >= LEARNED_WINDOWS else "provisional",
    )


def _estimate_dispersion(x: NDArray[np.float64], n: NDArray[np.float64], rate: float) -> float:
    """Return the Pearson dispersion, at least 1; a significant one is raised for its own standard error.

    Of few windows it is drawn towards 1, where it begins with the first of them.
    """
    windows = len(n)
    if windows < 2 or not x.sum():
        return 1.0
    mean = n * (x.sum() / n.sum())
    dispersion = float(((x - mean) ** 2 / mean).sum() / (windows - 1))
    if windows < MIN_DISPERSION_WINDOWS:
        return max(1.0, 1 + (dispersion - 1) * windows / MIN_DISPERSION_WINDOWS)
    expected = float(n.mean()) * rate
    if dispersion <= 1 + SIGNIFICANT_ERRORS * np.sqrt((2 + 1 / expected) / windows):
        return max(1.0, dispersion)
    return float(dispersion * (1 + HALF_LOG_ALPHA * (2 + dispersion / expected) / windows))


def rate_bound(law: CountModel, level: float) -> float:
    """Return the rate that the true one is below with probability `level`.

    By the gamma law of an over-dispersed count; for a dispersion of 1 the exact Poisson bound (Garwood 1936).
    """
    effective = law.rate * law.calibration_n / law.dispersion
    shape = effective + 1 if level > 0.5 else effective
    return float(special.gammaincinv(shape, level)) * law.dispersion / law.calibration_n


def is_rate_suspect(law: CountModel, nominal: float) -> bool:
    """Say whether the rate's 90% interval lies outside a third to three times the limit's nominal exceedance.

    The learned rate follows a slow attack; the nominal one does not.
    """
    return rate_bound(law, 0.05) > 3 * nominal or rate_bound(law, 0.95) < nominal / 3


def exceedance_probability(law: CountModel, n: int, count: float) -> float:
    """Return the probability of more than `count` outliers in a clean window of n events."""
    mean, ratio = n * law.rate, law.variance_ratio(n)
    if count < 0:
        return 1.0
    if mean <= 0:
        return 0.0
    if ratio - 1 < POISSON_BELOW:
        return float(special.gammainc(count + 1, mean))
    return float(special.betainc(count + 1, mean / (ratio - 1), 1 - 1 / ratio))


def p_value(law: CountModel, n: int, x: int) -> float:
    """Return the probability of x or more outliers in a clean window of n events."""
    return exceedance_probability(law, n, x - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeCountThreshold:
    """More than `count` outliers are a spike; a clean window has `mean`, and exceeds it with `attainable`."""

    count: int
    attainable: float
    mean: float


def spike_count_threshold(law: CountModel, n: int, alpha: float) -> SpikeCountThreshold:
    """Return the smallest count that a clean window of n events exceeds with probability at most `alpha`.

    Counts are integers, so the attainable probability is below alpha: judge promises against it.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"the probability of a false alarm per window lies between 0 and 1, not {alpha}")
    low, high = -1, 1
    while exceedance_probability(law, n, high) > alpha:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if exceedance_probability(law, n, middle) > alpha:
            low = middle
        else:
            high = middle
    return SpikeCountThreshold(count=high, attainable=exceedance_probability(law, n, high), mean=n * law.rate)


def false_alarm_probability(per_week: float, window_us: int, *, share: float = 0.5) -> float:
    """Return the probability of a false alarm that one window may spend.

    Args:
        per_week: Promised false alarms a week of the whole stream.
        window_us: Length of a window.
        share: Of the promise that this detector may spend.
    """
    if not (per_week > 0 and window_us > 0 and 0 < share <= 1):
        raise ValueError(f"no budget from {per_week} a week, windows of {window_us} us and a share of {share}")
    return min(per_week * share * window_us / WEEK_US, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeVerdict:
    """The judgement of one window.

    `limit`, `attainable` and `mean` as in `SpikeLimit`; `fires_at` is the smallest count that fires, the
    floors included; `p_value` the probability of so many outliers or more in a clean window.
    """

    count_threshold: int
    fires_at: int
    mean: float
    attainable: float
    p_value: float
    fires: bool


def judge_count(
    law: CountModel, n: int, x: int, *, alpha: float, min_outliers: int = 0, min_ratio: float = 0.0
) -> SpikeVerdict:
    """Judge a full window of n events with x outliers.

    The floors only make it quieter: `min_outliers` a number, `min_ratio` a share of the events. An open
    window may be judged early by the limit for all the events that it is expected to have, never by the one
    for those so far.
    """
    limit = spike_count_threshold(law, n, alpha)
    fires_at = max(limit.count + 1, min_outliers, int(np.ceil(round(min_ratio * n, 9))))
    return SpikeVerdict(
        count_threshold=limit.count,
        fires_at=fires_at,
        mean=limit.mean,
        attainable=exceedance_probability(law, n, fires_at - 1),
        p_value=p_value(law, n, x),
        fires=x >= fires_at,
    )


def describe_false_alarms(law: CountModel, n: int, *, alpha: float, window_us: int) -> str:
    """Say what the promise means now, in one line, for windows of n events.

    Like "more than 14 of 6,000 in a minute; 1 false alarm in 9 days; learned from 1,240 windows".
    """
    limit = spike_count_threshold(law, n, alpha)
    lines = [
        f"more than {limit.count:,} of {n:,} in {_format_one_period(window_us)}",
        _describe_rate(limit.attainable, window_us),
    ]
    if law.state == "learned":
        lines.append(f"learned from {law.windows:,} windows")
    else:
        lines.append(f"provisional: {law.windows:,} of {LEARNED_WINDOWS} windows learned")
    return "; ".join(lines)


def advise_window_size(law: CountModel, n: int, *, window_us: int) -> str | None:
    """Say which window size would carry the promise, where fewer than one outlier a window is expected.

    With a mean below one the smallest step of a count is many times the promise, and only large spikes show.
    """
    mean = n * law.rate
    if mean >= 1 or n <= 0:
        return None
    size = format_rounded_duration(int(window_us / mean))
    return (
        f"a window has {mean:.2g} outliers on average; "
        f"windows of {size} or more would have one, and show smaller spikes"
    )


def _describe_rate(probability: float, window_us: int) -> str:
    if probability <= 0:
        return "no false alarm in practice"
    return f"1 false alarm in {format_rounded_duration(window_us / probability)}"


def format_rounded_duration(us: float) -> str:
    """Return a length of time in its own unit, rounded for reading."""
    for unit_us, name in (
        (365.25 * DAY_US, "year"),
        (DAY_US, "day"),
        (HOUR_US, "hour"),
        (60e6, "minute"),
        (1e6, "second"),
    ):
        count = us / unit_us
        if count >= 0.9995:
            rounded = f"{count:,.0f}" if count >= 9.95 else f"{count:.2g}"
            return f"{rounded} {name}" + ("" if rounded == "1" else "s")
    return f"{us / 1e3:.3g} milliseconds"


def _format_one_period(us: int) -> str:
    text = format_rounded_duration(us)
    if text.startswith("1 "):
        return ("an " if text == "1 hour" else "a ") + text[2:]
    return text
