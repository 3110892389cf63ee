"""Parts of windows: edge cases of the numbers."""

from dataclasses import replace

import numpy as np
import pytest

from monitor.statistics.drift_sums import DriftCodes
from monitor.statistics.part import Part, Scale, bin_edges, bin_index, merge_parts, summarise
from monitor.statistics.part_codec import encode_part

SCALE = Scale(median=0.0, iqr=1.0)
LARGEST = np.finfo(np.float32).max


def part_of(*energies: float, scale: Scale = SCALE) -> Part:
    array = np.array(energies, np.float32)
    return summarise(array, array > 5, scale)


def test_part_without_events_has_only_counts() -> None:
    part = part_of()
    assert (part.events, part.outliers, len(part.top), len(part.bins)) == (0, 0, 0, 0)
    assert encode_part(part) == encode_part(Part.without_events()) == encode_part(merge_parts([]))


def test_late_events_and_dead_letters_are_counted_separately() -> None:
    merged = merge_parts([part_of(1, 6), Part.without_events(late=2, dead=3)])
    assert (merged.events, merged.outliers, merged.late, merged.dead) == (2, 1, 2, 3)


def test_bins_follow_the_formula_of_the_histogram() -> None:
    energies = np.linspace(-50, 50, 4001).astype(np.float32)
    scale = Scale(median=1.5, iqr=0.7)
    formula = np.floor(np.arcsinh((energies.astype(np.float64) - 1.5) / 0.7) / 0.02)
    assert bin_index(energies, scale).tolist() == formula.tolist()


def test_energies_beyond_the_histogram_fall_into_the_outermost_bins() -> None:
    part = part_of(-LARGEST, -1e30, 0, 1e30, LARGEST)
    assert part.bins.tolist() == [-500, 0, 500]
    assert part.counts.tolist() == [2, 1, 2]


def test_part_of_a_thousand_events_is_small() -> None:
    energies = np.random.default_rng(0).gamma(8, 1, 1000).astype(np.float32)
    part = summarise(energies, energies > 18, Scale.from_energies(energies))
    assert 80 < len(part.bins) < 250
    assert len(encode_part(part)) < 2048


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_energy_is_rejected(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        part_of(1, value)


def test_energies_in_float64_are_rejected() -> None:
    with pytest.raises(ValueError, match="float32"):
        summarise(np.zeros(3), np.zeros(3, bool), SCALE)  # type: ignore[arg-type]


def test_flags_of_another_length_are_rejected() -> None:
    with pytest.raises(ValueError, match="do not match"):
        summarise(np.zeros(3, np.float32), np.zeros(2, bool), SCALE)


def test_negative_zero_is_encoded_as_zero() -> None:
    assert encode_part(part_of(-0.0, 0.0)) == encode_part(part_of(0.0, -0.0))


def test_scale_is_median_and_interquartile_range() -> None:
    scale = Scale.from_energies(np.arange(101, dtype=np.float32))
    assert (scale.median, scale.iqr) == (50, 50)


def test_equal_reference_energies_have_a_scale_of_one_nat() -> None:
    assert Scale.from_energies(np.full(100, -7, np.float32)) == Scale(median=-7, iqr=1)


def test_large_equal_reference_energies_have_the_scale_of_their_spacing() -> None:
    scale = Scale.from_energies(np.full(100, 1e30, np.float32))
    assert scale.iqr == pytest.approx(float(np.spacing(np.float32(1e30))))
    assert np.isfinite(bin_edges(scale)).all()


def test_scale_without_reference_energies_is_rejected() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Scale.from_energies(np.empty(0, np.float32))


def test_scale_without_width_is_rejected() -> None:
    with pytest.raises(ValueError, match="positive"):
        Scale(median=0, iqr=0)


def test_complete_above_is_the_smallest_listed_energy_of_a_large_part() -> None:
    assert part_of(*range(256)).complete_above == -np.inf
    assert part_of(*range(257)).complete_above == 1


def with_drift(*energies: float) -> Part:
    ones = np.ones((len(energies), 2), np.int8)
    return replace(part_of(*energies), drift=DriftCodes(ranks=ones, shares=None, scores=ones).sum_rows(slice(None)))


def test_merged_drift_sums_are_none_if_any_part_has_none() -> None:
    for parts_ in ([with_drift(1), part_of(2), with_drift(3)], [part_of(2), with_drift(1)]):
        assert merge_parts(parts_).drift is None
    assert merge_parts([merge_parts([with_drift(1), part_of(2)]), with_drift(3)]).drift is None
