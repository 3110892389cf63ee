"""Sealing: how far a stream may be closed to further events. A pure function of what is stored."""

from collections.abc import Callable

from storage.control.records import SealFacts
from storage.control.thresholds import TickFacts


def next_seal_us(facts: SealFacts, size_us: int, grace_us: int, tick_at_or_after: Callable[[int], int]) -> int | None:
    """Return the new `sealed_until`, or None when there is nothing to seal.

    Nothing is sealed past the tick that the windows before it call for: a threshold is computed from the windows
    that end at or before its tick, and stored before anything beyond the tick is sealed, so that the lead
    (`sealed_until + grace + ahead`) never lets an event be flagged before its threshold is known. Ticks without a
    judged window since the last one are passed over; which ones these are depends on the windows alone.
    """
    target = _seal_target_us(facts, size_us, grace_us)
    if target is None:
        return None
    calls_for_tick = pending_tick_us(facts)
    if calls_for_tick is None:
        calls_for_tick = facts.first_part_end_us
    if calls_for_tick is not None:
        target = min(target, tick_at_or_after(calls_for_tick) // size_us * size_us)
    return target if facts.sealed_until_us is None or target > facts.sealed_until_us else None


def pending_tick_us(facts: SealFacts | TickFacts) -> int | None:
    """Return the end of the last judged window when no tick has come after it, else None."""
    ended = facts.last_judged_end_us
    if ended is None or (facts.last_tick_us is not None and ended <= facts.last_tick_us):
        return None
    return ended


def _seal_target_us(facts: SealFacts, size_us: int, grace_us: int) -> int | None:
    awaited = [source.watermark_us for source in facts.sources if not source.idle]
    if awaited:
        known = [watermark for watermark in awaited if watermark is not None]
        return None if len(known) < len(awaited) else (min(known) - grace_us) // size_us * size_us
    if facts.last_part_end_us is None or all(source.ended for source in facts.sources):
        return facts.last_part_end_us
    # Idle is not ended: a window that the clock has not closed yet may still get events.
    return min(facts.last_part_end_us, (facts.now_us - grace_us) // size_us * size_us)
