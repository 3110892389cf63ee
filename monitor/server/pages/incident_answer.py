"""The first sentences of the incident page: the answer to "why", before any number. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from config.time_format import format_rounded_duration
from monitor.incidents.explanations import EXPLANATIONS
from monitor.models.attribution import AttributedFeature, Attribution
from monitor.server.pages.formats import (
    clock,
    interval,
    join_words,
    number,
    parse_us,
    plural,
    probability,
    sentence,
    share,
    shorten_times,
    together,
    words,
)
from storage.queries.incident_report import IncidentReport
from storage.queries.incident_windows import IncidentWindow

_MIN_SHARE = 0.1
_MAX_LINES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentAnswer:
    """The summary: a sentence in bold, sentences beside it, and the evidence below it."""

    lead: str
    more: Sequence[str | Markup]
    evidence: Sequence[str | Markup]


def answer_incident(
    report: IncidentReport, windows: Sequence[IncidentWindow], attribution: Attribution | None, beside_us: int
) -> IncidentAnswer:
    """Return the summary of an incident.

    Args:
        report: The stored record of the incident.
        windows: The windows that fired, for a spike or a slow rise.
        attribution: The attribution of their outliers, if it is known.
        beside_us: The present, whose day needs no date.
    """
    numbers = find_numbers(report)
    if report.kind == "spike" and windows and report.windows_fired:
        return IncidentAnswer(
            lead=_count_outliers(windows, beside_us),
            more=[*_describe_lines(attribution), *_describe_key(numbers)],
            evidence=_weigh_spike(numbers, windows[0]),
        )
    lines = explain_tests(report, beside_us)
    if report.kind == "drift" and numbers.get("horizons"):
        return _answer_drift(report, numbers["horizons"], beside_us)
    more = [*_describe_lines(attribution), *_describe_key(numbers)] if report.kind == "slow_rise" else []
    return IncidentAnswer(lead=f"{_sentence(report.summary, beside_us)}.", more=more, evidence=lines[:2])


def find_numbers(report: IncidentReport) -> Mapping[str, Any]:
    """Return the numbers at opening; of a reopened incident, those of the reopening where the opening has none."""
    opened: Mapping[str, Any] = report.details.get("opened") or report.details.get("reopened") or {}
    return opened


def explain_tests(report: IncidentReport, beside_us: int) -> list[str]:
    """Return the test behind the incident, a sentence for each step."""
    return [_sentence(line, beside_us) for line in _explain(report.kind, find_numbers(report))]


def _sentence(text: str, beside_us: int) -> str:
    return sentence(shorten_times(text.strip(), beside_us=beside_us))


def _answer_drift(report: IncidentReport, horizons: Sequence[Mapping[str, Any]], beside_us: int) -> IncidentAnswer:
    """Return the summary of a drift: the statistic that moved most, before and now."""
    horizon = horizons[0]
    first = horizon["drifted"][0]
    subject = first.get("feature") or "the energy"
    start_us, end_us = (parse_us(horizon["window"][side]) for side in ("start", "end"))
    when = interval(start_us, end_us, beside_us=beside_us)
    before, after = (first.get(name) or {} for name in ("values_before", "values_after"))
    if "median" in before and "median" in after:
        was, now = together([before["median"], after["median"]])
        lead = f"{subject} is typically {now}, was {was}, from {when}."
    else:
        lead = f"{_sentence(report.summary, beside_us)}."
    moved, limit = number(first.get("effect"), 2), number(horizon.get("limit"), 1)
    others = horizon.get("n_drifted", 1) - 1
    more = [f"{plural(others, 'further statistic')} of {horizon['statistics']:,} moved as well."] if others > 0 else []
    base = horizon.get("base") or {}
    against = ""
    if "frozen_at" in base:
        before_us = parse_us(base["frozen_at"])
        against = f", against the {base['horizons']:,} spans before {clock(before_us, beside_us=beside_us)}"
    advice = str(find_numbers(report).get("advice", "")).removeprefix("drift: ")
    return IncidentAnswer(
        lead=lead,
        more=more,
        evidence=[
            f"That is {moved} training deviations; z is {number(first.get('z'), 1)}, the limit {limit}{against}.",
            *([f"Advice: {advice}."] if advice else []),
        ],
    )


def _explain(kind: str, numbers: Mapping[str, Any]) -> Iterator[str]:
    """Yield the explanation as far as the stored numbers allow: incidents of older versions lack some."""
    explain = EXPLANATIONS.get(kind)
    if explain is None or not numbers:
        return
    try:
        yield from explain(numbers)
    except (KeyError, TypeError):
        return


def _count_outliers(windows: Sequence[IncidentWindow], beside_us: int) -> str:
    outliers, events = sum(each.outliers for each in windows), sum(each.events for each in windows)
    expected = sum(each.expected or 0.0 for each in windows)
    when = interval(windows[0].start_us, windows[-1].end_us, beside_us=beside_us)
    where = f"the window from {when}" if len(windows) == 1 else f"the {len(windows):,} windows that fired from {when}"
    clean = "a clean window" if len(windows) == 1 else "clean windows"
    return (
        f"{outliers:,} of {plural(events, 'event')} in {where} are outliers; "
        f"{clean} would have {number(expected, 1 if expected < 100 else 0)}."
    )


def _describe_lines(attribution: Attribution | None) -> Iterator[str]:
    """Yield a sentence about the features that add most, with their values here and usually."""
    found = () if attribution is None else attribution.lines
    lines = [line for line in found if line.share is not None and line.share >= _MIN_SHARE][:_MAX_LINES]
    if not lines:
        return
    told = [_describe_feature(line.features[0], len(line.features)) for line in lines]
    shares = sum(line.share or 0.0 for line in lines)
    yield f"{share(min(shares, 1.0))} of their extra energy comes from {join_words(told)}."


def _describe_feature(feature: AttributedFeature, of_line: int) -> str:
    name = feature.name if of_line == 1 else f"{feature.name} with {plural(of_line - 1, 'feature')} that move with it"
    if feature.here is None:
        return name
    if feature.usual is None:
        return f"{name} (median {together([feature.here.median])[0]})"
    texts = together([feature.here.median, feature.here.low, feature.here.high, *feature.usual])
    here = f"{texts[1]} to {texts[2]}" if feature.is_wider else f"median {texts[0]}"
    return f"{name} ({here}, usually {texts[3]} to {texts[4]})"


def _describe_key(numbers: Mapping[str, Any]) -> Iterator[str]:
    keys = numbers.get("keys") or ()
    outliers = numbers.get("outliers")
    if keys and outliers:
        first = keys[0]
        yield f"{share(first['outliers'] / outliers)} of the outliers of the first window have the key {first['key']}."


def _weigh_spike(numbers: Mapping[str, Any], first: IncidentWindow) -> list[str | Markup]:
    """Return how probable the first window is by chance, and how often a clean window fires."""
    if "fires_at" not in numbers:
        return []
    said: list[str | Markup] = [
        Markup(
            "The window that opened it had {} among {}; {} or more fire. Chance makes such a window with a probability "
            "of {}."
        ).format(
            plural(numbers["outliers"], "outlier"),
            plural(numbers["events"], "event"),
            f"{numbers['fires_at']:,}",
            probability(numbers["p_value"]),
        )
    ]
    attainable = numbers.get("attainable")
    if attainable:
        period = format_rounded_duration((first.end_us - first.start_us) / attainable)
        said.append(f"A clean window reaches {numbers['fires_at']:,} about once in {period}.")
    if numbers.get("test") == "magnitude":
        said.append("It fired by its largest energy, not by the count.")
    return said


def title_of(report: IncidentReport) -> str:
    """Return the name of an incident: stream and kind."""
    return f"{report.stream}: {words(report.kind)}"
