"""Spikes: windows with improbably many outliers, judged by a learned law of counts at a promised rate. Pure.

Counts of outliers in windows vary more than coin tosses: events come in bursts, and the limit's own
exceedance is only known as well as its calibration allows. The law learns rate and dispersion from clean
windows; its predictive variance holds both. The tail is that of a negative binomial with that mean and
variance (moments suffice: simulated against exact laws of autocorrelated energies it errs to the quiet side).
"""

from dataclasses import dataclass

import numpy as np

from config.time_format import WEEK_US, _format_one_period, format_rounded_duration, format_utc
from monitor.incidents.lifecycle import Finding, Kind, Severity
from monitor.incidents.window import JudgeRule, ThresholdInForce, WindowUnderTest, window_details
from monitor.statistics.counts import LEARNED_WINDOWS, CountModel, exceedance_probability, p_value


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


EARLY_EVENTS_FACTOR = 2
"""An open window is judged as if it had this many times the events of the fullest window of the look-back.

The limit grows with the events: what exceeds it for so many exceeds it for the whole window, unless that has more.
"""

_MAX_LARGEST_ENERGIES = 10


def judge_spike(known: ThresholdInForce, events: int, outliers: int, rule: JudgeRule) -> SpikeVerdict:
    """Return the judgement of a window with so many events and outliers."""
    return judge_count(
        known.count_model,
        events,
        outliers,
        alpha=false_alarm_probability(rule.per_week, rule.size_us),
        min_outliers=rule.min_outliers,
        min_ratio=rule.min_ratio,
    )


def evaluate_open_window(known: ThresholdInForce, events: int, outliers: int, rule: JudgeRule) -> SpikeVerdict | None:
    """Return the judgement of an open window at the limit of the full one; None where that is not known yet."""
    if known.most_events is None:
        return None
    return judge_spike(known, max(events, EARLY_EVENTS_FACTOR * known.most_events), outliers, rule)


def build_spike_finding(window: WindowUnderTest, verdict: SpikeVerdict, *, early: bool = False) -> Finding | None:
    """Return the finding of a window that was judged, None for a clean one; `early` for one that is still open."""
    if not verdict.fires:
        return None
    facts, part, rule = window.facts, window.part, window.rule
    alpha = false_alarm_probability(rule.per_week, rule.size_us)
    # Twice as improbable, in powers of ten, as what opens an incident: no longer a matter of the promise.
    severity = Severity.CRITICAL if verdict.p_value <= alpha**2 else Severity.WARNING
    place, usual = ("of the open window", "one has up to") if early else ("in the window", "window has")
    summary = (
        f"{part.outliers:,} outliers among {part.events:,} events {place} from {format_utc(facts.window_start_us)}; "
        f"a clean {usual} {verdict.mean:.3g}, and {verdict.fires_at:,} or more count as a spike"
    )
    details = {
        "window": window_details(facts),
        "events": part.events,
        "outliers": part.outliers,
        "outliers_expected": verdict.mean,
        "outliers_limit": verdict.count_threshold,
        "fires_at": verdict.fires_at,
        "p_value": verdict.p_value,
        "alpha": alpha,
        "attainable": verdict.attainable,
        "promise_per_week": rule.per_week,
        "floors": {"min_outliers": rule.min_outliers, "min_ratio": rule.min_ratio},
        "largest_energies": [float(energy) for energy in part.top[:_MAX_LARGEST_ENERGIES]],
        **window.shared_details(),
    }
    return Finding(kind=Kind.SPIKE, severity=severity, summary=summary, details=details)
