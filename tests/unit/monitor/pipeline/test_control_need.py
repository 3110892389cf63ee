"""The need for a step of the control plane after commits, as the worker of one process knows it."""

from collections.abc import Sequence
from dataclasses import replace

from consumers.window_schedule import make_window_schedule
from monitor.pipeline.control_need import ControlNeed, KnownProgress, advance_progress, find_need
from monitor.pipeline.partition_buffer import HeldByLead, PartitionBuffer
from storage.ledger.commit import StreamControl, WindowPartRow
from tests.unit.monitor.pipeline.pending_records import KAFKA, MINUTE, T0, claimed, control, records

WINDOWS = make_window_schedule(KAFKA.windows)
GRACE_MINUTES = KAFKA.grace_us / MINUTE
SIZE_MINUTES = KAFKA.size_us / MINUTE


def at(minute: float | None, *, idle: bool = False, held: bool = False) -> PartitionBuffer:
    """Return the buffer of a source with a stored watermark."""
    buffer = claimed(0, minute)
    if held:
        buffer.add(records(600), now_s=0.0)
        buffer.apply_hold(HeldByLead(control=control()), now_s=0.0)
    if idle:
        buffer.apply_idle()
    return buffer


def part(minute: float, outliers: int) -> WindowPartRow:
    start_us = WINDOWS.floor_us(T0 + round(minute * MINUTE))
    return WindowPartRow(
        window_start_us=start_us,
        window_end_us=WINDOWS.end_us(start_us),
        threshold_id=1,
        events=10,
        outliers=outliers,
        late=0,
        dead=0,
        payload=None,
    )


def progress(
    *buffers: PartitionBuffer,
    parts: Sequence[WindowPartRow] = (),
    after: KnownProgress | None = None,
    under: StreamControl | None = None,
) -> KnownProgress:
    return advance_progress(after or KnownProgress(), buffers, parts, under or control(), WINDOWS)


def need(before: KnownProgress, after: KnownProgress, under: StreamControl | None = None) -> ControlNeed:
    return find_need(before, after, under or control())


def test_a_step_is_needed_when_all_sources_have_passed_the_end_of_a_window() -> None:
    passes = SIZE_MINUTES + GRACE_MINUTES
    before = progress(at(0.5 * SIZE_MINUTES), at(9 * passes))
    assert need(before, progress(at(0.9 * SIZE_MINUTES), at(9 * passes))) is ControlNeed.NONE
    crossed = progress(at(passes), at(9 * passes))
    assert need(before, crossed) is ControlNeed.SOON
    assert need(crossed, progress(at(passes), at(10 * passes))) is ControlNeed.NONE


def test_a_source_without_a_watermark_needs_no_step() -> None:
    assert progress(at(None), at(50)).passed_us is None
    assert need(progress(at(None), at(50)), progress(at(None), at(90))) is ControlNeed.NONE


def test_idle_sources_are_left_out() -> None:
    before = progress(at(1), at(50))
    assert need(before, progress(at(1, idle=True), at(50))) is ControlNeed.SOON
    assert progress(at(1, idle=True), at(50, idle=True)).passed_us is None


def test_a_commit_ends_the_idleness_of_its_source() -> None:
    buffer = at(1, idle=True)
    buffer.apply_repeated_watermark(now_s=1.0)
    assert not buffer.idle


def test_a_step_is_needed_at_once_when_the_lead_holds_all_records_back() -> None:
    assert need(progress(at(1), at(1)), progress(at(600, held=True), at(600, held=True))) is ControlNeed.NOW
    assert need(progress(at(1), at(1)), progress(at(600, held=True), at(600))) is ControlNeed.SOON


def test_a_step_is_needed_at_once_when_the_end_of_a_source_is_stored() -> None:
    ended = at(5)
    ended.end()
    ended.apply_stored_end()
    after = progress(ended, at(5))
    assert need(progress(at(5), at(5)), after) is ControlNeed.NOW
    assert need(after, after) is ControlNeed.NONE


def test_a_step_is_needed_when_further_outliers_may_open_an_incident_early() -> None:
    before = progress(at(0), parts=[part(0, 2)])
    assert need(KnownProgress(), before) is not ControlNeed.NOW
    later_window = progress(at(0), parts=[part(3 * SIZE_MINUTES, 50)], after=before)
    assert need(before, later_window) is ControlNeed.NONE
    # One more may be the energy that opens an incident by itself.
    enough = progress(at(0), parts=[part(0, 1)], after=later_window)
    assert need(later_window, enough) is ControlNeed.SOON
    assert need(enough, progress(at(0), after=enough)) is ControlNeed.NONE


def test_the_outliers_of_sealed_windows_are_forgotten() -> None:
    before = progress(at(0), parts=[part(0, 5), part(3 * SIZE_MINUTES, 1)])
    sealed = replace(control(), sealed_until_us=WINDOWS.floor_us(T0 + round(3 * SIZE_MINUTES * MINUTE)))
    after = progress(at(0), parts=[part(0, 7)], after=before, under=sealed)
    assert list(after.open_outliers.values()) == [1]
