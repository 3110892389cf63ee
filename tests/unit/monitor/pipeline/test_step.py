"""The next step of a partition buffer: each kind of step, and the rows that the steps commit together."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.stream_rules import StreamRules
from consumers.batch import Position
from consumers.clock_vote import MAX_OWN_OFFSETS, MAX_VOTE_OFFSETS
from consumers.decoded_batch import DecodedBatch, FilteredRecords
from monitor.pipeline.inbox import MAX_PENDING_RECORDS
from monitor.pipeline.partition_buffer import (
    COMMIT_EVENTS,
    WATERMARK_REPEAT_S,
    BufferState,
    HeldByLead,
    PartitionBuffer,
    Undecided,
)
from monitor.pipeline.step import (
    CommitBatch,
    CommitEnd,
    CommitUnreadableRange,
    NothingDue,
    ReadThresholds,
    RepeatWatermark,
    Step,
    WaitForInput,
    WaitForLead,
    next_step,
)
from monitor.pipeline.threshold_schedule import ThresholdSchedule
from monitor.statistics.part import Part, merge_parts
from monitor.statistics.part_codec import decode_part, encode_part
from storage.ledger.commit import StreamControl
from tests.property.test_fold import FILE as LOG_FILE
from tests.property.test_fold import GRACE, SCHEDULE, SIZE, FeatureEnergies, logs, read_in_one_batch, slice_decoded
from tests.property.test_fold import KAFKA as LOG_KAFKA
from tests.unit.monitor.pipeline.pending_records import (
    FILE,
    KAFKA,
    MINUTE,
    T0,
    claimed,
    control,
    records,
    unreadable,
)
from tests.unit.monitor.pipeline.test_fold import Energies, threshold

SEALED = control()


def pending(*batches: DecodedBatch, ended: bool = False, watermark: float | None = None) -> PartitionBuffer:
    buffer = claimed(batches[0].begin if batches else 0, watermark)
    for batch in batches:
        buffer.add(batch, now_s=0.0)
    if ended:
        buffer.end()
    return buffer


def step_of(
    buffer: PartitionBuffer,
    under: StreamControl = SEALED,
    *,
    rules: StreamRules = KAFKA,
    now_s: float = 1.0,
) -> Step:
    schedule = ThresholdSchedule.from_rows([threshold(1)])
    return next_step(buffer, under, schedule, now_s, rules=rules, scorer=Energies())


def committed(step: Step) -> CommitBatch:
    assert isinstance(step, CommitBatch), step
    return step


def held(by: StreamControl = SEALED, announced_s: float = 0.0) -> PartitionBuffer:
    """Return a buffer with an event beyond the lead, whose time is already the watermark."""
    buffer = pending(records(60), watermark=60)
    buffer.apply_hold(HeldByLead(control=by), now_s=0.0)
    buffer.apply_repeated_watermark(announced_s)
    return buffer


def test_nothing_is_due_without_records() -> None:
    assert step_of(pending(), now_s=1e9) == NothingDue()


def test_a_commit_joins_all_pending_batches_and_takes_them() -> None:
    step = committed(step_of(pending(records(0, 1, dead=1), records(2, begin=3))))
    assert step.control == SEALED
    assert (step.batch.begin, step.batch.end, len(step.batch.events)) == (0, 4, 3)
    assert step.folded.scored.events.offsets.tolist() == [0, 1, 3]
    assert (step.advance.n_batches, step.advance.n_records, step.advance.n_events) == (2, 4, 3)
    assert (step.advance.position, step.advance.watermark_us) == (
        Position(next_offset=4, cursor=40),
        T0 + 2 * MINUTE,
    )
    assert (step.advance.remaining, step.advance.hold) == (None, None)


def test_a_commit_stops_before_the_lead_and_holds_the_remaining_records() -> None:
    step = committed(step_of(pending(records(0, 60, 61))))
    assert step.advance.n_records == 1
    assert (step.advance.position, step.advance.watermark_us) == (Position(next_offset=1, cursor=10), T0 + 60 * MINUTE)
    assert step.advance.remaining is not None
    assert (step.advance.remaining.begin, step.advance.remaining.end) == (1, 3)
    assert step.advance.hold == HeldByLead(control=SEALED)


def test_a_commit_before_an_undecided_event_leaves_it_undecided() -> None:
    step = committed(step_of(pending(records(0, 1, 2, 40), watermark=0), control(sealed=60), rules=FILE))
    assert step.advance.position == Position(next_offset=3, cursor=30)
    assert step.advance.hold == Undecided()


def test_an_undecided_event_before_further_batches_waits_for_input() -> None:
    full = records(*[0.0] * (COMMIT_EVENTS - 1), 40)
    buffer = pending(full, records(1, begin=COMMIT_EVENTS), watermark=0)
    step = committed(step_of(buffer, control(sealed=60), rules=FILE))
    assert step.advance.n_batches == 1
    assert step.advance.position.next_offset == COMMIT_EVENTS - 1
    assert step.advance.hold == Undecided()


@pytest.mark.parametrize("between", ["nothing", "an unreadable range"])
def test_all_pending_records_vote_also_those_after_an_unreadable_range(between: str) -> None:
    later = [records(*[3.0] * 700, begin=4)]
    if between == "an unreadable range":
        later = [unreadable(4, 100), records(*[3.0] * 700, begin=100)]
    step = committed(step_of(pending(records(0, 1, 2, 40), *later, watermark=0), control(sealed=60), rules=FILE))
    assert step.folded.dead.offsets.tolist()[:1] == [3]
    assert step.folded.dead.reasons[0] == "future_time"


def test_the_last_event_before_the_end_is_decided() -> None:
    step = committed(step_of(pending(records(0, 1, 2, 40), ended=True), control(sealed=60), rules=FILE))
    assert step.advance.position.next_offset == 4


def test_the_end_of_the_log_decides_an_event_by_the_clock() -> None:
    buffer = pending(records(40), watermark=0)
    buffer.apply_hold(Undecided(), now_s=0.0)
    buffer.reach_log_end(T0 + 33 * MINUTE)
    assert step_of(buffer, control(sealed=60), rules=FILE) == NothingDue(), "records may follow at once"
    buffer.reach_log_end(T0 + 34 * MINUTE)
    assert step_of(buffer, control(sealed=60), rules=FILE) == WaitForInput(hold=Undecided())
    buffer.reach_log_end(T0 + 35 * MINUTE)
    assert committed(step_of(buffer, control(sealed=60), rules=FILE)).advance.position.next_offset == 1


def test_further_records_withdraw_the_end_of_the_log() -> None:
    buffer = pending(records(40), watermark=0)
    buffer.reach_log_end(T0)
    buffer.reach_log_end(T0 + 35 * MINUTE)
    buffer.add(records(41, begin=1), now_s=0.0)
    assert step_of(buffer, control(sealed=60), rules=FILE) == WaitForInput(hold=Undecided())


def test_dead_letters_do_not_hold_a_source_for_ever() -> None:
    buffer = pending(records(0, dead=MAX_PENDING_RECORDS - 1))
    assert committed(step_of(buffer, rules=FILE)).advance.n_records == MAX_PENDING_RECORDS
    assert MAX_OWN_OFFSETS + MAX_VOTE_OFFSETS < MAX_PENDING_RECORDS, "a paused partition is decided"


def test_filtered_records_are_settled_by_their_commit() -> None:
    offsets = np.arange(MAX_PENDING_RECORDS, dtype=np.int64)
    only_filtered = replace(
        records(),
        end=MAX_PENDING_RECORDS,
        cursors=None,
        filtered=FilteredRecords(offsets=offsets, times_us=np.full(len(offsets), T0)),
    )
    buffer = pending(only_filtered)
    assert buffer.record_count == MAX_PENDING_RECORDS
    step = committed(step_of(buffer))
    buffer.apply_commit(step.advance, now_s=0.0)
    assert buffer.record_count == 0
    assert buffer.watermark_us == T0


def test_records_wait_for_input_while_their_first_event_is_undecided() -> None:
    buffer = pending(records(0))
    step = step_of(buffer, rules=FILE)
    assert step == WaitForInput(hold=Undecided())
    buffer.apply_hold(step.hold, now_s=1.0)
    assert step_of(buffer, rules=FILE, now_s=1e9) == NothingDue()


def test_records_wait_for_the_lead_once_the_watermark_covers_the_first_of_them() -> None:
    assert committed(step_of(pending(records(60)))).advance.watermark_us == T0 + 60 * MINUTE
    assert step_of(pending(records(60), watermark=60)) == WaitForLead(hold=HeldByLead(control=SEALED))


def test_before_the_first_seal_every_event_waits_for_the_lead() -> None:
    unsealed = control(sealed=None)
    assert committed(step_of(pending(records(0)), unsealed)).advance.position.next_offset == 0
    assert step_of(pending(records(0), watermark=0), unsealed) == WaitForLead(hold=HeldByLead(control=unsealed))


def test_held_records_repeat_their_watermark_until_the_control_state_changes() -> None:
    assert step_of(held(), now_s=0.9 * WATERMARK_REPEAT_S) == NothingDue()
    assert step_of(held(), now_s=WATERMARK_REPEAT_S) == RepeatWatermark(control=SEALED)
    still_held = control(sealed=1)
    assert step_of(held(), still_held, now_s=0.0) == WaitForLead(hold=HeldByLead(control=still_held))
    assert committed(step_of(held(), control(sealed=60), now_s=0.0)).advance.position.next_offset == 1


def test_a_held_watermark_that_was_never_committed_by_this_claim_is_repeated_at_once() -> None:
    assert step_of(held(announced_s=float("-inf")), now_s=0.0) == RepeatWatermark(control=SEALED)


def test_an_unreadable_range_is_committed_alone_and_keeps_the_watermark() -> None:
    step = step_of(pending(unreadable(3, 9), records(1, begin=9), watermark=5))
    assert isinstance(step, CommitUnreadableRange)
    assert (step.batch.begin, step.batch.end, step.control) == (3, 9, SEALED)
    assert (step.advance.n_batches, step.advance.n_records, step.advance.n_events) == (1, 1, 0)
    assert (step.advance.position, step.advance.watermark_us) == (Position(next_offset=9, cursor=90), T0 + 5 * MINUTE)
    assert (step.advance.remaining, step.advance.hold) == (None, None)


def test_the_end_is_committed_once_after_all_records() -> None:
    buffer = pending(records(0), ended=True)
    buffer.apply_commit(committed(step_of(buffer)).advance, now_s=0.0)
    assert step_of(buffer, now_s=0.0) == CommitEnd(control=SEALED)
    buffer.apply_stored_end()
    assert step_of(buffer, now_s=1e9) == NothingDue()


def test_a_step_after_a_stale_commit_is_computed_under_the_new_control_state() -> None:
    buffer = pending(records(0, 0.5, 12))
    assert committed(step_of(buffer)).advance.position.next_offset == 2
    again = committed(step_of(buffer, control(sealed=5, revision=1)))
    assert again.control == control(sealed=5, revision=1)
    assert again.advance.position.next_offset == 3
    assert again.folded.scored.is_late.tolist() == [True, True, False]


def test_a_schedule_without_the_rows_of_late_events_is_read_before_the_fold() -> None:
    buffer = pending(records(20, 1, 3.5, 3.6))
    trimmed = ThresholdSchedule.from_rows(
        [threshold(7, valid_from_us=T0 + 10 * MINUTE)], complete_from_us=T0 + 10 * MINUTE
    )
    scorer = Energies()
    step = next_step(buffer, control(sealed=15), trimmed, 0.0, rules=KAFKA, scorer=scorer)
    assert step == ReadThresholds(window_starts_us=(T0 + MINUTE, T0 + 3 * MINUTE))
    assert scorer.calls == []
    complete = trimmed.with_rows([threshold(2, valid_from_us=T0)])
    step = next_step(buffer, control(sealed=15), complete, 0.0, rules=KAFKA, scorer=scorer)
    assert committed(step).folded.scored.threshold_ids.tolist() == [7, 2, 2, 2]


BUFFERS: dict[str, Callable[[], PartitionBuffer]] = {
    "NothingDue": pending,
    "CommitBatch": lambda: pending(records(0, 1), records(2, 40, begin=2), watermark=0),
    "CommitUnreadableRange": lambda: pending(unreadable(0, 3), records(1, begin=3)),
    "CommitEnd": lambda: pending(ended=True),
    "RepeatWatermark": lambda: held(announced_s=float("-inf")),
    "WaitForLead": lambda: pending(records(60, 61), ended=True, watermark=60),
    "WaitForInput": lambda: pending(records(0)),
    "ReadThresholds": lambda: pending(records(0, 1), watermark=9),
}


@pytest.mark.parametrize("kind", list(BUFFERS))
def test_a_step_changes_no_argument_and_is_the_same_when_computed_again(kind: str) -> None:
    buffer = BUFFERS[kind]()
    complete_from_us = T0 + 2 * MINUTE if kind == "ReadThresholds" else 0
    schedule = ThresholdSchedule.from_rows([threshold(1)], complete_from_us=complete_from_us)
    before = pickle.dumps((buffer, SEALED, schedule))
    steps = [next_step(buffer, SEALED, schedule, 1.0, rules=FILE, scorer=Energies()) for _ in range(2)]
    assert [type(step).__name__ for step in steps] == [kind, kind]
    assert pickle.dumps(steps[0]) == pickle.dumps(steps[1])
    assert pickle.dumps((buffer, SEALED, schedule)) == before


@dataclass
class StepRun:
    """A source that is read in pieces and carries out the steps of its buffer without a clock."""

    whole: DecodedBatch
    rules: StreamRules
    buffer: PartitionBuffer = field(default_factory=claimed)
    under: StreamControl = field(default_factory=lambda: StreamControl(sealed_until_us=0, revision=0))
    commits: list[CommitBatch] = field(default_factory=list)
    read: int = 0

    def add(self, n: int) -> None:
        """Read n more records."""
        more = slice_decoded(self.whole, self.read, min(self.whole.end, self.read + n))
        self.read = more.end
        self.buffer.add(more, now_s=0.0)
        if self.read == self.whole.end:
            self.buffer.end()

    def run_steps(self) -> None:
        """Carry out all due steps."""
        while True:
            step = next_step(self.buffer, self.under, SCHEDULE, 0.0, rules=self.rules, scorer=FeatureEnergies())
            match step:
                case CommitBatch():
                    assert step.batch.begin == self.buffer.position.next_offset
                    self.commits.append(step)
                    self.buffer.apply_commit(step.advance, now_s=0.0)
                case WaitForLead() | WaitForInput():
                    self.buffer.apply_hold(step.hold, now_s=0.0)
                case RepeatWatermark():
                    self.buffer.apply_repeated_watermark(now_s=0.0)
                case CommitEnd():
                    self.buffer.apply_stored_end()
                case _:
                    return

    def seal(self, share: float) -> None:
        """Seal a share of the windows that the watermark allows to seal."""
        if self.buffer.watermark_us is not None:
            done = (self.under.sealed_until_us or 0) // SIZE
            allowed = max(done, (self.buffer.watermark_us - GRACE) // SIZE)
            self.under = replace(self.under, sealed_until_us=(done + round(share * (allowed - done))) * SIZE)

    def read_to_end(self) -> "StepRun":
        self.add(self.whole.end)
        for _ in range(len(self.whole.events) + len(self.whole.filtered) + 2):
            self.run_steps()
            self.seal(1.0)
        assert self.buffer.state is BufferState.END_STORED
        assert self.buffer.position == Position(next_offset=self.whole.end, cursor=10 * self.whole.end)
        assert self.buffer.record_count == 0
        return self

    def rows(self) -> list[tuple[float, ...]]:
        """Return offset, time, energy, threshold, outlier and late of every committed event, in order."""
        found = []
        for scored in (commit.folded.scored for commit in self.commits):
            columns = (scored.events.offsets, scored.events.times_us, scored.energies, scored.threshold_ids)
            flags = (scored.is_outlier, scored.is_late)
            found += list(zip(*(column.tolist() for column in (*columns, *flags)), strict=True))
        return found

    def dead_letters(self) -> list[tuple[int, str]]:
        dead = [commit.folded.dead for commit in self.commits]
        return [pair for each in dead for pair in zip(each.offsets.tolist(), each.reasons, strict=True)]

    def windows(self) -> dict[tuple[int, int | None], bytes]:
        """Return the merged part of every window by start and threshold row."""
        parts: dict[tuple[int, int | None], list[Part]] = {}
        for row in (row for commit in self.commits for row in commit.folded.parts):
            parts.setdefault((row.window_start_us, row.threshold_id), []).append(decode_part(row.payload or b""))
        return {window: encode_part(merge_parts(found)) for window, found in parts.items()}


@given(
    logs(largest_step=90, furthest_back=90),
    st.lists(st.tuples(st.integers(1, 8), st.booleans(), st.floats(0, 1)), max_size=30),
    st.sampled_from([LOG_KAFKA, LOG_FILE]),
)
def test_any_cuts_and_seals_commit_the_rows_and_windows_of_one_batch(
    whole: DecodedBatch, cuts: list[tuple[int, bool, float]], rules: StreamRules
) -> None:
    run = StepRun(whole, rules)
    for n, due, share in cuts:
        run.add(n)
        if due:
            run.run_steps()
        run.seal(share)
    run.read_to_end()
    one = read_in_one_batch(whole, rules)
    assert run.rows() == one.rows()
    assert run.dead_letters() == one.dead_letters()
    assert run.windows() == one.windows()
