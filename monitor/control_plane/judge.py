"""Judging: merge a sealed window's parts and decide what it means. Pure: facts in, rows out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from monitor.incidents.lifecycle import Finding, Interval, Kind, TransitionType
from monitor.incidents.records import find_dead_letters, find_gaps
from monitor.incidents.rows import update_incident, withdraw_incident
from monitor.incidents.slow_rise import find_slow_rise
from monitor.incidents.spike import SpikeVerdict, build_spike_finding, evaluate_open_window, judge_spike
from monitor.incidents.window import JudgeRule, ThresholdInForce, WindowUnderTest
from monitor.statistics.counts import RATE_BOUND_LEVEL, rate_bound
from monitor.statistics.part import Part, decode_part, encode_part, merge_parts
from monitor.statistics.sketch import summarise_energies
from storage.control.records import Incident, Judgement, WindowFacts, WindowRow

__all__ = ["JudgeRule", "ThresholdInForce", "judge_open_window", "judge_window", "needs_evidence"]

_EXPLAINED_KINDS = {Kind.SPIKE.value, Kind.SLOW_RISE.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class _WindowFindings:
    """What the detectors of outliers found in a window."""

    verdict: SpikeVerdict
    spike: Finding | None
    rise: Finding | None
    rise_since_us: int | None


def judge_window(
    facts: WindowFacts,
    calibrated: Callable[[int], ThresholdInForce],
    rule: JudgeRule,
    now_us: int,
    evidence: Mapping[str, Any] | None = None,
) -> Judgement:
    """Return all that a sealed window leads to.

    A window with neither events nor dead letters (only late ones) is kept, and decides nothing: whether such a part
    came before or after the seal depends on the speed of reading, which no decision may. For the same reason late
    events are in the window's count alone, which grows as more of them come, and in nothing that is kept for good.

    Args:
        facts: The window's parts, the open incidents, gaps that belong to none yet, what the last window handed on.
        calibrated: Gives a threshold row by its id.
        rule: The settings.
        now_us: The wall clock, only to tell whom a notification is too old for.
        evidence: What was looked up since the window fires (`wants_evidence`).
    """
    window = _window_under_test(facts, calibrated, rule, evidence)
    if window is None:
        part, threshold_id = _merge_parts(facts)
        return Judgement(window=_window_row(facts, part, threshold_id, judged=False))
    early = next((each for each in facts.open_incidents if _opened_by_window(each, facts)), None)
    known = [incident for incident in facts.open_incidents if incident is not early]
    verdict = judge_spike(window.threshold, window.part.events, window.part.outliers, rule)
    spike = build_spike_finding(window, verdict)
    rows = _confirm_early_incident(_update_incident(Kind.SPIKE, spike, known, window, now_us), early, window, now_us)
    in_spike = any(row.status == "open" for row in rows)
    rise, raised = find_slow_rise(window, facts.state.get("slow_rise"), known, spike=in_spike)
    rows += _update_incident(Kind.SLOW_RISE, raised, known, window, now_us)
    rows += _update_incident(Kind.DEAD_LETTERS, find_dead_letters(facts, window.part, rule), known, window, now_us)
    rows += _update_incident(Kind.GAP, find_gaps(facts), known, window, now_us)
    alarmed_us = None if rise.alarm is None else rise.alarm.since_us
    found = _WindowFindings(verdict=verdict, spike=spike, rise=raised, rise_since_us=alarmed_us)
    return Judgement(
        window=_judged_window_row(window, found),
        incidents=rows,
        gap_ids=[gap.id for gap in facts.gaps],
        state={**facts.state, "slow_rise": rise.to_json()},
    )


def judge_open_window(
    facts: WindowFacts,
    calibrated: Callable[[int], ThresholdInForce],
    rule: JudgeRule,
    now_us: int,
    evidence: Mapping[str, Any] | None = None,
) -> list[Incident]:
    """Return the incident of a window that is still open and is a spike already, or nothing.

    It bears the times that the judgement of the full window will give it, which then replaces its numbers. So nobody
    can tell from the incidents when somebody looked, except where the window has more events in the end than
    `EARLY_MARGIN` times the fullest of the look-back and is none: then the incident is withdrawn.
    """
    window = _window_under_test(facts, calibrated, rule, evidence)
    if window is None or any(each.kind == Kind.SPIKE for each in facts.open_incidents):
        return []
    verdict = evaluate_open_window(window.threshold, window.part.events, window.part.outliers, rule)
    if verdict is None or not verdict.fires:
        return []
    return _update_incident(Kind.SPIKE, build_spike_finding(window, verdict, early=True), (), window, now_us)


def needs_evidence(rows: Sequence[Incident]) -> bool:
    """Say whether a transition is written that is to be explained by the strangest events and by keys."""
    return any(
        row.kind in _EXPLAINED_KINDS and row.transition is not None and row.transition.type != TransitionType.RESOLVED
        for row in rows
    )


def _window_under_test(
    facts: WindowFacts,
    calibrated: Callable[[int], ThresholdInForce],
    rule: JudgeRule,
    evidence: Mapping[str, Any] | None,
) -> WindowUnderTest | None:
    part, threshold_id = _merge_parts(facts)
    if not part.events and not part.dead:
        return None
    assert threshold_id is not None, "the fold gives every part its threshold"
    known = _apply_accepted_rate(calibrated(threshold_id), facts)
    return WindowUnderTest(facts=facts, part=part, threshold=known, rule=rule, evidence=evidence or {})


def _apply_accepted_rate(known: ThresholdInForce, facts: WindowFacts) -> ThresholdInForce:
    """Return the calibration with the rate that a person has accepted, until a look-back has had time to learn it."""
    accepted = facts.state.get("accepted")
    if accepted is None or facts.window_start_us >= accepted["until_us"] or accepted["model_id"] != known.row.model_id:
        return known
    rate = accepted["rate"]
    law = replace(known.count_model, rate=max(known.count_model.rate, rate))
    return replace(known, count_model=law, clean_rate=max(known.clean_rate, rate_bound(law, RATE_BOUND_LEVEL)))


def _merge_parts(facts: WindowFacts) -> tuple[Part, int | None]:
    part = merge_parts([decode_part(stored.payload) for stored in facts.parts])
    return part, next((stored.threshold_id for stored in facts.parts if stored.events), facts.parts[0].threshold_id)


def _opened_by_window(incident: Incident, facts: WindowFacts) -> bool:
    """Say whether the incident was opened by this very window, before it was judged."""
    return incident.kind == Kind.SPIKE and incident.window_start_us == facts.window_start_us


def _update_incident(
    kind: Kind, finding: Finding | None, known: list[Incident] | tuple[()], window: WindowUnderTest, now_us: int
) -> list[Incident]:
    facts = window.facts
    return update_incident(
        kind,
        finding,
        known,
        Interval(start_us=facts.window_start_us, end_us=facts.window_end_us),
        window.rule.incident_policy,
        now_us=now_us,
        # A raised rate is over when windows say so; windows without events say nothing of it.
        quiet_since_us=None if kind is Kind.SLOW_RISE else facts.last_judged_end_us,
    )


def _confirm_early_incident(
    rows: list[Incident], early: Incident | None, window: WindowUnderTest, now_us: int
) -> list[Incident]:
    """Give what was opened early the numbers of the full window, or take it back."""
    if early is None:
        return rows
    if rows:
        return [replace(row, id=early.id) for row in rows]
    facts = window.facts
    why = (
        f"withdrawn: the full window has {window.part.events:,} events, more than twice as many as any before it, "
        f"and {window.part.outliers:,} outliers are no spike among them"
    )
    interval = Interval(start_us=facts.window_start_us, end_us=facts.window_end_us)
    return [withdraw_incident(early, why, interval, window.rule.incident_policy, now_us=now_us)]


def _window_row(facts: WindowFacts, part: Part, threshold_id: int | None, *, judged: bool) -> WindowRow:
    return WindowRow(
        window_start_us=facts.window_start_us,
        window_end_us=facts.window_end_us,
        threshold_id=threshold_id,
        events=part.events,
        outliers=part.outliers,
        late=part.late,
        dead=part.dead,
        judged=judged,
    )


def _judged_window_row(window: WindowUnderTest, found: _WindowFindings) -> WindowRow:
    part, verdict = window.part, found.verdict
    energies = summarise_energies(part, window.threshold.scale)
    return replace(
        _window_row(window.facts, part, window.threshold.row.id, judged=True),
        expected=verdict.mean,
        p_value=verdict.p_value if part.events else None,
        energy_p50=energies.p50 if energies else None,
        energy_p99=energies.p99 if energies else None,
        energy_max=energies.maximum if energies else None,
        payload=_payload_without_late(window),
        details=_fired_details(found),
    )


def _payload_without_late(window: WindowUnderTest) -> bytes:
    """Return the window's part as it is kept, without its late events: most often the only one that was stored."""
    part, stored = window.part, window.facts.parts
    if len(stored) == 1 and not part.late:
        return stored[0].payload
    return encode_part(replace(part, late=0))


def _fired_details(found: _WindowFindings) -> dict[str, Any] | None:
    """Return what a window fired, as JSON; a window that fired teaches the law of counts nothing."""
    if found.spike is not None:
        return {"fired": Kind.SPIKE.value, "limit": found.verdict.count_threshold}
    if found.rise is not None:
        return {"fired": Kind.SLOW_RISE.value, "since_us": found.rise_since_us}
    return None
