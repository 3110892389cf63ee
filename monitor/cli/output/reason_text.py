"""Text of the reasons of one event: a line per cause, from the contributions stored with an incident. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from config.number_format import format_together
from monitor.cli.output.tables import escape_unprintable, format_value

_MIN_DEPARTURE_DEVIATIONS = 3.0
_MIN_SHARE_OF_A_PAIR = 0.1
_VARIATION_FLOOR = 0.05
"""Added to the change from event to event, in units of its training mean, before the logarithm of a `variation`."""


def format_reasons(reasons: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the text of each line of features; incidents of older versions have features without contributions."""
    if reasons and "line_contribution" not in reasons[0]:
        yield from map(_format_cost, reasons)
        return
    for _, group in groupby(reasons, key=itemgetter("line")):
        line = list(group)
        text = _format_derived if any(_role_of(each) != "value" for each in line) else _format_values
        yield escape_unprintable(f"{text(line)}; {_format_share(line[0])}")


def _role_of(feature: Mapping[str, Any]) -> str:
    """Return the role of a feature; incidents of older versions have values only."""
    return str(feature.get("role", "value"))


def _format_values(features: Sequence[Mapping[str, Any]]) -> str:
    """Return names, values, usual ranges and expected values of features on one line."""
    names = [str(each["feature"]) for each in features]
    if features[0]["line_features"] > len(features):
        names.append(f"{features[0]['line_features'] - len(features):,} more")
    texts = [_format_usual(each) for each in features]
    share = features[0]["line_share"]
    is_reason = share is not None and share >= _MIN_SHARE_OF_A_PAIR
    together = ", unusual together" if is_reason and len(features) > 1 and all(map(_is_usual, features)) else ""
    return (
        f"{_join_words(names)}: {', '.join(value for value, _ in texts)}; "
        f"usually {_join_words([usual for _, usual in texts])}{together}{_format_expected(features)}"
    )


def _format_expected(features: Sequence[Mapping[str, Any]]) -> str:
    """Return the values that the other features lead to.

    An expected value far outside of the usual range is not shown: it is extrapolated from other features that are
    unusual themselves. Of several features, those that depart by more than three deviations are named.
    """
    texts = []
    several = features[0]["line_features"] > 1
    for each in features:
        expected = [value for value in (each["expected"], *each.get("alternatives", ())) if _is_near_usual(value, each)]
        if not expected or each["z"] is None or (several and abs(each["z"]) <= _MIN_DEPARTURE_DEVIATIONS):
            continue
        values = format_together((*expected, each["value"]), 3)[:-1]
        texts.append(f"{' or '.join(values)} expected" + (f" for {each['feature']}" if several else ""))
    return f", {_join_words(texts)} from the other features" if texts else ""


def _is_near_usual(expected: float | None, feature: Mapping[str, Any]) -> bool:
    """Return True if an expected value is outside of the usual range by at most the width of the range."""
    value, low, high = (feature[name] for name in ("value", "low", "high"))
    return None not in (expected, value, low, high) and 2 * low - high <= expected <= 2 * high - low


def _is_usual(feature: Mapping[str, Any]) -> bool:
    """Return True if a value is within the usual range."""
    value, low, high = (feature[name] for name in ("value", "low", "high"))
    return None not in (value, low, high) and bool(low <= value <= high)


def _format_derived(features: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a line with features that are derived from fields, field by field."""
    names = dict.fromkeys(str(each["field"]) for each in features)
    return "; ".join(_format_field(name, [each for each in features if each["field"] == name]) for name in names)


def _format_field(name: str, features: Sequence[Mapping[str, Any]]) -> str:
    """Return the value of a field, its distance from the recent level, and its variation, the largest share first.

    Those within their usual range are left out, except for the first one.
    """
    by_role = {_role_of(each): each for each in features}
    told = [each for each in features if each is features[0] or not _is_usual(each)]
    phrases = []
    for each in told:
        role = _role_of(each)
        if role == "level_difference":
            phrases.append(_format_level_difference(each, by_role.get("value")))
        elif role == "variation":
            phrases.append(_format_variation(each))
        elif by_role.get("level_difference") not in told:
            value, usual = _format_usual(each)
            phrases.append(f"is {value}, usually {usual}")
    return f"{name} {_join_words(phrases)}"


def _format_level_difference(difference: Mapping[str, Any], value: Mapping[str, Any] | None) -> str:
    """Return the distance of a value from its recent level, and the level if the value is known."""
    distance, low, high = (difference[name] for name in ("value", "low", "high"))
    if distance is None:
        return "has no finite distance from its recent level"
    side = "above" if distance >= 0 else "below"
    level = ""
    if value is not None and value["value"] is not None:
        level = f" of {format_together((value['value'] - distance, value['value']), 3)[0]}"
    usual = "" if None in (low, high) else f" (usually {low:+.3g} to {high:+.3g} from it)"
    return f"is {abs(distance):.3g} {side} its recent level{level}{usual}"


def _format_variation(variation: Mapping[str, Any]) -> str:
    """Return the recent changes from event to event as a multiple of the usual ones."""
    if variation["value"] is None:
        return "has no finite variation"
    ratio = max(math.exp(min(variation["value"], 700.0)) - _VARIATION_FLOOR, 0.0)
    if ratio < 1e-3:
        return "has stopped changing from event to event"
    return f"changes {ratio:.3g} times as much as usual from event to event"


def _join_words(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _format_usual(feature: Mapping[str, Any]) -> tuple[str, str]:
    """Return a value and its usual range as text."""
    value, low, high = (feature[name] for name in ("value", "low", "high"))
    if None in (value, low, high):
        return format_value(value), "unknown"
    value, low, high = format_together((value, low, high), 5)
    return value, f"{low} to {high}"


def _format_share(line: Mapping[str, Any]) -> str:
    contribution, share = line["line_contribution"], line["line_share"]
    if contribution is None:
        return "no finite contribution"
    size = f"{abs(contribution):.3g} nats" if share is None else f"{abs(share):.0%} of the excess energy"
    return f"makes the event likelier by {size}" if contribution < 0 else size


def _format_cost(reason: Mapping[str, Any]) -> str:
    value, expected, low, high = (reason[name] for name in ("value", "expected", "low", "high"))
    if None in (value, expected, low, high, reason["cost"]):
        return escape_unprintable(f"{reason['feature']} {format_value(value)}: no finite explanation")
    value, expected, low, high = format_together((value, expected, low, high), 5)
    return escape_unprintable(
        f"{reason['feature']} {value} where {expected} is expected ({low} to {high}): "
        f"{reason['cost']:.3g} nats of the energy"
    )
