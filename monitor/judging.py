"""Judging: merge a sealed window's parts and decide what it means. Pure: facts in, rows out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from monitor.incidents import Finding, Interval, Kind, Severity
from monitor.lives import LifeRule, live_on, when
from monitor.parts import Part, Scale, decode, encode, merge
from monitor.sketch import window_energies
from monitor.spikes import CountLaw, judge_window, window_budget
from storage.calibration import StoredThreshold
from storage.judgements import Judgement, WindowFacts, WindowRow

_SHOWN_ENERGIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRule:
    """The settings that judging depends on."""

    size_us: int
    per_week: float
    min_outliers: int
    min_ratio: float
    max_dead_letter_ratio: float
    config_hash: str
    life: LifeRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A threshold row as judging needs it: the learned law of counts and the scale of the energies."""

    row: StoredThreshold
    law: CountLaw
    scale: Scale
    model_version: int


def judge(facts: WindowFacts, calibrated: Callable[[int], Calibrated], rule: JudgeRule, now_us: int) -> Judgement:
    """Return all that a sealed window leads to.

    A window with neither events nor dead letters (only late ones) is kept, and decides nothing: whether such a part
    came before or after the seal depends on the speed of reading, which no decision may. For the same reason late
    events are in the window's count alone, which grows as more of them come, and in nothing that is kept for good.

    Args:
        facts: The window's parts, the open incidents, gaps that belong to none yet.
        calibrated: Gives a threshold row by its id.
        rule: The settings.
        now_us: The wall clock, only to tell whom a notification is too old for.
    """
    part = merge([decode(stored.payload) for stored in facts.parts])
    threshold_id = next((stored.threshold_id for stored in facts.parts if stored.events), facts.parts[0].threshold_id)
    if not part.events and not part.dead:
        return Judgement(window=_row(facts, part, threshold_id, judged=False))
    assert threshold_id is not None, "the fold gives every part its threshold"
    known = calibrated(threshold_id)
    alpha = window_budget(rule.per_week, rule.size_us)
    findings = {
        Kind.SPIKE: _spike(facts, part, known, rule, alpha),
        Kind.DEAD_LETTERS: _dead_letters(facts, part, rule),
        Kind.GAP: _gap(facts),
    }
    window = Interval(start_us=facts.window_start_us, end_us=facts.window_end_us)
    rows = [
        row
        for kind, finding in findings.items()
        for row in live_on(
            kind,
            finding,
            facts.open_incidents,
            window,
            rule.life,
            now_us=now_us,
            quiet_since_us=facts.last_judged_end_us,
        )
    ]
    return Judgement(
        window=_judged_row(facts, part, known, findings[Kind.SPIKE], rule, alpha),
        incidents=rows,
        gap_ids=[gap.id for gap in facts.gaps],
    )


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


def _judged_row(
    facts: WindowFacts, part: Part, known: Calibrated, spike: Finding | None, rule: JudgeRule, alpha: float
) -> WindowRow:
    verdict = judge_window(
        known.law,
        part.events,
        part.outliers,
        alpha=alpha,
        min_outliers=rule.min_outliers,
        min_ratio=rule.min_ratio,
    )
    energies = window_energies(part, known.scale)
    return WindowRow(
        window_start_us=facts.window_start_us,
        window_end_us=facts.window_end_us,
        threshold_id=known.row.id,
        events=part.events,
        outliers=part.outliers,
        late=part.late,
        dead=part.dead,
        judged=True,
        expected=verdict.mean,
        p_value=verdict.p_value if part.events else None,
        energy_p50=energies.p50 if energies else None,
        energy_p99=energies.p99 if energies else None,
        energy_max=energies.maximum if energies else None,
        payload=encode(replace(part, late=0)),
        details=None if spike is None else {"fired": Kind.SPIKE.value, "limit": verdict.limit},
    )


def _spike(facts: WindowFacts, part: Part, known: Calibrated, rule: JudgeRule, alpha: float) -> Finding | None:
    """Return the finding of a window with improbably many outliers."""
    law, limit = known.law, known.row
    verdict = judge_window(
        law, part.events, part.outliers, alpha=alpha, min_outliers=rule.min_outliers, min_ratio=rule.min_ratio
    )
    if not verdict.fires:
        return None
    # Twice as improbable, in powers of ten, as what opens an incident: no longer a matter of the promise.
    severity = Severity.CRITICAL if verdict.p_value <= alpha**2 else Severity.WARNING
    summary = (
        f"{part.outliers:,} outliers among {part.events:,} events in the window from {when(facts.window_start_us)}; "
        f"a clean window has {verdict.mean:.3g}, and {verdict.fires_at:,} or more count as a spike"
    )
    details = {
        "window": _window(facts),
        "events": part.events,
        "outliers": part.outliers,
        "outliers_expected": verdict.mean,
        "outliers_limit": verdict.limit,
        "fires_at": verdict.fires_at,
        "p_value": verdict.p_value,
        "alpha": alpha,
        "attainable": verdict.attainable,
        "promise_per_week": rule.per_week,
        "floors": {"min_outliers": rule.min_outliers, "min_ratio": rule.min_ratio},
        "law": law_details(law),
        "threshold": threshold_details(limit),
        "model_version": known.model_version,
        "largest_energies": [float(energy) for energy in part.top[:_SHOWN_ENERGIES]],
        "dead_letters": part.dead,
        "config_hash": rule.config_hash,
    }
    return Finding(kind=Kind.SPIKE, severity=severity, summary=summary, details=details)


def _dead_letters(facts: WindowFacts, part: Part, rule: JudgeRule) -> Finding | None:
    """Return the finding of a window where too large a share of the records could not be read."""
    records = part.events + part.dead
    share = part.dead / records
    if part.dead < rule.min_outliers or share <= rule.max_dead_letter_ratio:
        return None
    summary = (
        f"{part.dead:,} of {records:,} records could not be read as events around {when(facts.window_start_us)} "
        f"({share:.1%}, more than {rule.max_dead_letter_ratio:.1%}); dead_letter_history has the reasons"
    )
    details = {
        "window": _window(facts),
        "dead_letters": part.dead,
        "records": records,
        "share": share,
        "limit": rule.max_dead_letter_ratio,
        "config_hash": rule.config_hash,
    }
    severity = Severity.CRITICAL if share > 0.5 else Severity.WARNING
    return Finding(kind=Kind.DEAD_LETTERS, severity=severity, summary=summary, details=details)


def _gap(facts: WindowFacts) -> Finding | None:
    """Return the finding of ranges that could not be read since the last judged window."""
    if not facts.gaps:
        return None
    ranges = [
        {
            "topic": gap.topic,
            "partition": gap.partition,
            "from_offset": gap.from_offset,
            "to_offset": gap.to_offset,
            "reason": gap.reason,
        }
        for gap in facts.gaps
    ]
    missed = sum(gap.to_offset - gap.from_offset for gap in facts.gaps)
    first = facts.gaps[0]
    summary = (
        f"{missed:,} offsets could not be read, the first range {first.from_offset:,} to {first.to_offset:,} of "
        f"{first.topic}[{first.partition}] ({first.reason}); their events are in no score and no window"
    )
    details = {"window": _window(facts), "ranges": ranges, "offsets": missed}
    return Finding(kind=Kind.GAP, severity=Severity.CRITICAL, summary=summary, details=details)


def law_details(law: CountLaw) -> dict[str, Any]:
    """Return a law of counts as the JSON that is stored with a threshold and with an incident."""
    return {
        "rate": law.rate,
        "calibration_n": law.calibration_n,
        "dispersion": law.dispersion,
        "windows": law.windows,
        "state": law.state,
    }


def threshold_details(row: StoredThreshold) -> dict[str, Any]:
    """Return a threshold as the JSON that is stored with an incident."""
    return {
        "value": row.threshold,
        "lower": row.lower,
        "upper": row.upper,
        "n": row.n,
        "percentile": row.percentile,
        "method": row.method,
        "computed_at": when(row.computed_at_us),
        "valid_from": when(row.valid_from_us),
    }


def _window(facts: WindowFacts) -> dict[str, str]:
    return {"start": when(facts.window_start_us), "end": when(facts.window_end_us)}
