"""Folding a batch: thresholds, windows, held and undecided events, rejected times."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.stream_rules import StreamRules
from consumers.batch import Partition
from consumers.clock_vote import ReadExtent
from consumers.decoded_batch import NO_TIME_US, DeadLetters, DecodedBatch, Events, FilteredRecords
from monitor.pipeline.fold import FoldedBatch, fold
from monitor.pipeline.threshold_schedule import ThresholdSchedule
from monitor.statistics.drift_sums import MeasuredEvents, code_events
from monitor.statistics.part import Scale, summarise
from monitor.statistics.part_codec import encode_part
from monitor.statistics.training_profile import TrainingProfile, build_feature_profile, quantile_edges
from storage.ledger.commit import StreamControl
from storage.ledger.schedule import ScheduledThreshold
from tests.rules import make_rules

MINUTE = 60_000_000
T0 = 1_767_225_600_000_000
RULE = make_rules(size_us=MINUTE, grace_us=MINUTE // 6, ahead_us=10 * MINUTE, max_future_us=None)
FILE = make_rules(size_us=MINUTE, grace_us=MINUTE // 6, ahead_us=60 * MINUTE, max_future_us=5 * MINUTE)
PROFILE = TrainingProfile(
    features=build_feature_profile(np.arange(13.0).reshape(-1, 1)),
    energy_edges=quantile_edges(np.arange(14, dtype=np.float32)),
)


@dataclass
class Energies:
    """The energy is the feature plus the model's number."""

    calls: list[tuple[int, int]] = field(default_factory=list)

    def energies(self, features: np.ndarray, model_id: int) -> np.ndarray:
        self.calls.append((model_id, len(features)))
        return (features[:, 0] + model_id).astype(np.float32)

    def measure(self, features: np.ndarray, model_id: int) -> MeasuredEvents:
        return MeasuredEvents(energies=self.energies(features, model_id))

    def scale(self, model_id: int) -> Scale:
        return Scale(median=0.0, iqr=float(model_id))


def threshold(number: int, *, valid_from_us: int = 0, model: int = 1, value: float = 10.0) -> ScheduledThreshold:
    return ScheduledThreshold(id=number, model_id=model, valid_from_us=valid_from_us, threshold=value)


def batch(times: list[float], features: list[float] | None = None, dead: tuple[int, ...] = ()) -> DecodedBatch:
    """Return events at these minutes after T0, at the offsets that the dead letters leave free."""
    n = len(times) + len(dead)
    offsets = np.array([offset for offset in range(n) if offset not in dead], np.int64)
    dead_offsets = np.array(dead, np.int64)
    values = [1.0] * len(times) if features is None else features
    return DecodedBatch(
        partition=Partition(topic="t", partition=0),
        begin=0,
        end=n,
        cursors=None,
        events=Events(
            offsets=offsets,
            times_us=np.array([T0 + round(time * MINUTE) for time in times], np.int64),
            features=np.array(values, np.float32).reshape(-1, 1),
        ),
        dead_letters=DeadLetters(
            offsets=dead_offsets,
            end_offsets=dead_offsets + 1,
            reasons=["not_json"] * len(dead),
            details=["-"] * len(dead),
            payloads=[b"{"] * len(dead),
        ),
    )


def folded(
    decoded: DecodedBatch,
    *rows: ScheduledThreshold,
    rules: StreamRules = RULE,
    sealed: float | None = 0,
    watermark: float | None = None,
    ended: bool = False,
    log_end_us: int | None = None,
    scorer: Energies | None = None,
) -> FoldedBatch:
    return fold(
        decoded,
        watermark_us=None if watermark is None else T0 + round(watermark * MINUTE),
        extent=ReadExtent(read_until=decoded.end, ended=ended, log_end_us=log_end_us),
        control=StreamControl(sealed_until_us=None if sealed is None else T0 + round(sealed * MINUTE), revision=0),
        schedule=ThresholdSchedule.from_rows(rows or [threshold(1)]),
        rules=rules,
        scorer=scorer or Energies(),
    )


def windows(result: FoldedBatch) -> list[tuple[float, int, int, int]]:
    """Return start in minutes, events, late events and dead letters of each part."""
    return [((row.window_start_us - T0) / MINUTE, row.events, row.late, row.dead) for row in result.parts]


def test_every_event_of_a_window_has_the_threshold_of_the_window_start() -> None:
    rows = (threshold(1), threshold(2, valid_from_us=T0 + MINUTE))
    result = folded(batch([0.99, 1.0, 1.99]), *rows)
    assert result.scored.threshold_ids.tolist() == [1, 2, 2]
    assert [row.threshold_id for row in result.parts] == [1, 2]


def test_an_event_at_its_threshold_is_no_outlier() -> None:
    result = folded(batch([0, 0, 0], [8.5, 9.0, 9.25]))
    assert result.scored.energies.tolist() == [9.5, 10.0, 10.25]
    assert result.scored.is_outlier.tolist() == [False, False, True]


def test_each_model_scores_all_its_events_in_one_call() -> None:
    rows = (threshold(1), threshold(2, valid_from_us=T0 + MINUTE, model=2))
    scorer = Energies()
    result = folded(batch([0, 1, 0.5, 1.5, 0.7]), *rows, scorer=scorer)
    assert scorer.calls == [(1, 3), (2, 2)]
    assert result.scored.energies.tolist() == [2, 3, 2, 3, 2]


def test_the_lead_cuts_before_the_first_event_too_far_ahead_and_publishes_its_time() -> None:
    result = folded(batch([0, 1, 11, 2]))
    assert (result.end, result.held_by_lead, result.watermark_us) == (2, True, T0 + 11 * MINUTE)
    assert result.remaining is not None
    assert (result.remaining.begin, result.remaining.end, len(result.remaining.events)) == (2, 4, 2)


def test_an_event_just_before_the_end_of_the_lead_is_folded() -> None:
    just_below = 10 + 1 / 6 - 1e-6
    assert folded(batch([just_below])).remaining is None
    assert folded(batch([10 + 1 / 6])).held_by_lead


def test_before_the_first_seal_no_present_event_is_folded() -> None:
    result = folded(batch([0, 1]), sealed=None)
    assert (result.end, result.held_by_lead, result.watermark_us, len(result.scored.events)) == (0, True, T0, 0)


def test_dead_letters_before_a_held_event_are_folded_and_later_ones_wait() -> None:
    result = folded(batch([0, 30], dead=(1, 3)))
    assert (result.end, result.dead.offsets.tolist()) == (2, [1])
    assert result.remaining is not None
    assert result.remaining.dead_letters.offsets.tolist() == [3]


def test_a_dead_letter_counts_in_the_window_of_the_watermark_before_it() -> None:
    result = folded(batch([3.5, 0.5], dead=(1, 3)))
    assert windows(result) == [(3, 1, 1, 2)]


def test_a_dead_letter_after_a_restart_counts_in_the_window_of_the_stored_watermark() -> None:
    assert windows(folded(batch([], dead=(0,)), watermark=2.5)) == [(2, 0, 0, 1)]


def test_a_dead_letter_before_the_first_event_is_in_no_window() -> None:
    result = folded(batch([1], dead=(0, 1)))
    assert windows(result) == [(1, 1, 0, 0)]
    assert len(result.dead) == 2


def test_an_event_is_late_if_its_window_end_plus_grace_is_at_most_the_source_watermark() -> None:
    exact = 1 + 1 / 6
    assert folded(batch([exact, 0.5])).scored.is_late.tolist() == [False, True]
    assert folded(batch([exact - 1e-6, 0.5])).scored.is_late.tolist() == [False, False]


def test_late_event_is_counted_but_in_no_statistics_of_a_part() -> None:
    result = folded(batch([0.5, 1.5], [99.0, 99.0]), sealed=1)
    assert result.scored.is_late.tolist() == [True, False]
    assert result.scored.is_outlier.tolist() == [True, True]
    assert windows(result) == [(1, 1, 1, 0)]
    assert [row.outliers for row in result.parts] == [1]


def test_a_late_event_counts_in_the_window_of_the_watermark_before_it() -> None:
    assert windows(folded(batch([3.5, 0.5, 5.2, 1.5]))) == [(3, 1, 1, 0), (5, 1, 1, 0)]
    assert windows(folded(batch([0.5]), watermark=7.5)) == [(7, 0, 1, 0)]


def test_a_late_event_of_a_source_behind_the_seal_counts_in_the_first_open_window() -> None:
    assert windows(folded(batch([2.5]), watermark=2.1, sealed=6)) == [(6, 0, 1, 0)]


def test_scattered_old_times_cost_no_part_each() -> None:
    result = folded(batch([900.5, *range(0, 800, 3)]), rules=replace(RULE, ahead_us=1_000 * MINUTE))
    assert windows(result) == [(900, 1, 267, 0)]


def filtered(*offsets_and_minutes: tuple[int, float | None]) -> FilteredRecords:
    return FilteredRecords(
        offsets=np.array([offset for offset, _ in offsets_and_minutes], np.int64),
        times_us=np.array([NO_TIME_US if at is None else T0 + round(at * MINUTE) for _, at in offsets_and_minutes]),
    )


def test_filtered_records_move_the_watermark_and_count_in_its_window() -> None:
    whole = replace(batch([0.5, 9.0, 9.0, 0.6], dead=(2,)), filtered=filtered((1, 4.5)))
    whole = replace(whole, events=whole.events.filter(np.array([True, False, False, True])))
    result = folded(whole)
    assert result.scored.is_late.tolist() == [False, True]
    assert result.watermark_us == T0 + round(4.5 * MINUTE)
    assert windows(result) == [(0, 1, 0, 0), (4, 0, 1, 1)]
    assert [row.filtered for row in result.parts] == [0, 1]
    assert result.n_records == 4


def test_a_filtered_record_without_a_time_counts_in_the_window_of_the_watermark() -> None:
    result = folded(replace(batch([]), end=2, filtered=filtered((0, None), (1, None))), watermark=3)
    assert [(row.window_start_us, row.filtered) for row in result.parts] == [(T0 + 3 * MINUTE, 2)]
    assert result.watermark_us == T0 + 3 * MINUTE


def test_the_lead_holds_filtered_records_back() -> None:
    whole = replace(batch([0]), end=3, filtered=filtered((1, 30), (2, 31)))
    result = folded(whole)
    assert (result.end, result.held_by_lead, result.watermark_us) == (1, True, T0 + 30 * MINUTE)
    assert result.remaining is not None
    assert result.remaining.filtered.offsets.tolist() == [1, 2]


def test_filtered_records_vote_and_their_own_stray_times_move_nothing() -> None:
    whole = replace(batch([0, 20]), end=40, filtered=filtered(*((2 + i, 0.1) for i in range(37)), (39, 50)))
    result = folded(whole, rules=FILE, ended=True, watermark=0, log_end_us=T0)
    assert (result.dead.offsets.tolist(), result.watermark_us) == ([1], T0 + round(0.1 * MINUTE))
    assert [row.filtered for row in result.parts] == [38]


def test_a_stray_time_in_a_file_becomes_a_dead_letter_with_its_time() -> None:
    result = folded(batch([0, 20, 0.1, 0.2]), rules=FILE, ended=True)
    assert result.scored.events.offsets.tolist() == [0, 2, 3]
    assert (result.dead.offsets.tolist(), result.dead.reasons) == ([1], ["future_time"])
    assert result.dead.details == ["2026-01-01T00:20:00Z; the record batches after it have earlier times"]
    assert result.watermark_us == T0 + round(0.2 * MINUTE)
    assert windows(result) == [(0, 3, 0, 1)]


def test_rejected_stray_times_are_sorted_into_the_dead_letters_by_offset() -> None:
    result = folded(batch([0, 20, 0.1, 0.2, 0.3], dead=(1, 5)), rules=FILE, ended=True)
    assert result.dead.offsets.tolist() == [1, 2, 5]
    assert result.dead.reasons == ["not_json", "future_time", "not_json"]
    assert result.dead.payloads == [b"{", None, b"{"]


def test_a_jump_that_the_next_events_confirm_is_accepted() -> None:
    result = folded(batch([0, 20, 20.1, 20.2]), rules=FILE, ended=True)
    assert result.scored.events.offsets.tolist() == [0, 1, 2, 3]
    assert result.remaining is None


def test_a_jump_is_undecided_until_events_follow_or_the_source_ends() -> None:
    jump = batch([0, 0.1, 20])
    waits = folded(jump, rules=FILE, watermark=0)
    assert (waits.end, waits.held_by_lead, waits.watermark_us) == (2, False, T0 + round(0.1 * MINUTE))
    assert folded(jump, rules=FILE, watermark=0, ended=True).end == 3
    assert folded(jump, rules=FILE, watermark=0, log_end_us=T0 + 14 * MINUTE).end == 2
    assert folded(jump, rules=FILE, watermark=0, log_end_us=T0 + 15 * MINUTE).end == 3


@pytest.mark.parametrize("beyond", [20.0, 500.0])
def test_the_time_of_an_undecided_jump_never_becomes_the_watermark(beyond: float) -> None:
    result = folded(batch([0, 0.1, beyond]), rules=FILE, watermark=0)
    assert (result.held_by_lead, result.watermark_us) == (False, T0 + round(0.1 * MINUTE))


def test_a_batch_without_records_moves_the_position() -> None:
    empty = batch([])
    moved = DecodedBatch(
        partition=empty.partition, begin=5, end=9, cursors=None, events=empty.events, dead_letters=empty.dead_letters
    )
    result = folded(moved, watermark=1)
    assert (result.end, result.watermark_us, result.parts, result.remaining) == (9, T0 + MINUTE, [], None)


class CodedEnergies(Energies):
    """Energies with drift codes; the two models have different scales."""

    def measure(self, features: np.ndarray, model_id: int) -> MeasuredEvents:
        energies = self.energies(features, model_id)
        return MeasuredEvents(energies=energies, codes=code_events(PROFILE, features, energies, None))


@pytest.mark.slow
@given(
    times=st.lists(st.integers(0, 7 * 4), max_size=40),
    dead=st.sets(st.integers(0, 45), max_size=4),
    sealed=st.integers(0, 3),
)
def test_parts_of_one_pass_equal_the_parts_of_each_window_alone(times: list[int], dead: set[int], sealed: int) -> None:
    features = [float(11 * time % 13) for time in times]
    whole = batch([time / 4 for time in times], features, tuple(sorted(each for each in dead if each < len(times))))
    rows = (threshold(1), threshold(2, valid_from_us=T0 + 3 * MINUTE, model=2, value=12.0))
    one_pass = folded(whole, *rows, sealed=sealed, scorer=CodedEnergies())
    running = [None, *np.maximum.accumulate(whole.events.times_us).tolist()]
    dead_windows = [running[int(at)] for at in np.searchsorted(whole.events.offsets, whole.dead_letters.offsets)]
    expected = []
    late_windows = [
        max(T0 + sealed * MINUTE, time if mark is None else mark)
        for time, mark, late in zip(whole.events.times_us.tolist(), running, one_pass.scored.is_late, strict=False)
        if late
    ]
    for start in range(T0, T0 + 8 * MINUTE, MINUTE):
        own = (whole.events.times_us >= start) & (whole.events.times_us < start + MINUTE)
        n_late = sum(start <= each < start + MINUTE for each in late_windows)
        n_dead = sum(each is not None and start <= each < start + MINUTE for each in dead_windows)
        on_time = own & ~one_pass.scored.is_late
        if not on_time.any() and not n_dead and not n_late:
            continue
        model_id, number = (2, 2) if start >= T0 + 3 * MINUTE else (1, 1)
        energies = one_pass.scored.energies[on_time]
        codes = code_events(PROFILE, whole.events.features[on_time], energies, None)
        part = replace(
            summarise(energies, one_pass.scored.is_outlier[on_time], Scale(median=0.0, iqr=float(model_id))),
            drift=codes.sum_rows(slice(None)) if len(energies) else None,
            late=n_late,
            dead=n_dead,
        )
        offsets = whole.events.offsets[on_time].tolist()
        expected.append((start, number, encode_part(part), offsets[:1], offsets[-1:]))
    found = [
        (
            row.window_start_us,
            row.threshold_id,
            row.payload,
            [] if row.first_offset is None else [row.first_offset],
            [] if row.last_offset is None else [row.last_offset],
        )
        for row in one_pass.parts
    ]
    assert found == expected
