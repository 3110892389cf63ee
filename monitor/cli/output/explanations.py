"""The command line: why each kind of incident fires, in plain words, from the numbers that are stored with it. Pure."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

MAX_SHOWN_RANGES = 10
_MAX_SHOWN_STATISTICS = 5


def _explain_threshold(numbers: Mapping[str, Any]) -> Iterator[str]:
    limit = numbers["threshold"]
    yield (
        f"An event is an outlier when its energy is above {limit['value']:.5g} nats "
        f"({limit['lower']:.5g} to {limit['upper']:.5g} with 90% confidence)."
    )
    yield (
        f"That is the {limit['percentile']:g} percentile of {limit['n']:,} energies (method {limit['method']}) "
        f"under model {numbers['model_version']}."
    )


def _explain_spike(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield from _explain_threshold(numbers)
    yield (
        f"Of {numbers['events']:,} events such a window has {numbers['outliers_expected']:.3g} outliers "
        f"on average; this one has {numbers['outliers']:,}, and {numbers['fires_at']:,} or more fire."
    )
    yield (
        f"The limit is drawn so that a clean window fires with a probability below {numbers['alpha']:.2g}: "
        f"the spikes' half of the promise, {numbers['promise_per_week']:g} a week."
    )
    yield f"As many or more outliers come by chance with a probability of {numbers['p_value']:.2g}."
    yield _describe_count_model(numbers["law"])
    if numbers["dead_letters"]:
        yield f"Not judged with it: {numbers['dead_letters']:,} records that could not be read."


def _describe_count_model(law: Mapping[str, Any]) -> str:
    learned = f"provisional, with {law['windows']:,} windows seen so far"
    if law["state"] == "learned":
        learned = f"learned from {law['windows']:,} windows"
    return f"How counts vary is {learned}; their variance is {law['dispersion']:.3g} times their mean."


def _explain_slow_rise(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield from _explain_threshold(numbers)
    yield (
        f"Since about {numbers['since']} outliers are {numbers['ratio']:.3g} times as frequent as in the busiest hour "
        f"that is still clean: {numbers['outliers']:,} in {numbers['windows']:,} windows. No single one is a spike."
    )
    yield (
        f"The evidence has added up to what a clean stream reaches once in {numbers['limit_windows']:,.0f} windows at "
        f"most: the slow rises' quarter of the promise, {numbers['promise_per_week']:g} a week."
    )
    yield _describe_count_model(numbers["law"])
    yield "If this is normal now, `outrider accept` says so; it ends by itself when the rate is down again."


def _explain_drift(numbers: Mapping[str, Any]) -> Iterator[str]:
    for horizon in numbers["horizons"]:
        yield (
            f"Over the {horizon['horizon']} from {horizon['window']['start']} {horizon['n_drifted']:,} of "
            f"{horizon['statistics']:,} statistics of {horizon['events']:,} events moved, the most improbable first:"
        )
        yield from (f"  {_describe_drifted_statistic(each)}" for each in horizon["drifted"][:_MAX_SHOWN_STATISTICS])
        yield (
            f"  With |z| above {horizon['limit']:.3g}, which a stream that stays as it is reaches in a horizon with a "
            f"probability of {horizon['alpha']:.2g}: drift's quarter of the promise."
        )
    yield f"Advice: {numbers['advice']}. If this is normal now, `outrider accept` measures from these windows on."


def _describe_drifted_statistic(moved: Mapping[str, Any]) -> str:
    name = " ".join(str(moved[part]) for part in ("feature", "statistic") if moved.get(part))
    before, after = moved.get("before_value"), moved.get("after_value")
    if before is None or after is None:
        before, after = moved["before"], moved["after"]
    change = f"{_format_number(before)} before, {_format_number(after)} now"
    return f"{name}: {change} ({moved['effect']:+.2f} deviations, z {moved['z']:+.1f})"


def _format_number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, int | float) else "unknown"


def _explain_calibration(numbers: Mapping[str, Any]) -> Iterator[str]:
    if numbers["reason"] == "rate":
        yield (
            f"Of the events of clean windows {numbers['law']['rate']:.3%} are above the limit "
            f"({numbers['rate_lower']:.3%} to {numbers['rate_upper']:.3%} with 90% confidence); "
            f"by the percentile it were {numbers['nominal_rate']:.3%}."
        )
        yield "What is beyond a third or three times that is not chance: the limit follows what comes too slowly."
    else:
        yield (
            f"The energies of the look-back put the percentile at {_format_number(numbers['t_plain'])}; mapped from the "
            f"{_format_number(numbers['reference_n'])} energies of training it lies at {_format_number(numbers['t_anchored'])}, "
            f"and {_format_number(numbers['t_high'])} is the most that chance explains."
        )
        yield (
            f"Either about {numbers['eps'] or 0:.2%} of the events are outliers, or clean events have a heavier tail "
            "now: from here both look the same."
        )
        yield f"Until somebody decides, the limit is {_format_number(numbers['limit']['value'])}, as if they were outliers."
    yield "`outrider accept` says that this is normal now; `outrider fit` makes a new model of it."


def _explain_silence(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield f"Nothing came for {numbers['silent_s']:,.0f} s, and {numbers['allowed_s']:,.0f} s were allowed."
    if numbers["silence_after"] == "auto" and numbers["usual_s"] is not None:
        yield (
            f"By its own pauses the stream may be silent for {numbers['usual_s']:,.0f} s (alerts.silence_after: auto)."
        )
    if not numbers["at_end"]:
        yield "The source has not said that it has no more: events may be waiting that cannot be read."


def _explain_dead_letters(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"{numbers['dead_letters']:,} of {numbers['records']:,} records of the window were refused, "
        f"{numbers['share']:.1%}; more than {numbers['limit']:.1%} (alerts.max_dead_letter_ratio) is an incident."
    )
    yield "The view dead_letter_history has each with its reason, its offset and the beginning of its bytes."


def _explain_gap(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield f"{numbers['offsets']:,} offsets could not be read; their events are in no score and no window."
    more = len(numbers["ranges"]) - MAX_SHOWN_RANGES
    if more > 0:
        yield f"Below are the first {MAX_SHOWN_RANGES} of their ranges; gap_history has {more:,} more."


EXPLANATIONS: Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "spike": _explain_spike,
    "slow_rise": _explain_slow_rise,
    "drift": _explain_drift,
    "calibration": _explain_calibration,
    "silence": _explain_silence,
    "dead_letters": _explain_dead_letters,
    "gap": _explain_gap,
}
"""What is said of each kind; of one without words its summary and numbers speak."""
