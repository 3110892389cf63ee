"""The fold gives equal flags, thresholds, late marks and windows for any batch boundaries and seals."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.stream_rules import StreamRules, WindowRules
from consumers.batch import Partition
from consumers.clock_vote import ReadExtent
from consumers.decoded_batch import NO_TIME_US, DeadLetters, DecodedBatch, Events, FilteredRecords
from consumers.window_schedule import make_window_schedule
from monitor.pipeline.fold import FoldedBatch, fold, join_batches
from monitor.pipeline.stray_times import find_timed_records
from monitor.pipeline.threshold_schedule import ThresholdSchedule
from monitor.statistics.drift_sums import MeasuredEvents
from monitor.statistics.event_sample import merge_encoded_samples
from monitor.statistics.part import Part, Scale, merge_parts
from monitor.statistics.part_codec import decode_part, encode_part
from storage.ledger.commit import StreamControl
from storage.ledger.schedule import ScheduledThreshold
from tests.rules import make_rules

PARTITION = Partition(topic="t", partition=0)
SIZE, GRACE, AHEAD, MAX_FUTURE = 10, 3, 25, 30
KAFKA = make_rules(size_us=SIZE, grace_us=GRACE, ahead_us=AHEAD, max_future_us=None, sample_size=3)
CHANGED = replace(
    KAFKA,
    window_changes=(
        WindowRules(size_us=SIZE, grace_us=GRACE, ahead_us=AHEAD, sample_size=2),
        WindowRules(valid_from_us=40, size_us=8, grace_us=0, ahead_us=30, sample_size=1),
        WindowRules(valid_from_us=120, size_us=12, grace_us=9, ahead_us=15, sample_size=5),
    ),
)
FILE = replace(KAFKA, max_future_us=MAX_FUTURE)
SCHEDULE = ThresholdSchedule.from_rows(
    [
        ScheduledThreshold(id=1, model_id=1, valid_from_us=0, threshold=0.5),
        ScheduledThreshold(id=2, model_id=1, valid_from_us=60, threshold=0.25),
        ScheduledThreshold(id=3, model_id=2, valid_from_us=100, threshold=-0.5),
        ScheduledThreshold(id=4, model_id=2, valid_from_us=100, threshold=-0.25),
    ]
)


@dataclass
class FeatureEnergies:
    """A scorer with two models: the energy is the feature or its negative. `asked` records the calls."""

    asked: list[tuple[int, int]] = field(default_factory=list)

    def energies(self, features: np.ndarray, model_id: int) -> np.ndarray:
        self.asked.append((model_id, len(features)))
        return features[:, 0] if model_id == 1 else -features[:, 0]

    def measure(self, features: np.ndarray, model_id: int) -> MeasuredEvents:
        return MeasuredEvents(energies=self.energies(features, model_id))

    def scale(self, model_id: int) -> Scale:
        return Scale(median=float(model_id), iqr=1.0)


@st.composite
def logs(draw: st.DrawFn, largest_step: int = 12, furthest_back: int = 25) -> DecodedBatch:
    """Draw a log of one source with rising and falling times, dead letters, filtered records and offset holes.

    Its record batches begin at any offsets.
    """
    n = draw(st.integers(0, 25))
    steps = draw(st.lists(st.integers(-furthest_back, largest_step), min_size=n, max_size=n))
    kinds = draw(
        st.lists(
            st.sampled_from(["event", "event", "event", "dead", "hole", "filtered", "no time"]), min_size=n, max_size=n
        )
    )
    at = 0
    times, places, dead = [], [], []
    filtered: list[tuple[int, int]] = []
    for offset, (step, kind) in enumerate(zip(steps, kinds, strict=True)):
        if kind == "event":
            at = max(0, at + step)
            times.append(at)
            places.append(offset)
        elif kind == "dead":
            dead.append(offset)
        elif kind != "hole":
            at = max(0, at + step)
            filtered.append((offset, at if kind == "filtered" else NO_TIME_US))
    begins = np.array(sorted(draw(st.sets(st.integers(0, 25), max_size=12)) | {0}), np.int64)
    energy = [((offset * 7919) % 100) / 50 - 1 for offset in places]
    return DecodedBatch(
        partition=PARTITION,
        begin=0,
        end=n,
        cursors=np.arange(0, 10 * n + 1, 10, dtype=np.int64),
        events=Events(
            offsets=np.array(places, np.int64),
            times_us=np.array(times, np.int64),
            features=np.array(energy, np.float32).reshape(-1, 1),
            batch_offsets=_find_batches(places, begins),
            has_append_time=np.zeros(len(places), np.bool_),
        ),
        dead_letters=DeadLetters(
            offsets=np.array(dead, np.int64),
            end_offsets=np.array(dead, np.int64) + 1,
            reasons=["not_json"] * len(dead),
            details=["-"] * len(dead),
            payloads=[None] * len(dead),
        ),
        filtered=FilteredRecords(
            offsets=np.array([offset for offset, _ in filtered], np.int64),
            times_us=np.array([time for _, time in filtered], np.int64),
            batch_offsets=_find_batches([offset for offset, _ in filtered], begins),
            has_append_time=np.zeros(len(filtered), np.bool_),
        ),
    )


def _find_batches(offsets: list[int], begins: np.ndarray) -> np.ndarray:
    """Return the base offset of the record batch of each offset."""
    return begins[np.searchsorted(begins, np.array(offsets, np.int64), side="right") - 1]


def slice_decoded(whole: DecodedBatch, begin: int, end: int) -> DecodedBatch:
    assert whole.cursors is not None
    a, b = np.searchsorted(whole.events.offsets, [begin, end])
    c, d = np.searchsorted(whole.dead_letters.offsets, [begin, end])
    e, f = np.searchsorted(whole.filtered.offsets, [begin, end])
    return replace(
        whole,
        begin=begin,
        end=end,
        cursors=whole.cursors[begin : end + 1],
        events=whole.events.slice(a, b),
        dead_letters=whole.dead_letters.slice(c, d),
        filtered=whole.filtered.slice(e, f),
    )


@dataclass
class FoldRun:
    """A reader that folds and commits a log in pieces, up to the allowed lead over the sealed windows."""

    whole: DecodedBatch
    rules: StreamRules = KAFKA
    folded: list[FoldedBatch] = field(default_factory=list)
    watermark_us: int | None = None
    sealed_until_us: int | None = 0
    committed: int = 0
    read: int = 0
    pending: DecodedBatch | None = None
    undecided: bool = False

    def step(self, n: int) -> bool:
        """Read n more records unless the lead holds some back, and commit. Return True if anything advanced."""
        before = (self.committed, self.watermark_us, self.read)
        if self.pending is None or self.undecided:
            more = slice_decoded(self.whole, self.read, min(self.whole.end, self.read + n))
            self.pending = more if self.pending is None else join_batches([self.pending, more])
            self.read = more.end
        folded = fold(
            self.pending,
            watermark_us=self.watermark_us,
            extent=ReadExtent(read_until=self.read, ended=self.read == self.whole.end),
            control=StreamControl(sealed_until_us=self.sealed_until_us, revision=0),
            schedule=SCHEDULE,
            rules=self.rules,
            scorer=FeatureEnergies(),
        )
        assert folded.end == (folded.remaining.begin if folded.remaining else self.pending.end)
        assert folded.remaining is None or folded.remaining.end == self.pending.end
        assert self.pending.cursor_at(folded.end) == 10 * folded.end
        self.pending = folded.remaining
        self.undecided = folded.remaining is not None and not folded.held_by_lead
        self.committed, self.watermark_us = folded.end, folded.watermark_us
        self.folded.append(folded)
        return (self.committed, self.watermark_us, self.read) != before

    def seal(self, share: float = 1.0) -> bool:
        """Seal a share of the windows that the source's watermark allows to seal."""
        if self.watermark_us is None:
            return False
        windows = make_window_schedule(self.rules.windows)
        allowed, before = windows.passed_us(self.watermark_us), self.sealed_until_us or 0
        self.sealed_until_us = max(before, windows.floor_us(before + round(share * (allowed - before))))
        return self.sealed_until_us != before

    def read_to_end(self) -> "FoldRun":
        """Continue to the end of the log, sealing all allowed windows."""
        while self.committed < self.whole.end or self.read < self.whole.end:
            assert any([self.step(1_000), self.seal()]), "no progress"
        return self

    def rows(self) -> list[tuple[int, int, float, int, bool, bool]]:
        """Return offset, time, energy, threshold, outlier and late of every committed event, in order."""
        return [
            row
            for each in self.folded
            for row in zip(
                each.scored.events.offsets.tolist(),
                each.scored.events.times_us.tolist(),
                each.scored.energies.tolist(),
                each.scored.threshold_ids.tolist(),
                each.scored.is_outlier.tolist(),
                each.scored.is_late.tolist(),
                strict=True,
            )
        ]

    def dead_letters(self) -> list[tuple[int, str]]:
        return [
            pair for each in self.folded for pair in zip(each.dead.offsets.tolist(), each.dead.reasons, strict=True)
        ]

    def windows(self) -> dict[tuple[int, int | None], bytes]:
        """Return the merged part of every window by start and threshold row."""
        parts: dict[tuple[int, int | None], list[Part]] = {}
        for each in self.folded:
            for row in each.parts:
                part = decode_part(row.payload or b"")
                assert (row.events, row.outliers, row.late, row.dead) == (
                    part.events,
                    part.outliers,
                    part.late,
                    part.dead,
                )
                parts.setdefault((row.window_start_us, row.threshold_id), []).append(part)
        return {window: encode_part(merge_parts(found)) for window, found in parts.items()}

    def samples(self) -> dict[int, bytes | None]:
        """Return the merged sample of every window with events that are not late."""
        samples: dict[int, list[bytes | None]] = {}
        for each in self.folded:
            for row in each.parts:
                assert (row.sample is None) == (row.events == 0)
                if row.events:
                    samples.setdefault(row.window_start_us, []).append(row.sample)
        return {start: merge_encoded_samples(found) for start, found in samples.items()}


STEPS = st.lists(st.tuples(st.integers(1, 8), st.floats(0, 1)), max_size=40)


def read(whole: DecodedBatch, steps: list[tuple[int, float]], rules: StreamRules = KAFKA) -> FoldRun:
    reader = FoldRun(whole, rules)
    for n, share in steps:
        reader.step(n)
        reader.seal(share)
    return reader.read_to_end()


def read_in_one_batch(whole: DecodedBatch, rules: StreamRules = KAFKA) -> FoldRun:
    """Read the whole log in one batch with an unlimited lead and without seals."""
    unlimited = tuple(replace(each, ahead_us=10**9) for each in rules.windows)
    reader = FoldRun(whole, replace(rules, window_changes=unlimited))
    reader.step(10**9)
    return reader


@pytest.mark.slow
@given(logs(), STEPS)
def test_any_batches_and_seals_give_the_rows_and_windows_of_one_batch(
    whole: DecodedBatch, steps: list[tuple[int, float]]
) -> None:
    reader, one = read(whole, steps), read_in_one_batch(whole)
    assert reader.rows() == one.rows()
    assert reader.dead_letters() == one.dead_letters()
    assert reader.windows() == one.windows()
    assert reader.samples() == one.samples()


@pytest.mark.slow
@given(logs(), STEPS)
def test_any_batches_and_seals_give_equal_rows_over_changes_of_the_windows(
    whole: DecodedBatch, steps: list[tuple[int, float]]
) -> None:
    reader, one = read(whole, steps, CHANGED), read_in_one_batch(whole, CHANGED)
    assert reader.rows() == one.rows()
    assert reader.windows() == one.windows()
    assert reader.samples() == one.samples()
    ends = {row.window_start_us: row.window_end_us for each in reader.folded for row in each.parts}
    assert all(ends[a] <= b for a, b in pairwise(sorted(ends))), "no two windows overlap"


@pytest.mark.slow
@given(logs(largest_step=90), STEPS)
def test_gaps_in_time_wider_than_the_lead_change_nothing(whole: DecodedBatch, steps: list[tuple[int, float]]) -> None:
    reader, one = read(whole, steps), read_in_one_batch(whole)
    assert (reader.rows(), reader.windows()) == (one.rows(), one.windows())


@pytest.mark.slow
@given(logs(largest_step=90, furthest_back=90), STEPS)
def test_stray_times_of_a_file_are_rejected_for_any_batches(
    whole: DecodedBatch, steps: list[tuple[int, float]]
) -> None:
    reader, one = read(whole, steps, FILE), read_in_one_batch(whole, FILE)
    assert reader.dead_letters() == one.dead_letters()
    assert (reader.rows(), reader.windows()) == (one.rows(), one.windows())


@pytest.mark.slow
@given(logs(largest_step=90, furthest_back=90), STEPS, st.sampled_from([KAFKA, FILE]))
def test_every_record_is_one_event_or_dead_letter_and_counted_in_one_window(
    whole: DecodedBatch, steps: list[tuple[int, float]], rules: StreamRules
) -> None:
    reader = read(whole, steps, rules)
    offsets = [row[0] for row in reader.rows()]
    dead = [offset for offset, _ in reader.dead_letters()]
    assert sorted(offsets + dead) == sorted([*whole.events.offsets.tolist(), *whole.dead_letters.offsets.tolist()])
    assert offsets == sorted(offsets)
    parts = [decode_part(payload) for payload in reader.windows().values()]
    assert sum(part.events + part.late for part in parts) == len(offsets)
    assert sum(part.outliers for part in parts) == sum(row[4] and not row[5] for row in reader.rows())


@pytest.mark.slow
@given(logs(largest_step=40), STEPS)
def test_no_event_is_stored_beyond_the_lead_or_enters_a_sealed_window(
    whole: DecodedBatch, steps: list[tuple[int, float]]
) -> None:
    reader = FoldRun(whole)
    for n, share in steps:
        sealed = reader.sealed_until_us or 0
        reader.step(n)
        last = reader.folded[-1]
        assert (last.scored.events.times_us < make_window_schedule(KAFKA.windows).lead_end_us(sealed)).all()
        assert all(row.events == 0 for row in last.parts if row.window_end_us <= sealed)
        reader.seal(share)


@pytest.mark.slow
@given(logs(largest_step=90), STEPS)
def test_watermark_covers_committed_events_and_the_first_pending_event(
    whole: DecodedBatch, steps: list[tuple[int, float]]
) -> None:
    reader = FoldRun(whole)
    for n, share in steps:
        reader.step(n)
        last = reader.folded[-1]
        timed = find_timed_records(whole)
        seen = timed.times_us[timed.offsets < reader.committed]
        head = timed.times_us[timed.offsets >= reader.committed][:1] if last.held_by_lead else []
        assert reader.watermark_us == max([*seen, *head], default=None)
        reader.seal(share)


@pytest.mark.slow
@given(logs(), st.lists(st.integers(0, 25), max_size=5))
def test_joined_slices_equal_the_original_batch(whole: DecodedBatch, cuts: list[int]) -> None:
    places = [0, *sorted(min(place, whole.end) for place in cuts), whole.end]
    pieces = [slice_decoded(whole, begin, end) for begin, end in pairwise(places)]
    joined = join_batches(pieces)
    assert (joined.begin, joined.end) == (whole.begin, whole.end)
    assert joined.cursors is not None
    assert whole.cursors is not None
    assert joined.cursors.tolist() == whole.cursors.tolist()
    assert joined.events.offsets.tolist() == whole.events.offsets.tolist()
    assert joined.dead_letters.offsets.tolist() == whole.dead_letters.offsets.tolist()
