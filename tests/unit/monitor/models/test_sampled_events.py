"""Training events from the samples of windows: their weights, their order, and what is left out."""

import numpy as np

from monitor.models.sampled_events import build_training_set, select_samples
from monitor.statistics import event_sample
from monitor.statistics.event_sample import EventSample, encode_sample
from storage.control.samples import StoredSample

MINUTE = 60_000_000


def _stored(window: int, n: int, *, events: int | None = None, model_id: int = 1, width: int = 2) -> StoredSample:
    start_us = window * MINUTE
    rng = np.random.default_rng(window)
    sample = EventSample(
        capacity=max(n, 1),
        hashes=np.sort(rng.integers(0, 2**63, n).astype(np.uint64)),
        times_us=start_us + rng.permutation(n),
        features=np.full((n, width), float(window)),
    )
    return StoredSample(
        window_start_us=start_us,
        window_end_us=start_us + MINUTE,
        model_id=model_id,
        events=n if events is None else events,
        payload=encode_sample(sample),
    )


def test_windows_of_incidents_and_of_other_features_are_left_out() -> None:
    samples = [_stored(window, 3, model_id=1 + window // 8) for window in range(10)]
    selected = select_samples(samples, [(2 * MINUTE, 4 * MINUTE), (5 * MINUTE + 1, 5 * MINUTE + 2)], {1})
    assert [sample.window_start_us // MINUTE for sample in selected] == [0, 1, 4, 6, 7]


def test_events_are_in_order_of_time_and_stand_for_their_window() -> None:
    training = build_training_set([_stored(0, 4, events=40), _stored(1, 5, events=5)], ("a", "b"))
    assert training.features[:, 0].tolist() == [0.0] * 4 + [1.0] * 5
    assert training.weights is not None
    assert training.weights.tolist() == [10.0] * 4 + [1.0] * 5


def test_equal_weights_are_none() -> None:
    samples = [_stored(window, 4, events=400 + window) for window in range(3)]
    assert build_training_set(samples, ("a", "b")).weights is None


def test_the_newest_events_can_be_chosen() -> None:
    samples = [_stored(window, 4) for window in range(3)]
    assert build_training_set(samples, ("a", "b"), last=6).features[:, 0].tolist() == [1.0] * 2 + [2.0] * 4


def test_a_long_period_keeps_the_same_share_of_each_window() -> None:
    samples = [_stored(window, 1_000, events=2_000) for window in range(event_sample.MAX_SAMPLED_EVENTS // 500)]
    training = build_training_set(samples, ("a", "b"))
    assert len(training) == event_sample.MAX_SAMPLED_EVENTS
    assert training.weights is None


def test_events_without_a_history_are_no_training_events_of_a_model_that_derives_features() -> None:
    training = build_training_set([_stored(0, 4), _stored(1, 5, width=8)], ("a", "b"), derived=(0, 1))
    assert training.features.shape == (5, 2)
    assert training.history is not None
    assert training.history.context.shape == (5, 6)
    assert build_training_set([_stored(0, 4), _stored(1, 5, width=8)], ("a", "b")).features.shape == (9, 2)


def test_without_samples_there_are_no_events() -> None:
    assert len(build_training_set([], ("a", "b"))) == 0
