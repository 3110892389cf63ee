"""Explanations of each kind of incident, from the numbers stored with it. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from config.number_format import format_together
from monitor.incidents.drift_text import describe_mean, format_summary_change

MAX_SHOWN_RANGES = 10
_MAX_SHOWN_STATISTICS = 5


def _explain_threshold(numbers: Mapping[str, Any]) -> Iterator[str]:
    threshold = numbers["threshold"]
    yield (
        f"An event is an outlier when its energy is above {threshold['value']:.5g} nats "
        f"({threshold['lower']:.5g} to {threshold['upper']:.5g} with 90% confidence)."
    )
    yield (
        f"That is the {threshold['percentile']:g} percentile of {threshold['n']:,} energies (method "
        f"{threshold['method']}) under model {numbers['model_version']}."
    )


def _explain_spike(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield from _explain_threshold(numbers)
    yield (
        f"Of {numbers['events']:,} events such a window has {numbers['outliers_expected']:.3g} outliers "
        f"on average; this one has {numbers['outliers']:,}, and {numbers['fires_at']:,} or more open an incident."
    )
    yield (
        f"A clean window reaches this count with a probability below {numbers['alpha']:.2g}: "
        f"the spikes' half of the false-alarm budget of {numbers['promise_per_week']:g} per week."
    )
    yield f"The probability of this many or more outliers by chance is {numbers['p_value']:.2g}."
    if numbers.get("test") == "magnitude":
        yield from _explain_magnitude(numbers["magnitude"])
    yield _describe_count_model(numbers["law"])
    if numbers["dead_letters"]:
        yield f"Not counted: {numbers['dead_letters']:,} dead letters of the window."


def _explain_magnitude(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"The incident is for its largest energy, {numbers['energy']:.5g} nats: a clean event exceeds it with a "
        f"probability of {numbers['p_value']:.2g}, by the tail of reference and look-back."
    )
    yield (
        f"{numbers['limit']:.5g} or more open an incident: among {numbers['events']:,} clean events one is so large "
        f"with a probability of at most {numbers['alpha']:.2g}, the part of the spikes' half that counts leave over."
    )


def _describe_count_model(count_model: Mapping[str, Any]) -> str:
    state = f"provisional, with {count_model['windows']:,} windows so far"
    if count_model["state"] == "learned":
        state = f"learned from {count_model['windows']:,} windows"
    return (
        f"The count model is {state}; the variance of the counts is {count_model['dispersion']:.3g} times their mean."
    )


def _explain_slow_rise(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield from _explain_threshold(numbers)
    yield (
        f"Since about {numbers['since']} outliers are {numbers['ratio']:.3g} times as frequent as in the busiest "
        f"clean hour: {numbers['outliers']:,} in {numbers['windows']:,} windows. No single window is a spike."
    )
    yield (
        f"A clean stream accumulates this evidence at most once in {numbers['limit_windows']:,.0f} windows: "
        f"the slow rises' quarter of the false-alarm budget of {numbers['promise_per_week']:g} per week."
    )
    yield _describe_count_model(numbers["law"])


def _explain_drift(numbers: Mapping[str, Any]) -> Iterator[str]:
    for horizon in numbers["horizons"]:
        yield (
            f"Over the {horizon['horizon']} from {horizon['window']['start']} {horizon['n_drifted']:,} of "
            f"{horizon['statistics']:,} statistics of {horizon['events']:,} events drifted, the least probable first:"
        )
        yield from (f"  {line}" for line in islice(_describe_drifted(horizon["drifted"]), _MAX_SHOWN_STATISTICS))
        yield (
            f"  |z| is above {horizon['limit']:.3g}, which a stationary stream exceeds in a horizon with a "
            f"probability of {horizon['alpha']:.2g}: drift's quarter of the false-alarm budget."
        )
    yield f"Advice: {numbers['advice']}."


def _describe_drifted(statistics: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each feature, pair or component; rank and spread of one feature are on one line."""
    for subject in dict.fromkeys(map(_subject_of, statistics)):
        own = [each for each in statistics if _subject_of(each) == subject]
        evidence = ", ".join(f"{_name_of(each)} {each['effect']:+.2f} deviations, z {each['z']:+.1f}" for each in own)
        yield f"{_describe_change(own[0])} ({evidence})"


def _subject_of(statistic: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a statistic is about; incidents of older versions have no values of the features."""
    is_feature = "values_before" in statistic
    return statistic["feature"] or "energy", "" if is_feature else statistic["statistic"]


def _name_of(statistic: Mapping[str, Any]) -> str:
    return str(statistic["statistic"]).removeprefix("energy_")


def _describe_change(statistic: Mapping[str, Any]) -> str:
    """Return the values before and now, in the unit of the feature where they are stored."""
    name, feature = statistic["statistic"], statistic.get("feature") or ""
    if "values_before" in statistic:
        return f"{feature or 'energy'}: {format_summary_change(statistic['values_before'], statistic['values_after'])}"
    before, after = statistic.get("before_value"), statistic.get("after_value")
    if before is None or after is None:
        return describe_mean(name, feature, statistic["before"], statistic["after"])
    texts = format_together((before, after), 5)
    return f"{feature or 'energy'}: {texts[0]} before, {texts[1]} now"


def _format_number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, int | float) else "unknown"


def _explain_calibration(numbers: Mapping[str, Any]) -> Iterator[str]:
    if numbers["reason"] == "rate":
        yield (
            f"Of the events of clean windows {numbers['law']['rate']:.3%} are above the threshold "
            f"({numbers['rate_lower']:.3%} to {numbers['rate_upper']:.3%} with 90% confidence); "
            f"the percentile implies {numbers['nominal_rate']:.3%}."
        )
        yield "A rate outside of a third to three times that rate is not chance: the threshold does not fit the stream."
    else:
        yield (
            f"The percentile of the look-back energies is {_format_number(numbers['t_plain'])}. Mapped from the "
            f"{_format_number(numbers['reference_n'])} training energies it is "
            f"{_format_number(numbers['t_anchored'])}, "
            f"and clean events explain at most {_format_number(numbers['t_high'])}."
        )
        yield (
            f"Either about {numbers['eps'] or 0:.2%} of the events are outliers, or clean events have a heavier tail "
            "now: these two causes cannot be distinguished by the energies."
        )
        yield (
            f"Until the incident is accepted or a new model is fitted, the threshold is "
            f"{_format_number(numbers['limit']['value'])}, which assumes outliers."
        )


def _explain_silence(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield f"No event for {numbers['silent_s']:,.0f} s; the allowed silence is {numbers['allowed_s']:,.0f} s."
    if numbers["silence_after"] == "auto" and numbers["usual_s"] is not None:
        yield (f"The stream's own pauses allow a silence of {numbers['usual_s']:,.0f} s (alerts.silence_after: auto).")
    if not numbers["at_end"]:
        yield "The source did not report the end of its log: events may be waiting that cannot be read."


def _explain_stopped(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield f"The stream could not go on: {numbers['reason']}."
    if numbers["failures"]:
        yield (
            f"It had failed {numbers['failures']:,} time{'' if numbers['failures'] == 1 else 's'} since it last ran. "
            "It starts again from the stored positions after a back-off; the other streams are not affected."
        )


def _explain_dead_letters(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"{numbers['dead_letters']:,} of {numbers['records']:,} records of the window were rejected, "
        f"{numbers['share']:.1%}; more than {numbers['limit']:.1%} (alerts.max_dead_letter_ratio) is an incident."
    )


def _explain_late(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"Of {numbers['arrivals']:,} events that arrived during the window {numbers['late']:,} were late, "
        f"{numbers['share']:.1%}; more than {numbers['limit']:.1%} (alerts.max_late_ratio) is an incident."
    )
    yield (
        f"They were {numbers['mean_lag_s']:,.0f} s behind the watermark of their partition on average and "
        f"{numbers['max_lag_s']:,.0f} s at most; window.grace is {numbers['grace_s']:,.0f} s."
    )
    yield f"Cause: {numbers['cause']}."
    yield "Late events are scored and stored, but no window counts them for spikes, thresholds and drift."


def _explain_stalled(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"{len(numbers['partitions']):,} partitions have records and have not moved for more than "
        f"{numbers['stalled_after_s']:,.0f} s (alerts.stalled_after):"
    )
    yield from (
        f"  {each['partition']} for {each['waited_s']:,.0f} s: {each['reason']}" for each in numbers["partitions"]
    )


def _explain_gap(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield f"{numbers['offsets']:,} offsets could not be read; their events are neither scored nor in any window."
    more = len(numbers["ranges"]) - MAX_SHOWN_RANGES
    if more > 0:
        yield f"The first {MAX_SHOWN_RANGES} ranges are listed below; gap_history has {more:,} more."


EXPLANATIONS: Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "spike": _explain_spike,
    "slow_rise": _explain_slow_rise,
    "drift": _explain_drift,
    "calibration": _explain_calibration,
    "silence": _explain_silence,
    "stopped": _explain_stopped,
    "stalled": _explain_stalled,
    "dead_letters": _explain_dead_letters,
    "late": _explain_late,
    "gap": _explain_gap,
}
"""The explanation by kind of incident. Incidents of other kinds have only a summary and numbers."""

COMMAND_HINTS: Mapping[str, str] = {
    "slow_rise": "If this is normal now, run `outrider accept`. The incident resolves when the rate has fallen again.",
    "drift": "If this is normal now, `outrider accept` makes these windows the new baseline.",
    "calibration": "If this is normal now, run `outrider accept`, or fit a new model with `outrider fit`.",
    "stopped": "`outrider status` shows the present reason.",
    "dead_letters": "The view dead_letter_history lists each with its reason, offset and first bytes.",
}
"""The next step on the command line by kind of incident. The page has buttons and panels in their place."""
