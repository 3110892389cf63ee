"""The finding of a spike: a window with improbably many outliers, whole or still open. Pure."""

from monitor.incidents.lifecycle import Finding, Kind, Severity
from monitor.incidents.rows import format_utc
from monitor.incidents.spike import SpikeVerdict, false_alarm_probability, judge_count
from monitor.incidents.window import JudgeRule, ThresholdInForce, WindowUnderTest, window_details

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
