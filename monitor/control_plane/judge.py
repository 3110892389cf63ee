"""Judging a window: merge its parts, detect incidents and build the rows. Pure functions of stored facts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from config.stream_rules import StreamRules
from monitor.incidents.effective_threshold import apply_to_window, expect_habitual_keys, find_largest_energies
from monitor.incidents.habitual_keys import KeyHabits, changed_rows, is_learned, learn_habits
from monitor.incidents.late import find_late
from monitor.incidents.lifecycle import Finding, Interval, Kind, TransitionType
from monitor.incidents.records import find_dead_letters, find_gaps
from monitor.incidents.rows import update_incident, withdraw_incident
from monitor.incidents.slow_rise import find_adopted_rise, find_slow_rise
from monitor.incidents.spike import (
    SpikeTests,
    build_spike_finding,
    count_expected_events,
    evaluate_open_window,
    judge_spike,
)
from monitor.incidents.spike_growth import SpikeLevel, find_growth, start_level
from monitor.incidents.window import ThresholdInForce, WindowUnderTest
from monitor.statistics.event_sample import merge_encoded_samples
from monitor.statistics.part import Part, merge_parts
from monitor.statistics.part_codec import decode_part, encode_part
from monitor.statistics.sketch import summarise_energies
from storage.control.evidence import WindowKeys
from storage.control.records import HabitualKeyRow, Incident, Judgement, WindowFacts, WindowRow, WindowSample
from storage.control.reopening import reopen_incident

_EXPLAINED_KINDS = {Kind.SPIKE.value, Kind.SLOW_RISE.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class _WindowFindings:
    """The results of spike and slow-rise detection in a window."""

    tests: SpikeTests
    spike: Finding | None
    rise: Finding | None
    rise_since_us: int | None


def judge_window(
    facts: WindowFacts,
    get_threshold: Callable[[int], ThresholdInForce],
    rules: StreamRules,
    now_us: int,
    evidence: Mapping[str, Any] | None = None,
    keys: WindowKeys | None = None,
) -> Judgement:
    """Return the judgement of a sealed window.

    A window with late events alone is stored without a judgement. Late events are in the count of the window, which
    grows with further late events after the judgement, and in the incident `late`, but in no other stored number. As
    long as no source is idle, they are counted in windows that are not sealed yet, so that the reading speed has no
    influence on that incident.

    Args:
        facts: The parts of the window, the open incidents, unassigned gaps and the judge state of the last window.
        get_threshold: Returns a threshold row by its id.
        rules: The rules of the stream.
        now_us: The wall clock. It only determines which notifications are too old to be sent.
        evidence: The evidence of the alarm; looked up if `needs_evidence` holds for the judgement without it.
        keys: The keys of the window. None: they are not learned from, and none is expected.
    """
    window = _window_under_test(facts, get_threshold, rules, evidence)
    if window is None:
        part, threshold_id = _merge_parts(facts)
        return Judgement(window=_window_row(facts, part, threshold_id, judged=False))
    early = next((each for each in facts.open_incidents if _opened_by_window(each, facts)), None)
    incidents = [incident for incident in facts.open_incidents if incident is not early]
    clean_rate = window.threshold.count_model.rate
    largest = find_largest_energies(window, keys)
    window = expect_habitual_keys(window, {} if keys is None else keys.counts, window.part.events)
    part = window.part
    tests = judge_spike(window.threshold, part.events, part.outliers, largest, rules)
    spike = build_spike_finding(window, tests)
    level, spike = _find_growth(window, incidents, spike)
    rows = _confirm_early_incident(
        _update_incident(Kind.SPIKE, spike, incidents, window, now_us), early, window, now_us
    )
    # An incident that was opened again stays open for a while after its clean windows, which are tested as others.
    in_spike = any(row.status == "open" and row.clean_windows < rules.resolve_after for row in rows)
    adopted = find_adopted_rise(window, facts.state.get("slow_rise"), incidents)
    if adopted is not None:
        rows.append(_end_adopted_rise(adopted, window, now_us))
        incidents = [incident for incident in incidents if incident is not adopted]
    rise, raised = find_slow_rise(window, facts.state.get("slow_rise"), incidents, spike=in_spike)
    rows += _update_incident(Kind.SLOW_RISE, raised, incidents, window, now_us)
    rows += _update_incident(Kind.DEAD_LETTERS, find_dead_letters(facts, window.part, rules), incidents, window, now_us)
    rows += _update_incident(Kind.LATE, find_late(facts, window.part, rules), incidents, window, now_us)
    rows += _update_incident(Kind.GAP, find_gaps(facts), incidents, window, now_us)
    alarmed_us = None if rise.alarm is None else rise.alarm.since_us
    habits, habitual_rows = _learn_habits(window, None if keys is None else _clip_largest(keys, tests), clean_rate)
    findings = _WindowFindings(tests=tests, spike=spike, rise=raised, rise_since_us=alarmed_us)
    return Judgement(
        window=_judged_window_row(window, findings),
        incidents=rows,
        gap_ids=[gap.id for gap in facts.gaps],
        state={
            **facts.state,
            "slow_rise": rise.to_json(),
            "spike": _level_after(level, window, rows),
            **habits,
        },
        habitual_keys=habitual_rows,
        sample=_merge_samples(window),
    )


def judge_open_window(
    facts: WindowFacts,
    get_threshold: Callable[[int], ThresholdInForce],
    rules: StreamRules,
    now_us: int,
    evidence: Mapping[str, Any] | None = None,
    keys: WindowKeys | None = None,
) -> list[Incident]:
    """Return the spike incident of a window that is still open, or an empty list.

    The incident has the times of the full window, and the judgement of the full window replaces its numbers. So the
    stored incidents do not depend on the time of this call, with one exception: if the full window has more than
    `EARLY_EVENTS_FACTOR` times as many events as the largest window of the look-back and is no spike, the incident is
    withdrawn.
    """
    window = _window_under_test(facts, get_threshold, rules, evidence)
    if window is None or any(each.kind == Kind.SPIKE for each in facts.open_incidents):
        return []
    part = window.part
    events = count_expected_events(window.threshold, part.events)
    if events is None:
        return []
    largest = find_largest_energies(window, keys)
    window = expect_habitual_keys(window, {} if keys is None else keys.counts, events)
    tests = evaluate_open_window(window.threshold, part.events, part.outliers, largest, rules)
    if tests is None or not tests.fires:
        return []
    return _update_incident(Kind.SPIKE, build_spike_finding(window, tests, early=True), (), window, now_us)


def needs_evidence(rows: Sequence[Incident]) -> bool:
    """Return whether a transition needs evidence: the most anomalous events and the suspect keys."""
    return any(
        row.kind in _EXPLAINED_KINDS and row.transition is not None and row.transition.type != TransitionType.RESOLVED
        for row in rows
    )


def wants_key_counts(facts: WindowFacts) -> bool:
    """Return whether a window is judged with the counts of its keys: to learn habits, or as some key is habitual."""
    events = sum(part.events for part in facts.parts)
    return is_learned(facts.window_start_us, facts.window_end_us, events) or expects_keys(facts)


def tracked_keys(facts: WindowFacts) -> list[str]:
    """Return the keys whose events have to be counted in a window, also without outliers."""
    return list(facts.state.get("keys", {}).get("tracked", {}))


def expects_keys(facts: WindowFacts) -> bool:
    """Return whether any key is habitual in a window."""
    return bool(KeyHabits.from_json(facts.state.get("keys")).valid_at(facts.window_start_us))


def _clip_largest(keys: WindowKeys, tests: SpikeTests) -> WindowKeys:
    """Return the keys with the energies of habitual keys that fired at their limit.

    As in the tail law of the stream: left as they are, a few would hide all later ones; without them, the law would
    follow every false alarm down.
    """
    clipped = {each.key: each.limit for each in tests.magnitudes if each.fires and each.key is not None}
    return replace(keys, largest={**keys.largest, **clipped})


def _learn_habits(
    window: WindowUnderTest, keys: WindowKeys | None, clean_rate: float
) -> tuple[dict[str, Any], list[HabitualKeyRow]]:
    """Return the entry of the judge state, and the rows of the keys that begin or end to be habitual."""
    if keys is None:
        return {}, []
    facts, counts = window.facts, keys.counts
    before = KeyHabits.from_json(facts.state.get("keys"))
    if not counts and not before.tracked:
        return {}, []
    after = learn_habits(
        before,
        counts,
        window_start_us=facts.window_start_us,
        window_end_us=facts.window_end_us,
        clean_rate=clean_rate,
        adopt_after_us=window.rules.adopt_after_us,
        largest=keys.largest,
        median=window.threshold.scale.median,
    )
    return {"keys": after.to_json()}, changed_rows(before, after, facts.window_end_us)


def _window_under_test(
    facts: WindowFacts,
    get_threshold: Callable[[int], ThresholdInForce],
    rules: StreamRules,
    evidence: Mapping[str, Any] | None,
) -> WindowUnderTest | None:
    part, threshold_id = _merge_parts(facts)
    if not part.events and not part.dead:
        return None
    assert threshold_id is not None, "the fold gives every part its threshold"
    threshold = apply_to_window(get_threshold(threshold_id), facts.window_start_us, facts.window_end_us, facts.state)
    return WindowUnderTest(facts=facts, part=part, threshold=threshold, rules=rules, evidence=evidence or {})


def _merge_parts(facts: WindowFacts) -> tuple[Part, int | None]:
    part = merge_parts([decode_part(stored.payload) for stored in facts.parts])
    return part, next((stored.threshold_id for stored in facts.parts if stored.events), facts.parts[0].threshold_id)


def _opened_by_window(incident: Incident, facts: WindowFacts) -> bool:
    """Return whether this window opened the incident, or opened it again, before it was judged."""
    return incident.kind == Kind.SPIKE and _start_of(incident) == facts.window_start_us


def _start_of(incident: Incident) -> int:
    """Return the start of the window that opened an incident, or that opened it again last."""
    return int(incident.details.get("reopened", {}).get("window_start_us", incident.window_start_us))


def _update_incident(
    kind: Kind,
    finding: Finding | None,
    incidents: list[Incident] | tuple[()],
    window: WindowUnderTest,
    now_us: int,
) -> list[Incident]:
    facts = window.facts
    return update_incident(
        kind,
        finding,
        incidents,
        Interval(start_us=facts.window_start_us, end_us=facts.window_end_us),
        window.rules,
        now_us=now_us,
        # Only windows with events end a slow rise; quiet time does not.
        quiet_since_us=None if kind is Kind.SLOW_RISE else facts.last_judged_end_us,
    )


def _confirm_early_incident(
    rows: list[Incident], early: Incident | None, window: WindowUnderTest, now_us: int
) -> list[Incident]:
    """Replace the numbers of an early incident by those of the full window, or withdraw it."""
    if early is None:
        return rows
    if rows:
        return [_keep_acknowledgement(_replace_numbers(early, row), early) for row in rows]
    facts = window.facts
    why = (
        f"withdrawn: the full window has {window.part.events:,} events, more than twice as many as any before it, "
        f"and {window.part.outliers:,} outliers are no spike among them"
    )
    interval = Interval(start_us=facts.window_start_us, end_us=facts.window_end_us)
    return [withdraw_incident(early, why, interval, window.rules, now_us=now_us)]


def _replace_numbers(early: Incident, row: Incident) -> Incident:
    return reopen_incident(early, row) if "reopened" in early.details else replace(row, id=early.id)


def _keep_acknowledgement(row: Incident, early: Incident) -> Incident:
    return replace(row, acknowledged_until_us=early.acknowledged_until_us if row.severity == early.severity else None)


def _find_growth(
    window: WindowUnderTest, incidents: Sequence[Incident], spike: Finding | None
) -> tuple[SpikeLevel | None, Finding | None]:
    """Return the level of the open spike incident and the finding of a window; None and the finding without one."""
    own = next((each for each in incidents if each.kind == Kind.SPIKE), None)
    if own is None:
        return None, spike
    level = SpikeLevel.from_json(window.facts.state.get("spike"), _start_of(own))
    if level is None:  # an incident of a former version
        return start_level(window, _start_of(own)), spike
    return find_growth(level, window, spike)


def _level_after(level: SpikeLevel | None, window: WindowUnderTest, rows: Sequence[Incident]) -> dict[str, Any] | None:
    """Return the level to store: that of the spike incident that is open after a window, None without one."""
    spike = next((row for row in rows if row.kind == Kind.SPIKE and row.status == "open"), None)
    if spike is None:
        return None
    if level is None or level.incident_us != _start_of(spike):
        level = start_level(window, _start_of(spike))
    return level.to_json()


def _end_adopted_rise(incident: Incident, window: WindowUnderTest, now_us: int) -> Incident:
    facts, rules = window.facts, window.rules
    why = "rebased: the rise lasts, and the threshold has adopted its rate of outliers as normal"
    interval = Interval(start_us=facts.window_start_us, end_us=facts.window_end_us)
    return withdraw_incident(incident, why, interval, rules, now_us=now_us, details={"reason": "rebased"})


def _window_row(facts: WindowFacts, part: Part, threshold_id: int | None, *, judged: bool) -> WindowRow:
    return WindowRow(
        window_start_us=facts.window_start_us,
        window_end_us=facts.window_end_us,
        threshold_id=threshold_id,
        events=part.events,
        outliers=part.outliers,
        late=part.late,
        dead=part.dead,
        filtered=sum(stored.filtered for stored in facts.parts),
        judged=judged,
    )


def _judged_window_row(window: WindowUnderTest, findings: _WindowFindings) -> WindowRow:
    part, verdict = window.part, findings.tests.count
    energies = summarise_energies(part, window.threshold.scale)
    return replace(
        _window_row(window.facts, part, window.threshold.row.id, judged=True),
        expected=verdict.mean,
        p_value=verdict.p_value if part.events else None,
        energy_p50=energies.p50 if energies else None,
        energy_p99=energies.p99 if energies else None,
        energy_max=energies.maximum if energies else None,
        fires_at=verdict.fires_at if part.events else None,
        payload=_payload_without_late(window),
        details=_fired_details(findings),
    )


def _payload_without_late(window: WindowUnderTest) -> bytes:
    """Return the encoded part of the window without late events; a single stored part is used as it is."""
    part, stored = window.part, window.facts.parts
    if len(stored) == 1 and not part.late:
        return stored[0].payload
    return encode_part(replace(part, late=0))


def _merge_samples(window: WindowUnderTest) -> WindowSample | None:
    """Return the sample of the window's events. None without events, and if an older version wrote a part of them."""
    payload = merge_encoded_samples([stored.sample for stored in window.facts.parts if stored.events])
    return None if payload is None else WindowSample(model_id=window.threshold.row.model_id, payload=payload)


def _fired_details(findings: _WindowFindings) -> dict[str, Any] | None:
    """Return the alarm of a window as JSON; windows with an alarm are left out of the count model."""
    if findings.spike is not None:
        of_test = {"test": findings.tests.name} if findings.tests.name != "count" else {}
        return {"fired": Kind.SPIKE.value, "limit": findings.tests.count.count_threshold, **of_test}
    if findings.rise is not None:
        return {"fired": Kind.SLOW_RISE.value, "since_us": findings.rise_since_us}
    return None
