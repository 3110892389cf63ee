"""Changes of drift statistics as values and as text, in the units of the features. Pure functions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from config.number_format import format_together
from monitor.incidents.drift_values import DriftValues
from monitor.statistics.drift_means import DriftStatistics
from monitor.statistics.drift_summary import ValueSummary
from monitor.statistics.part import Float64


def summarise_change(
    index: int, before: Float64, after: Float64, statistics: DriftStatistics, values: DriftValues | None = None
) -> dict[str, Any]:
    """Return a change as a JSON object: the summaries of the values before and after; empty for other statistics.

    Args:
        index: Index of the statistic.
        before: Means of all statistics before, (J,).
        after: Means of all statistics now, (J,).
        statistics: Statistics of the model.
        values: The values of the features, from samples; None: the summaries come from the means.
    """
    summaries = _summarise_values(index, before, after, statistics, values)
    return {
        name: asdict(summary) | {"exceeded": list(summary.exceeded)}
        for name, summary in zip(("values_before", "values_after"), summaries, strict=True)
        if summary is not None
    }


def describe_changes(
    indices: Sequence[int],
    before: Float64,
    after: Float64,
    effects: Float64,
    statistics: DriftStatistics,
    values: DriftValues | None = None,
) -> Iterator[str]:
    """Yield a clause for each changed feature, pair or component; rank and spread of one feature are one change."""
    told: set[str] = set()
    for index in indices:
        statistic = statistics.statistic_at(index)
        subject = statistic.feature or "energy"
        if statistic.name.endswith(("rank", "spread")):
            if subject in told:
                continue
            told.add(subject)
        yield f"{_describe_change(index, before, after, statistics, values)} ({effects[index]:+.2f} deviations)"


def _summarise_values(
    index: int, before: Float64, after: Float64, statistics: DriftStatistics, values: DriftValues | None
) -> tuple[ValueSummary | None, ValueSummary | None]:
    """Return the values of a feature before and now: sampled ones where they are known."""
    statistic = statistics.statistic_at(index)
    if values is not None and statistic.name in {"rank", "spread"}:
        sampled = values.summarise(statistic.feature)
        if sampled is not None:
            return sampled
    return statistics.summarise_values(index, before), statistics.summarise_values(index, after)


def _describe_change(
    index: int, before: Float64, after: Float64, statistics: DriftStatistics, values: DriftValues | None
) -> str:
    statistic = statistics.statistic_at(index)
    was, now = _summarise_values(index, before, after, statistics, values)
    if was is None or now is None:
        return describe_mean(statistic.name, statistic.feature, float(before[index]), float(after[index]))
    subject = statistic.feature or "energy"
    if statistic.name.endswith("rank"):
        typical = format_together((now.median, was.median), 4)
        return f"{subject} is typically {typical[0]}, was {typical[1]}"
    return f"{subject} is {format_range(asdict(now))}, was {format_range(asdict(was))} in 90% of the events"


def describe_mean(name: str, feature: str, before: float, after: float) -> str:
    """Return the change of a share of events or of a product of two features as a clause."""
    if name == "occupancy":
        # Incidents of older versions have a component's number.
        events = f"events of {feature}" if feature.startswith("component ") else f"events {feature}"
        return f"{events} are {after:.1%} of all, were {before:.1%}"
    if name == "pair":
        first, second = feature.split(" * ", 1)
        return (
            f"the mean product of {first} and {second}, as deviations from their training means, "
            f"is {after:.3g}, was {before:.3g}"
        )
    return f"{name.replace('_', ' ')} is {after:.3g}, was {before:.3g}"


def format_range(summary: Mapping[str, Any]) -> str:
    """Return the 5% and the 95% quantile as text; a quantile that is not known is only bounded."""
    low, high = format_together((summary["low"], summary["high"]), 4)
    below = "below " if "low" in summary["exceeded"] else ""
    above = "above " if "high" in summary["exceeded"] else ""
    return f"{below}{low} to {above}{high}"


def format_summary_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return mean, median and range before and after as text; a mean is a bound where a quantile of its side is one."""
    medians = format_together((before["median"], after["median"]), 4)
    parts = [f"median about {medians[0]} before, {medians[1]} now"]
    if before["mean"] is not None and after["mean"] is not None:
        means = format_together((before["mean"], after["mean"]), 4)
        bounds = [_bound_of_mean(each) for each in (before, after)]
        parts.append(f"mean {bounds[0]} {means[0]} before, {bounds[1]} {means[1]} now")
    parts.append(f"90% of the events {format_range(before)} before, {format_range(after)} now")
    return "; ".join(parts)


def _bound_of_mean(summary: Mapping[str, Any]) -> str:
    """Return how a mean is related to that of the events, whose values beyond the training quantiles are not known."""
    sides = {"high": "above", "low": "below"}
    exceeded = [word for name, word in sides.items() if name in summary["exceeded"]]
    return exceeded[0] if len(exceeded) == 1 else "about"
