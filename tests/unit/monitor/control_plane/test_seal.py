"""The seal: never past a due tick, never past an active source, never back."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from config.stream_rules import WindowRules
from consumers.window_schedule import WindowSchedule, make_window_schedule
from monitor.control_plane.seal import next_seal_us, pending_tick_us
from monitor.schedule import tick_at_or_after
from storage.control.records import SealFacts, SourceFacts

SECOND = 1_000_000
MINUTE = 60 * SECOND
GRACE = 10 * SECOND
REFRESH = timedelta(minutes=5)


def at(minutes: float | None, *, idle: bool = False, ended: bool = False, seen: float | None = None) -> SourceFacts:
    """Return a source with a watermark in minutes after 1970, idle if it was last seen at its end at `seen`."""
    watermark = None if minutes is None else round(minutes * MINUTE)
    seen_us = None if seen is None else round(seen * MINUTE)
    return SourceFacts(
        watermark_us=watermark, idle=idle or ended or seen is not None, ended=ended, idle_seen_us=seen_us
    )


def facts(*sources: SourceFacts, **known: float | None) -> SealFacts:
    """Return seal facts in minutes; the missing ones are None."""
    names = ("sealed_until", "last_tick", "last_judged_end", "first_part_end", "last_part_end")
    values = {f"{name}_us": None if known.get(name) is None else round((known[name] or 0) * MINUTE) for name in names}
    return SealFacts(now_us=round((known.get("now") or 10_000) * MINUTE), sources=sources, **values)


def windows_of(size_us: int, grace_us: int) -> WindowSchedule:
    return make_window_schedule((WindowRules(size_us=size_us, grace_us=grace_us, ahead_us=0),))


def sealed(seal_facts: SealFacts, size_us: int = MINUTE, grace_us: int = GRACE) -> float | None:
    windows = windows_of(size_us, grace_us)
    target = next_seal_us(seal_facts, windows, lambda time_us: tick_at_or_after(REFRESH, time_us))
    return None if target is None else target / MINUTE


def test_the_seal_is_the_smallest_watermark_minus_the_grace() -> None:
    assert sealed(facts(at(7.0), at(4.2))) == 4
    assert sealed(facts(at(7.0), at(4.1))) == 3


def test_a_window_is_sealed_when_the_watermark_reaches_its_end_plus_the_grace() -> None:
    exact = 4 + GRACE / MINUTE
    assert sealed(facts(at(exact))) == 4
    assert sealed(facts(at(exact - 1 / MINUTE))) == 3


def test_a_source_without_events_blocks_the_seal() -> None:
    assert sealed(facts(at(7.0), at(None))) is None


def test_an_idle_source_does_not_block_the_seal() -> None:
    assert sealed(facts(at(7.2), at(2.0, idle=True), at(None, idle=True))) == 7


def test_an_ended_source_does_not_block_the_seal() -> None:
    assert sealed(facts(at(7.2), at(2.0, ended=True))) == 7


def test_when_all_sources_have_ended_all_windows_are_sealed_at_any_clock_time() -> None:
    assert sealed(facts(at(3.5, ended=True), first_part_end=3, last_part_end=4, now=0.5)) == 4


def test_when_all_sources_are_idle_a_window_stays_open_until_the_clock_passes_it() -> None:
    both = (at(3.5, idle=True), at(2.0, idle=True))
    assert sealed(facts(*both, first_part_end=3, last_part_end=4, now=3.9)) == 3
    assert sealed(facts(*both, first_part_end=3, last_part_end=4, now=4.2)) == 4


def test_the_seal_does_not_pass_the_time_at_which_an_idle_source_was_last_seen_at_its_end() -> None:
    assert sealed(facts(at(7.2), at(2.0, seen=5.3), at(None, seen=9.0))) == 5
    assert sealed(facts(at(7.2), at(2.0, seen=5.1))) == 4
    assert sealed(facts(at(7.2), at(2.0, seen=8.0))) == 7
    assert sealed(facts(at(7.2), at(2.0, ended=True), at(3.0, seen=6.2))) == 6


def test_when_all_sources_are_idle_a_window_stays_open_until_every_source_was_seen_after_it() -> None:
    idle = (at(3.5, seen=4.2), at(2.0, seen=3.9))
    assert sealed(facts(*idle, first_part_end=3, last_part_end=4)) == 3
    assert sealed(facts(at(3.5, seen=4.2), at(2.0, seen=4.3), first_part_end=3, last_part_end=4)) == 4


def test_an_idle_source_among_ended_ones_may_still_add_events() -> None:
    mixed = (at(3.5, ended=True), at(2.0, idle=True))
    assert sealed(facts(*mixed, first_part_end=3, last_part_end=4, now=3.9)) == 3


def test_idle_sources_without_parts_seal_nothing() -> None:
    assert sealed(facts(at(3.5, idle=True))) is None
    assert sealed(facts(at(3.5, ended=True))) is None


def test_a_stream_without_sources_and_parts_is_not_sealed() -> None:
    assert sealed(facts()) is None


def test_the_seal_never_repeats_or_moves_back() -> None:
    assert sealed(facts(at(7.2), sealed_until=7)) is None
    assert sealed(facts(at(7.2), sealed_until=9)) is None


def test_a_judged_window_stops_the_seal_at_its_tick_until_the_tick_is_stored() -> None:
    assert sealed(facts(at(60.0), sealed_until=2, last_judged_end=2)) == 5
    assert sealed(facts(at(60.0), sealed_until=5, last_judged_end=2)) is None
    assert sealed(facts(at(60.0), sealed_until=5, last_judged_end=2, last_tick=5)) == 59


def test_the_first_unjudged_part_stops_the_seal_at_its_tick() -> None:
    assert sealed(facts(at(60.0), sealed_until=5, last_judged_end=2, last_tick=5, first_part_end=13)) == 15


def test_a_window_that_ends_on_a_tick_belongs_to_that_tick() -> None:
    assert sealed(facts(at(60.0), sealed_until=5, last_judged_end=5, last_tick=0)) is None
    assert pending_tick_us(facts(at(60.0), sealed_until=5, last_judged_end=5, last_tick=5)) is None


def test_the_seal_stops_at_the_last_window_end_before_the_tick() -> None:
    seal_facts = facts(at(60.0), first_part_end=7)
    assert sealed(seal_facts, size_us=7 * MINUTE) == 7


def test_the_first_seal_may_be_before_1970() -> None:
    assert sealed(facts(at(0.0))) == -1


WATERMARK = st.none() | st.integers(0, 40 * 60).map(lambda s: s * SECOND)
SOURCE = st.builds(
    lambda watermark, state, seen: SourceFacts(
        watermark_us=watermark, idle=state > 0, ended=state > 1, idle_seen_us=seen
    ),
    WATERMARK,
    st.integers(0, 2),
    WATERMARK,
)
WINDOW_END = st.none() | st.integers(1, 40).map(lambda n: n * MINUTE)


@st.composite
def stored_facts(draw: st.DrawFn) -> SealFacts:
    ends = sorted(end for end in (draw(WINDOW_END), draw(WINDOW_END)) if end is not None)
    return SealFacts(
        now_us=draw(st.integers(0, 40 * 60)) * SECOND,
        sources=draw(st.lists(SOURCE, max_size=4)),
        sealed_until_us=draw(WINDOW_END),
        last_tick_us=draw(st.none() | st.integers(0, 8).map(lambda n: n * 5 * MINUTE)),
        last_judged_end_us=draw(WINDOW_END),
        first_part_end_us=ends[0] if ends else None,
        last_part_end_us=ends[-1] if ends else None,
    )


@given(stored_facts(), st.sampled_from([7 * SECOND, MINUTE, 3 * MINUTE]))
def test_the_seal_only_moves_forward_and_never_past_an_active_source(seal_facts: SealFacts, size: int) -> None:
    target = next_seal_us(seal_facts, windows_of(size, GRACE), lambda time_us: tick_at_or_after(REFRESH, time_us))
    if target is None:
        return
    assert seal_facts.sealed_until_us is None or target > seal_facts.sealed_until_us
    for source in seal_facts.sources:
        if not source.idle:
            assert source.watermark_us is not None
            assert target + GRACE <= source.watermark_us
        elif not source.ended:
            assert target + GRACE <= (seal_facts.now_us if source.idle_seen_us is None else source.idle_seen_us)


@given(stored_facts())
def test_the_seal_never_passes_a_due_tick(seal_facts: SealFacts) -> None:
    target = next_seal_us(seal_facts, windows_of(MINUTE, GRACE), lambda time_us: tick_at_or_after(REFRESH, time_us))
    pending = pending_tick_us(seal_facts)
    if target is not None and pending is not None:
        assert target <= tick_at_or_after(REFRESH, pending)


@given(stored_facts(), WATERMARK, st.none() | st.just(50 * MINUTE))
def test_an_ended_source_or_an_idle_one_that_was_seen_recently_does_not_change_the_seal_of_the_others(
    seal_facts: SealFacts, watermark: int | None, seen: int | None
) -> None:
    if not any(not source.idle for source in seal_facts.sources):
        return
    more = SourceFacts(watermark_us=watermark, idle=True, ended=seen is None, idle_seen_us=seen)
    assert sealed(replace(seal_facts, sources=[*seal_facts.sources, more])) == sealed(seal_facts)


def test_after_a_change_of_the_windows_the_seal_moves_over_windows_of_both_sizes() -> None:
    changed = make_window_schedule(
        (
            WindowRules(size_us=MINUTE, grace_us=30 * SECOND, ahead_us=0),
            WindowRules(valid_from_us=6 * MINUTE, size_us=3 * MINUTE, grace_us=0, ahead_us=0),
        )
    )

    def seal_at(minutes: float) -> float | None:
        target = next_seal_us(facts(at(minutes)), changed, lambda _: 10_000 * MINUTE)
        return None if target is None else target / MINUTE

    assert [seal_at(minutes) for minutes in (5.4, 5.5, 6.4, 6.5, 8.9, 9, 11.9, 12)] == [4, 5, 5, 6, 6, 9, 9, 12]
