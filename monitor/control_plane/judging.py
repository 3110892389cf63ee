"""Judging: merge a sealed window's parts and decide what it means. Pure: facts in, rows out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from monitor.findings.judged import Calibrated, Judged, JudgeRule
from monitor.findings.lives import live_on, withdraw
from monitor.findings.record_findings import dead_letters_finding, gap_finding
from monitor.findings.slow_rise_finding import slow_rise_finding
from monitor.findings.spike_finding import early_verdict, spike_finding, spike_verdict
from monitor.incidents import Change, Finding, Interval, Kind
from monitor.parts import Part, decode, encode, merge
from monitor.percentiles.sketch import window_energies
from monitor.slow_rises import RATE_LEVEL
from monitor.spikes import SpikeVerdict, rate_bound
from storage.judgements import IncidentRow, Judgement, StoredIncident, WindowFacts, WindowRow

__all__ = ["Calibrated", "JudgeRule", "judge", "judge_early", "wants_evidence"]

_EXPLAINED = {Kind.SPIKE.value, Kind.SLOW_RISE.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the detectors of outliers found in a window."""

    verdict: SpikeVerdict
    spike: Finding | None
    rise: Finding | None
    rise_since_us: int | None


def judge(
    facts: WindowFacts,
    calibrated: Callable[[int], Calibrated],
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
    window = _window(facts, calibrated, rule, evidence)
    if window is None:
        part, threshold_id = _merged(facts)
        return Judgement(window=_row(facts, part, threshold_id, judged=False))
    early = next((each for each in facts.open_incidents if _is_early(each, facts)), None)
    known = [incident for incident in facts.open_incidents if incident is not early]
    verdict = spike_verdict(window.known, window.part.events, window.part.outliers, rule)
    spike = spike_finding(window, verdict)
    rows = _confirmed(_lived(Kind.SPIKE, spike, known, window, now_us), early, window, now_us)
    in_spike = any(row.status == "open" for row in rows)
    rise, raised = slow_rise_finding(window, facts.state.get("slow_rise"), known, spike=in_spike)
    rows += _lived(Kind.SLOW_RISE, raised, known, window, now_us)
    rows += _lived(Kind.DEAD_LETTERS, dead_letters_finding(facts, window.part, rule), known, window, now_us)
    rows += _lived(Kind.GAP, gap_finding(facts), known, window, now_us)
    alarmed_us = None if rise.alarm is None else rise.alarm.since_us
    found = _Found(verdict=verdict, spike=spike, rise=raised, rise_since_us=alarmed_us)
    return Judgement(
        window=_judged_row(window, found),
        incidents=rows,
        gap_ids=[gap.id for gap in facts.gaps],
        state={**facts.state, "slow_rise": rise.to_json()},
    )


def judge_early(
    facts: WindowFacts,
    calibrated: Callable[[int], Calibrated],
    rule: JudgeRule,
    now_us: int,
    evidence: Mapping[str, Any] | None = None,
) -> list[IncidentRow]:
    """Return the incident of a window that is still open and is a spike already, or nothing.

    It bears the times that the judgement of the full window will give it, which then replaces its numbers. So nobody
    can tell from the incidents when somebody looked, except where the window has more events in the end than
    `EARLY_MARGIN` times the fullest of the look-back and is none: then the incident is withdrawn.
    """
    window = _window(facts, calibrated, rule, evidence)
    if window is None or any(each.kind == Kind.SPIKE for each in facts.open_incidents):
        return []
    verdict = early_verdict(window.known, window.part.events, window.part.outliers, rule)
    if verdict is None or not verdict.fires:
        return []
    return _lived(Kind.SPIKE, spike_finding(window, verdict, early=True), (), window, now_us)


def wants_evidence(rows: Sequence[IncidentRow]) -> bool:
    """Say whether a transition is written that is to be explained by the strangest events and by keys."""
    return any(
        row.kind in _EXPLAINED and row.transition is not None and row.transition.transition != Change.RESOLVED
        for row in rows
    )


def _window(
    facts: WindowFacts, calibrated: Callable[[int], Calibrated], rule: JudgeRule, evidence: Mapping[str, Any] | None
) -> Judged | None:
    part, threshold_id = _merged(facts)
    if not part.events and not part.dead:
        return None
    assert threshold_id is not None, "the fold gives every part its threshold"
    known = _accepting(calibrated(threshold_id), facts)
    return Judged(facts=facts, part=part, known=known, rule=rule, evidence=evidence or {})


def _accepting(known: Calibrated, facts: WindowFacts) -> Calibrated:
    """Return the calibration with the rate that a person has accepted, until a look-back has had time to learn it."""
    accepted = facts.state.get("accepted")
    if accepted is None or facts.window_start_us >= accepted["until_us"] or accepted["model_id"] != known.row.model_id:
        return known
    rate = accepted["rate"]
    law = replace(known.law, rate=max(known.law.rate, rate))
    return replace(known, law=law, clean_rate=max(known.clean_rate, rate_bound(law, RATE_LEVEL)))


def _merged(facts: WindowFacts) -> tuple[Part, int | None]:
    part = merge([decode(stored.payload) for stored in facts.parts])
    return part, next((stored.threshold_id for stored in facts.parts if stored.events), facts.parts[0].threshold_id)


def _is_early(incident: StoredIncident, facts: WindowFacts) -> bool:
    """Say whether the incident was opened by this very window, before it was judged."""
    return incident.kind == Kind.SPIKE and incident.window_start_us == facts.window_start_us


def _lived(
    kind: Kind, finding: Finding | None, known: list[StoredIncident] | tuple[()], window: Judged, now_us: int
) -> list[IncidentRow]:
    facts = window.facts
    return live_on(
        kind,
        finding,
        known,
        Interval(start_us=facts.window_start_us, end_us=facts.window_end_us),
        window.rule.life,
        now_us=now_us,
        # A raised rate is over when windows say so; windows without events say nothing of it.
        quiet_since_us=None if kind is Kind.SLOW_RISE else facts.last_judged_end_us,
    )


def _confirmed(rows: list[IncidentRow], early: StoredIncident | None, window: Judged, now_us: int) -> list[IncidentRow]:
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
    return [withdraw(early, why, interval, window.rule.life, now_us=now_us)]


def _row(facts: WindowFacts, part: Part, threshold_id: int | None, *, judged: bool) -> WindowRow:
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


def _judged_row(window: Judged, found: _Found) -> WindowRow:
    part, verdict = window.part, found.verdict
    energies = window_energies(part, window.known.scale)
    return replace(
        _row(window.facts, part, window.known.row.id, judged=True),
        expected=verdict.mean,
        p_value=verdict.p_value if part.events else None,
        energy_p50=energies.p50 if energies else None,
        energy_p99=energies.p99 if energies else None,
        energy_max=energies.maximum if energies else None,
        payload=_kept(window),
        details=_fired(found),
    )


def _kept(window: Judged) -> bytes:
    """Return the window's part as it is kept, without its late events: most often the only one that was stored."""
    part, stored = window.part, window.facts.parts
    if len(stored) == 1 and not part.late:
        return stored[0].payload
    return encode(replace(part, late=0))


def _fired(found: _Found) -> dict[str, Any] | None:
    """Return what a window fired, as JSON; a window that fired teaches the law of counts nothing."""
    if found.spike is not None:
        return {"fired": Kind.SPIKE.value, "limit": found.verdict.limit}
    if found.rise is not None:
        return {"fired": Kind.SLOW_RISE.value, "since_us": found.rise_since_us}
    return None
