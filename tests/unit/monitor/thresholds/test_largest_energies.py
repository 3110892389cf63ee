"""The largest energies of many windows after windows were added and evicted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.statistics.part import LAST_BIN, Part, Scale, bin_index, summarise
from monitor.statistics.sketch import EnergySketch
from monitor.thresholds.largest_energies import LargestEnergies

SCALE = Scale(median=8.0, iqr=4.0)
# Few values, so that ties within and between windows are common.
ENERGIES = st.lists(st.sampled_from([-3.5, 0.0, 1.25, 7.0, 8.0, 1e4, 3e38]), max_size=30)


def part(energies: list[float]) -> Part:
    x = np.array(energies, np.float32)
    return summarise(x, np.zeros(len(x), np.bool_), SCALE)


@pytest.mark.slow
@given(st.lists(ENERGIES, max_size=100), st.data())
def test_listed_energies_are_those_of_the_contained_windows(windows: list[list[float]], data: st.DataObject) -> None:
    largest, left = LargestEnergies(), dict(enumerate(map(part, windows)))
    for number, each in left.items():
        largest.add(number, each)
        if data.draw(st.booleans()):
            largest.ascending()
    for number in [number for number in left if data.draw(st.booleans())]:
        largest.evict(number, left.pop(number))
    listed = np.concatenate([np.empty(0, np.float32), *(each.top for each in left.values())])
    assert largest.ascending().tolist() == np.sort(listed).tolist()
    assert largest.events(largest.row_indices(left)).tolist() == [each.events for each in left.values()]
    energy = data.draw(st.sampled_from([0.0, 1.25, 7.1, 1e4, 1e39]))
    counts, exact = largest.count_above(largest.row_indices(left), energy)
    assert counts.tolist() == [int((each.top.astype(np.float64) > energy).sum()) for each in left.values()]
    assert exact.all()


def test_count_above_marks_windows_with_incomplete_lists() -> None:
    largest = LargestEnergies()
    largest.add("whole", part([1.0] * 200))
    largest.add("cut", part([float(energy) for energy in range(300)]))
    assert largest.complete_above == 44.0
    counts, exact = largest.count_above(largest.row_indices(["whole", "cut"]), 10.0)
    assert (counts.tolist(), exact.tolist()) == ([0, 256], [True, False])


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=200))
def test_listed_energies_are_subtracted_from_their_bins(energies: list[float]) -> None:
    x = np.array(energies, np.float32) + np.float32(0)
    dense = np.bincount(bin_index(x, SCALE) + LAST_BIN, minlength=2 * LAST_BIN + 1)
    sketch = EnergySketch.from_sums(np.sort(x), -np.inf, dense, SCALE)
    assert not sketch.counts.any()
    assert sketch.top.tolist() == np.sort(x)[::-1].tolist()


def test_storage_grows_to_hundreds_of_windows() -> None:
    largest = LargestEnergies()
    for number in range(200):
        largest.add(number, part([float(number), float(number + 1)]))
    for number in range(0, 200, 2):
        largest.evict(number, part([float(number), float(number + 1)]))
    largest.add("again", part([7.0] * 3))
    left = [*range(1, 200, 2), "again"]
    assert largest.events(largest.row_indices(left)).tolist() == [2] * 100 + [3]
    counts, exact = largest.count_above(largest.row_indices(left), 99.5)
    assert counts.tolist() == [(number > 99.5) + (number + 1 > 99.5) for number in range(1, 200, 2)] + [0]
    assert exact.all()
    assert len(largest.ascending()) == 203
