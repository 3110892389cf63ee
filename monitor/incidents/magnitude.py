"""The magnitude test of a window: its largest energy under the tail law of clean events. Pure functions.

A window of n events fires if the p-value of its largest energy is at most alpha / n (the union bound), where alpha is
the part of the spikes' budget that the count test cannot spend: counts are integers, and the count test of a usual
window has a false-alarm probability below its alpha. n is at least the usual number of events, so that an event can
fire the moment it is scored. Dependent events only make the bound conservative.
"""

from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from config.budget import false_alarm_probability
from config.stream_rules import StreamRules
from monitor.incidents.key_energies import KeyMagnitude, fit_key_law
from monitor.incidents.window import ThresholdInForce
from monitor.thresholds.tail_law import MIN_ENERGIES, TailLaw


@dataclass(frozen=True, slots=True, kw_only=True)
class MagnitudeVerdict:
    """The test result of the largest energy of a window.

    Attributes:
        energy: The largest energy.
        p_value: Probability that the energy of a clean event is larger.
        events: Number of events n of the union bound.
        alpha: The false-alarm probability of the window.
        limit: The energy from which an event fires, infinity if none does.
        fires: Whether the window fires.
        key: The habitual key of the event, whose own law the limit is of; None for an event of the other keys.
    """

    energy: float
    p_value: float
    events: int
    alpha: float
    limit: float
    fires: bool
    key: str | None = None


def judge_magnitude(
    in_force: ThresholdInForce,
    events: int,
    energy: float,
    rules: StreamRules,
    *,
    attainable: float,
    share: float = 1.0,
) -> MagnitudeVerdict | None:
    """Return the test result of a window. None if the threshold has no tail law.

    Args:
        in_force: The threshold as it applies to the window.
        events: Number of events of the window, so far or in full.
        energy: Largest energy of the window.
        rules: The rules of the stream.
        attainable: False-alarm probability of the count test of a usual window.
        share: The part of the remaining false-alarm probability that the event is tested with.
    """
    if in_force.tail is None or events <= 0:
        return None
    alpha = share * max(false_alarm_probability(rules.per_week, rules.size_us) - attainable, 0.0)
    n = max(events, in_force.usual_events or 0)
    needed, p_value = alpha / n, in_force.tail.p_value(energy)
    return MagnitudeVerdict(
        energy=energy,
        p_value=p_value,
        events=n,
        alpha=alpha,
        limit=find_least_energy(in_force.tail, needed, in_force.row.threshold),
        # Only an outlier can fire: its event is stored and explained.
        fires=p_value <= needed and energy > in_force.row.threshold,
    )


def judge_key_magnitude(of_stream: MagnitudeVerdict, own: KeyMagnitude) -> MagnitudeVerdict:
    """Return the test result of a habitual key, from that of its largest energy under the law of the stream.

    An event fires if it is beyond both laws: the usual energies of such a key are beyond that of the stream, and a key
    of nearly equal energies has a law that is too narrow for small changes to matter. The key has its own part of the
    false-alarm probability, which the events of other keys do not have, so that the sum is as before.
    """
    if not of_stream.fires:
        return replace(of_stream, key=own.key)
    law, alpha = fit_key_law(own.roots, own.measured, own.median), own.share * of_stream.alpha
    p_window = law.p_value(own.energy)
    return replace(
        of_stream,
        p_value=max(of_stream.p_value, p_window / of_stream.events),
        alpha=alpha,
        limit=max(of_stream.limit, law.energy_at(alpha)),
        fires=p_window <= alpha,
        key=own.key,
    )


def magnitude_details(verdict: MagnitudeVerdict) -> dict[str, Any]:
    """Return a test result as the JSON object that is stored with incidents; the limit is None where nothing fires."""
    return {
        "energy": verdict.energy,
        "p_value": verdict.p_value,
        "events": verdict.events,
        "alpha": verdict.alpha,
        "limit": verdict.limit if isfinite(verdict.limit) else None,
        "fires": verdict.fires,
        **({} if verdict.key is None else {"key": verdict.key}),
    }


def find_least_energy(tail: TailLaw, p: float, threshold: float) -> float:
    """Return the energy from which an event fires at a p-value; infinity if none does. Only outliers fire."""
    return max(tail.energy_at(p), threshold)


def describe_least_energy(limit: float | None) -> str:
    """Return the smallest energy of a single event that can open an incident, as text for a person."""
    if limit is None:
        return f"no single event can open an incident: the law of large energies needs {MIN_ENERGIES} energies"
    if limit == float("inf"):
        return "no single event can open an incident: the tail of the energies is too heavy"
    return f"a single event opens an incident from {limit:.4g} nats on; nothing below can"
