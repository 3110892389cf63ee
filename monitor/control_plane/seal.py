"""Sealing: the time up to which a stream accepts no further events. Pure functions of stored facts."""

from collections.abc import Callable

from consumers.window_schedule import WindowSchedule
from storage.control.records import SealFacts, SourceFacts
from storage.control.thresholds import TickFacts


def next_seal_us(
    facts: SealFacts, windows: WindowSchedule, tick_at_or_after: Callable[[int], int], limit_us: int | None = None
) -> int | None:
    """Return the new `sealed_until` in microseconds, or None when there is nothing to seal.

    The seal never passes `limit_us`, a window boundary, at which the next step of a refit is due.

    The seal never passes a tick that is due. A threshold is computed from the windows that end at or before its tick,
    and stored before a later window is sealed. So the lead (`sealed_until + grace + ahead`) never lets an event be
    flagged before its threshold is known. Ticks without a judged window since the last tick are skipped; the windows
    alone decide which ones these are.
    """
    target = _seal_target_us(facts, windows)
    if target is None:
        return None
    ended_us = pending_tick_us(facts)
    if ended_us is None:
        ended_us = facts.first_part_end_us
    if ended_us is not None:
        target = min(target, windows.floor_us(tick_at_or_after(ended_us)))
    if limit_us is not None:
        target = min(target, limit_us)
    return target if facts.sealed_until_us is None or target > facts.sealed_until_us else None


def pending_tick_us(facts: SealFacts | TickFacts) -> int | None:
    """Return the end of the last judged window if no tick has followed it, else None."""
    ended_us = facts.last_judged_end_us
    if ended_us is None or (facts.last_tick_us is not None and ended_us <= facts.last_tick_us):
        return None
    return ended_us


def _seal_target_us(facts: SealFacts, windows: WindowSchedule) -> int | None:
    # Since it was last seen at its end, an idle source may have received events of that time and of later ones.
    idle_seen_us = [_last_seen_us(source, facts) for source in facts.sources if source.idle and not source.ended]
    idle_limits_us = [windows.passed_us(min(idle_seen_us))] if idle_seen_us else []
    watermarks = [source.watermark_us for source in facts.sources if not source.idle]
    if watermarks:
        reported = [watermark for watermark in watermarks if watermark is not None]
        if len(reported) < len(watermarks):
            return None
        return min([windows.passed_us(min(reported)), *idle_limits_us])
    return None if facts.last_part_end_us is None else min([facts.last_part_end_us, *idle_limits_us])


def _last_seen_us(source: SourceFacts, facts: SealFacts) -> int:
    """Return when an idle source was last seen at its end; now for the rows of versions that did not store it."""
    return facts.now_us if source.idle_seen_us is None else source.idle_seen_us
