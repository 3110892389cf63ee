"""Spikes: windows with improbably many outliers, or with an improbably large energy. Pure functions.

The count model learns rate and dispersion from clean windows (`monitor.statistics.counts`). A window fires above the
smallest count that a clean window exceeds with at most its share of the false-alarm budget.
"""

from dataclasses import dataclass

import numpy as np

from config.budget import false_alarm_probability, windows_to_learn
from config.stream_rules import StreamRules
from config.time_format import format_one_period, format_rounded_duration, format_utc
from monitor.incidents.key_energies import EnergiesUnderTest
from monitor.incidents.lifecycle import Finding, Kind, Severity
from monitor.incidents.magnitude import (
    MagnitudeVerdict,
    judge_key_magnitude,
    judge_magnitude,
    magnitude_details,
)
from monitor.incidents.window import ThresholdInForce, WindowUnderTest, window_details
from monitor.statistics.counts import CountModel, exceedance_probability, p_value


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeCountThreshold:
    """The largest count that is not a spike.

    A clean window has `mean` outliers on average, and exceeds `count` with the probability `attainable`.
    """

    count: int
    attainable: float
    mean: float


def spike_count_threshold(count_model: CountModel, n: int, alpha: float) -> SpikeCountThreshold:
    """Return the smallest count that a clean window of n events exceeds with probability at most `alpha`.

    Counts are integers, so the attainable probability is usually below alpha. Compare realised false alarms with the
    attainable probability, not with alpha.

    Raises:
        ValueError: `alpha` does not lie between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"the false-alarm probability of a window must lie between 0 and 1, not {alpha}")
    below, above = -1, 1
    while exceedance_probability(count_model, n, above) > alpha:
        below, above = above, 2 * above
    while above - below > 1:
        middle = (below + above) // 2
        if exceedance_probability(count_model, n, middle) > alpha:
            below = middle
        else:
            above = middle
    return SpikeCountThreshold(
        count=above, attainable=exceedance_probability(count_model, n, above), mean=n * count_model.rate
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeVerdict:
    """The test result of one window.

    `count_threshold` and `mean` are those of `SpikeCountThreshold`. `fires_at` is the smallest count that fires, with
    the floors applied, and `attainable` the probability that a clean window reaches it. `p_value` is the probability of
    this many outliers or more in a clean window.
    """

    count_threshold: int
    fires_at: int
    mean: float
    attainable: float
    p_value: float
    fires: bool


def judge_count(
    count_model: CountModel, n: int, x: int, *, alpha: float, min_outliers: int = 0, min_ratio: float = 0.0
) -> SpikeVerdict:
    """Test a full window of n events with x outliers.

    The floors only make the test less sensitive: `min_outliers` is a number, `min_ratio` a share of the events. An open
    window may be tested early with the number of events that the full window is expected to have, never with the number
    so far.
    """
    threshold = spike_count_threshold(count_model, n, alpha)
    fires_at = max(threshold.count + 1, min_outliers, int(np.ceil(round(min_ratio * n, 9))))
    return SpikeVerdict(
        count_threshold=threshold.count,
        fires_at=fires_at,
        mean=threshold.mean,
        attainable=exceedance_probability(count_model, n, fires_at - 1),
        p_value=p_value(count_model, n, x),
        fires=x >= fires_at,
    )


def describe_false_alarms(count_model: CountModel, n: int, *, alpha: float, window_us: int) -> str:
    """Return the meaning of the false-alarm budget for windows of n events, in one line.

    For example "more than 14 of 6,000 in a minute; 1 false alarm in 9 days; learned from 1,240 windows".
    """
    threshold = spike_count_threshold(count_model, n, alpha)
    lines = [
        f"more than {threshold.count:,} of {n:,} in {format_one_period(window_us)}",
        _describe_rate(threshold.attainable, window_us),
    ]
    if count_model.state == "learned":
        lines.append(f"learned from {count_model.windows:,} windows")
    else:
        needed = windows_to_learn(alpha, threshold.mean)
        lines.append(f"provisional: {count_model.windows:,} of {needed} windows learned")
    return "; ".join(lines)


def advise_window_size(count_model: CountModel, n: int, *, window_us: int) -> str | None:
    """Return advice on the window size if less than one outlier a window is expected, otherwise None.

    With a mean below one, a count that is higher by 1 has a false-alarm probability that is several times lower, and
    only large spikes are found.
    """
    mean = n * count_model.rate
    if mean >= 1 or n <= 0:
        return None
    size = format_rounded_duration(int(window_us / mean))
    return (
        f"a window has {mean:.2g} outliers on average; "
        f"in windows of {size} or more, with one or more on average, smaller spikes are detected"
    )


def _describe_rate(probability: float, window_us: int) -> str:
    if probability <= 0:
        return "no false alarm in practice"
    return f"1 false alarm in {format_rounded_duration(window_us / probability)}"


EARLY_EVENTS_FACTOR = 2
"""Factor on the events of the fullest window of the look-back, with which an open window is tested.

The threshold grows with the number of events. A count above the threshold for this number is above that of the full
window, unless the full window has more events.
"""

_MAX_LARGEST_ENERGIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeTests:
    """The results of both tests of a window.

    `magnitudes` are those of the largest energy of the other keys, and of each habitual key; empty without a tail law.
    """

    count: SpikeVerdict
    magnitudes: tuple[MagnitudeVerdict, ...]

    @property
    def magnitude(self) -> MagnitudeVerdict | None:
        """Return the result with the smallest p-value of those that fire, otherwise of all. None without a tail law."""
        return min(self.magnitudes, key=lambda each: (not each.fires, each.p_value), default=None)

    @property
    def fires(self) -> bool:
        """Return True if one of the tests fires."""
        return self.count.fires or (self.magnitude is not None and self.magnitude.fires)

    @property
    def name(self) -> str:
        """Return the name of the test that fires, of the count if both do."""
        return "magnitude" if self.fires and not self.count.fires else "count"


def judge_spike(
    in_force: ThresholdInForce,
    events: int,
    outliers: int,
    largest: EnergiesUnderTest,
    rules: StreamRules,
) -> SpikeTests:
    """Return the test results of a window by its numbers of events and outliers and its largest energies.

    Args:
        in_force: The threshold as it applies to the window.
        events: Number of events.
        outliers: Number of outliers.
        largest: Its largest energies.
        rules: The rules of the stream.
    """
    magnitudes: list[MagnitudeVerdict] = []
    if in_force.tail is not None and (largest.others is not None or largest.habitual):
        attainable = _judge_outliers(in_force, in_force.usual_events or events, 0, rules).attainable
        if largest.others is not None:
            share = largest.others_share
            others = judge_magnitude(in_force, events, largest.others, rules, attainable=attainable, share=share)
            magnitudes += [] if others is None else [others]
        for own in largest.habitual:
            of_stream = judge_magnitude(in_force, events, own.energy, rules, attainable=attainable)
            magnitudes += [] if of_stream is None else [judge_key_magnitude(of_stream, own)]
    return SpikeTests(count=_judge_outliers(in_force, events, outliers, rules), magnitudes=tuple(magnitudes))


def _judge_outliers(in_force: ThresholdInForce, events: int, outliers: int, rules: StreamRules) -> SpikeVerdict:
    return judge_count(
        in_force.count_model,
        events,
        outliers,
        alpha=false_alarm_probability(rules.per_week, rules.size_us),
        min_outliers=rules.min_outliers,
        min_ratio=rules.min_ratio,
    )


def evaluate_open_window(
    in_force: ThresholdInForce,
    events: int,
    outliers: int,
    largest: EnergiesUnderTest,
    rules: StreamRules,
) -> SpikeTests | None:
    """Return the test results of an open window against the limits of the full one. None before the first tick."""
    expected = count_expected_events(in_force, events)
    return None if expected is None else judge_spike(in_force, expected, outliers, largest, rules)


def count_expected_events(in_force: ThresholdInForce, events: int) -> int | None:
    """Return the number of events that an open window is tested with. None before the first tick."""
    return None if in_force.most_events is None else max(events, EARLY_EVENTS_FACTOR * in_force.most_events)


def build_spike_finding(window: WindowUnderTest, tests: SpikeTests, *, early: bool = False) -> Finding | None:
    """Return the finding of a judged window, or None for a clean one. `early` marks a window that is still open."""
    if not tests.fires:
        return None
    verdict, magnitude = tests.count, tests.magnitude
    facts, part, rules = window.facts, window.part, window.rules
    alpha = false_alarm_probability(rules.per_week, rules.size_us)
    # The exponent of the p-value is at least twice that of alpha: a spike under any plausible budget.
    p_window = min(verdict.p_value, 1.0 if magnitude is None else magnitude.p_value * magnitude.events)
    severity = Severity.CRITICAL if p_window <= alpha**2 else Severity.WARNING
    details = {
        "test": tests.name,
        "window": window_details(facts),
        "events": part.events,
        "outliers": part.outliers,
        "outliers_expected": verdict.mean,
        "outliers_limit": verdict.count_threshold,
        "fires_at": verdict.fires_at,
        "p_value": verdict.p_value,
        "alpha": alpha,
        "attainable": verdict.attainable,
        "promise_per_week": rules.per_week,
        "floors": {"min_outliers": rules.min_outliers, "min_ratio": rules.min_ratio},
        "largest_energies": [float(energy) for energy in part.top[:_MAX_LARGEST_ENERGIES]],
        **window.shared_details(),
    }
    if magnitude is not None:
        details["magnitude"] = magnitude_details(magnitude)
    return Finding(
        kind=Kind.SPIKE, severity=severity, summary=_describe_spike(window, tests, early=early), details=details
    )


def _describe_spike(window: WindowUnderTest, tests: SpikeTests, *, early: bool) -> str:
    """Return the finding in one sentence."""
    part, verdict, start = window.part, tests.count, format_utc(window.facts.window_start_us)
    if tests.name == "magnitude" and tests.magnitude is not None:
        place, key = "of the open window" if early else "in the window", tests.magnitude.key
        of_key = "" if key is None else f" of key {key}"
        compared = "in clean windows" if key is None else "among the events of this key, which usually are outliers,"
        return (
            f"an event{of_key} with an energy of {tests.magnitude.energy:.5g} nats {place} from {start}; {compared} "
            f"{tests.magnitude.limit:.5g} or more is rarer than the false-alarm budget, and counts as a spike"
        )
    place, usual = ("of the open window", "one has up to") if early else ("in the window", "window has")
    return (
        f"{part.outliers:,} outliers among {part.events:,} events {place} from {start}; "
        f"a clean {usual} {verdict.mean:.3g}, and {verdict.fires_at:,} or more count as a spike"
        f"{_describe_habitual(window)}"
    )


def _describe_habitual(window: WindowUnderTest) -> str:
    """Return the part of the outliers that habitual keys have, with their names; empty without such keys."""
    habitual = window.habitual
    if habitual is None:
        return ""
    names = ", ".join(habitual["keys"])
    more = habitual["n_keys"] - len(habitual["keys"])
    return (
        f"; {habitual['outliers']:,} of them are of keys whose events usually are outliers "
        f"({habitual['expected']:.3g} expected): {names}{f' and {more:,} more' if more > 0 else ''}"
    )
