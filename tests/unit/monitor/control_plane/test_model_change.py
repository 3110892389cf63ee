"""After a model change the threshold keeps its rank at once, although the energies differ by 50 nats."""

import numpy as np
import pytest

from config.budget import false_alarm_probability
from monitor.incidents.spike import judge_count
from monitor.statistics.part import Part, Scale, summarise
from monitor.thresholds.look_back import LookBack
from monitor.thresholds.tick import build_first_threshold, compute_tick_threshold, load_count_model, load_tail_law
from storage.control.models import Activation
from storage.control.thresholds import ThresholdRow
from tests.rules import make_rules

MINUTE = 60_000_000
EVENTS = 500
RULES = make_rules(
    percentile=99.5, look_back_us=1440 * MINUTE, adopt_after_us=1440 * MINUTE, size_us=MINUTE, per_week=1.0
)
ALPHA = false_alarm_probability(1.0, MINUTE)


def energies(rng: np.random.Generator, n: int, moved: float) -> np.ndarray:
    return (rng.gamma(8, 1, n) * (1 + abs(moved) / 25) + moved).astype(np.float32)


def windows_of(rng: np.random.Generator, row: ThresholdRow, moved: float, count: int, scale: Scale) -> list[Part]:
    samples = [energies(rng, EVENTS, moved) for _ in range(count)]
    return [summarise(each, each > row.threshold, scale) for each in samples]


def fired(row: ThresholdRow, part: Part) -> bool:
    return judge_count(load_count_model(row.details), part.events, part.outliers, alpha=ALPHA, min_outliers=5).fires


@pytest.mark.parametrize("moved", [50.0, -50.0])
def test_the_threshold_keeps_its_rank_at_once(moved: float) -> None:
    rng = np.random.default_rng(1)
    old = np.sort(energies(rng, 10_000, 0.0))
    new = np.sort(energies(rng, 10_000, moved))
    before = build_first_threshold(old, 1, Activation(valid_from_us=0, computed_at_us=0), 99.5)
    after = build_first_threshold(new, 2, Activation(valid_from_us=10**9, computed_at_us=0), 99.5)
    live = energies(rng, 200_000, moved)
    assert (live > after.threshold).mean() == pytest.approx(0.005, rel=0.3)
    share_above = (live > before.threshold).mean()
    assert share_above > 0.9 if moved > 0 else share_above < 0.001


@pytest.mark.parametrize("moved", [50.0, -50.0])
def test_the_tail_law_of_a_new_model_is_that_of_its_own_reference(moved: float) -> None:
    rng = np.random.default_rng(4)
    new = np.sort(energies(rng, 10_000, moved))
    law = load_tail_law(build_first_threshold(new, 2, Activation(valid_from_us=0, computed_at_us=0), 99.5).details)
    assert law is not None
    clean = energies(rng, 100_000, moved)
    assert (clean > law.energy_at(1e-3)).mean() == pytest.approx(1e-3, rel=0.7)
    assert law.p_value(moved + 300) < ALPHA / EVENTS


@pytest.mark.parametrize("moved", [50.0, -50.0])
def test_no_window_after_a_model_change_is_blind_or_a_false_spike(moved: float) -> None:
    rng = np.random.default_rng(2)
    reference = np.sort(energies(rng, 10_000, moved))
    scale = Scale.from_energies(reference)
    row = build_first_threshold(reference, 2, Activation(valid_from_us=0, computed_at_us=0), 99.5).with_id(1)
    look_back = LookBack(scale)
    outliers = 0
    for window in range(60):
        part = windows_of(rng, row, moved, 1, scale)[0]
        assert not fired(row, part)
        outliers += part.outliers
        spike = np.concatenate([energies(rng, EVENTS - 40, moved), np.full(40, moved + 200, np.float32)])
        assert fired(row, summarise(spike, spike > row.threshold, scale)), "blind"
        look_back.add(window * MINUTE, part)
        if window % 5 == 4:
            tick, _, _ = compute_tick_threshold(
                row,
                look_back,
                list(look_back.windows),
                reference,
                RULES,
                tick_us=(window + 1) * MINUTE,
                valid_from_us=(window + 1) * MINUTE,
                most_events=EVENTS,
            )
            # Below 10,000 events of the new model its reference energies take part.
            expected = "pooled" if (window + 1) * EVENTS < 10_000 else "plain"
            assert tick.method == expected
            row = tick.with_id(window)
    assert outliers / (60 * EVENTS) == pytest.approx(0.005, rel=0.5)
