"""Roll-ups of windows: the same rows from windows in any order and from roll-ups of any parts of the interval."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monitor.statistics.part import Part, Scale, summarise
from monitor.statistics.part_codec import encode_part
from monitor.statistics.rollup import RollupSums, ScoredBy, build_row, merge_sums, sum_window
from storage.control.rollups import RolledWindow

SCALES = [Scale(median=3.0, iqr=2.0), Scale(median=-1.0, iqr=0.5)]


def scored_by(threshold_id: int) -> ScoredBy:
    model = threshold_id % 2
    return ScoredBy(model_id=model, version=model + 1, scale=SCALES[model])


@st.composite
def drawn_windows(draw: st.DrawFn) -> list[RolledWindow]:
    """Draw windows with few, many and no events, of two models."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    windows = []
    for at in range(draw(st.integers(1, 12))):
        n = draw(st.sampled_from([0, 1, 40, 600]))
        model = draw(st.integers(0, 1))
        energies = rng.gamma(4, 2, n).astype(np.float32)
        part = summarise(energies, energies > 12, SCALES[model]) if n else Part.without_events(dead=1)
        windows.append(
            RolledWindow(
                start_us=at * 60,
                end_us=at * 60 + 60,
                threshold_id=2 * at + model,
                judged=draw(st.booleans()),
                fired=draw(st.booleans()),
                events=n,
                outliers=part.outliers,
                late=draw(st.integers(0, 3)),
                dead=part.dead,
                filtered=draw(st.integers(0, 3)),
                expected=float(rng.gamma(2, 2)) if n else None,
                fires_at=draw(st.integers(5, 30)) if n else None,
                p_value=float(rng.random()) if n else None,
                payload=encode_part(part),
            )
        )
    return windows


def sums_of(windows: list[RolledWindow]) -> RollupSums:
    return merge_sums([sum_window(window, scored_by) for window in windows])


@given(drawn_windows(), st.randoms(use_true_random=False), st.integers(1, 5))
def test_roll_up_of_windows_equals_the_roll_up_of_roll_ups(
    windows: list[RolledWindow], order: random.Random, length: int
) -> None:
    expected = build_row(sums_of(windows), start_us=0, resolution_us=900)
    groups = [windows[at : at + length] for at in range(0, len(windows), length)]
    order.shuffle(groups)
    for group in groups:
        order.shuffle(group)
    merged = merge_sums([sums_of(group) for group in groups])
    assert build_row(merged, start_us=0, resolution_us=900) == expected


@given(drawn_windows())
def test_energies_are_those_of_all_events_of_the_newest_model(windows: list[RolledWindow]) -> None:
    row = build_row(sums_of(windows), start_us=0, resolution_us=900)
    with_events = [window for window in windows if window.events]
    assert (row.model_version is None) == (not with_events)
    if with_events:
        newest = scored_by(with_events[-1].threshold_id or 0)
        assert row.model_version == newest.version
        assert row.energy_p50 is not None
        assert row.energy_max is not None
        assert row.energy_p50 <= row.energy_max
