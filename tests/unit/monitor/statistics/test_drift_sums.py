"""The sums of drift: what one event adds, and how they are kept."""

import numpy as np
import pytest

from monitor.statistics.drift_means import is_valid_shape, join_sums
from monitor.statistics.drift_sums import (
    MAX_FEATURES,
    MAX_PAIRED_FEATURES,
    DriftSums,
    add_drift_sums,
    code_events,
    feature_pair,
    pack_drift_sums,
    unpack_drift_sums,
)
from monitor.statistics.training_profile import TrainingProfile, build_feature_profile, quantile_edges

RNG = np.random.default_rng(3)


def yardstick(d: int) -> tuple[TrainingProfile, np.ndarray]:
    training = RNG.standard_normal((5_000, d)).astype(np.float32)
    return TrainingProfile(
        features=build_feature_profile(training), energy_edges=quantile_edges(training[:, 0])
    ), training


def sums_of(features: np.ndarray, stick: TrainingProfile, shares: np.ndarray | None = None) -> DriftSums:
    return code_events(stick, features, np.ascontiguousarray(features[:, 0]), shares).sum_rows(slice(None))


def test_means_of_the_sums_are_mean_ranks_and_correlations() -> None:
    stick, _ = yardstick(4)
    x = RNG.standard_normal((20_000, 4)).astype(np.float32)
    x[:, 3] = 0.6 * x[:, 1] + 0.8 * x[:, 3]
    x[:, 2] += 0.5
    found = sums_of(x, stick)
    ranks, pairs = found.ranks / 128 / len(x), found.pairs / 256 / len(x)
    assert ranks[:2] == pytest.approx(0, abs=0.02)
    assert ranks[2] == pytest.approx(0.138, abs=0.02)  # Phi(0.5 / sqrt 2) - 1/2
    named = {feature_pair(place, 4): value for place, value in enumerate(pairs)}
    assert named[1, 3] == pytest.approx(0.6, abs=0.05)
    assert max(abs(value) for pair, value in named.items() if pair != (1, 3) and 2 not in pair) < 0.05


def test_shares_are_counted_and_add_up_to_the_events() -> None:
    stick, training = yardstick(2)
    shares = RNG.dirichlet(np.ones(3), len(training)).astype(np.float32)
    found = sums_of(training, stick, shares)
    assert found.occupancy / 65536 == pytest.approx(shares.sum(axis=0), abs=0.2)


def test_one_component_has_no_occupancy() -> None:
    stick, training = yardstick(2)
    assert sums_of(training, stick, np.ones((len(training), 1), np.float32)).occupancy is None


def test_a_far_event_decides_nothing() -> None:
    stick, _ = yardstick(2)
    far = sums_of(np.array([[1e30, -1e30]], np.float32), stick)
    assert far.pairs.tolist() == [-(64**2)]
    assert far.ranks.tolist() == [63, -63, 63]


def test_a_constant_feature_has_no_products() -> None:
    training = np.stack([RNG.standard_normal(500), np.full(500, 4.0)], axis=1).astype(np.float32)
    stick = TrainingProfile(features=build_feature_profile(training), energy_edges=quantile_edges(training[:, 0]))
    assert sums_of(training + 1, stick).pairs.tolist() == [0]


@pytest.mark.parametrize(
    ("d", "shape"),
    [
        (1, (2, 0, 0)),
        (MAX_PAIRED_FEATURES, (33, 0, 496)),
        (MAX_PAIRED_FEATURES + 1, (34, 0, 0)),
        (MAX_FEATURES + 1, (1, 0, 0)),
    ],
)
def test_what_is_watched_has_a_bound(d: int, shape: tuple[int, int, int]) -> None:
    stick, training = yardstick(d)
    assert sums_of(training[:50], stick).shape == shape


def test_pairs_are_told_by_their_features() -> None:
    assert [feature_pair(place, 4) for place in range(6)] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


def test_sums_over_the_events_of_both_are_those_of_all() -> None:
    stick, x = yardstick(6)
    shares = RNG.dirichlet(np.ones(3), len(x)).astype(np.float32)
    codes = code_events(stick, x, np.ascontiguousarray(x[:, 0]), shares)
    some = RNG.random(len(x)) < 0.3
    found = add_drift_sums(codes.sum_rows(some), codes.sum_rows(np.flatnonzero(~some)))
    whole = codes.sum_rows(slice(None))
    assert join_sums(found).tolist() == join_sums(whole).tolist()
    assert join_sums(add_drift_sums(codes.sum_rows(~some & some), whole)).tolist() == join_sums(whole).tolist()


def test_codes_of_an_event_do_not_depend_on_the_others() -> None:
    stick, x = yardstick(40)
    energies = np.ascontiguousarray(x[:, 0])
    whole = code_events(stick, x, energies, None)
    alone = [code_events(stick, x[i : i + 1], energies[i : i + 1], None).ranks[0].tolist() for i in range(20)]
    assert whole.ranks[:20].tolist() == alone


def test_a_model_is_known_by_the_shape_of_its_sums() -> None:
    for d in (1, 2, MAX_PAIRED_FEATURES, MAX_PAIRED_FEATURES + 1, MAX_FEATURES + 1):
        stick, x = yardstick(d)
        shape = sums_of(x[:9], stick).shape
        assert is_valid_shape(shape, d)
        assert not is_valid_shape(shape, d + 1) or d > MAX_FEATURES


def test_sums_of_different_models_are_not_added() -> None:
    (one, x), (other, y) = yardstick(2), yardstick(3)
    with pytest.raises(ValueError, match="different shapes"):
        add_drift_sums(sums_of(x, one), sums_of(y, other))


@pytest.mark.parametrize("n", [1, 300, 5_000])
def test_sums_are_kept_in_few_bytes_and_come_back(n: int) -> None:
    stick, training = yardstick(30)
    before = sums_of(training[:n], stick, RNG.dirichlet(np.ones(3), n).astype(np.float32))
    section = pack_drift_sums(before)
    after = unpack_drift_sums(section)
    for name in ("ranks", "squares", "occupancy", "pairs"):
        assert getattr(after, name).tolist() == getattr(before, name).tolist()
    assert len(section.pairs or b"") <= 1 + 4 * 435
    assert after.is_consistent(n)
    assert not after.is_consistent(0)


@pytest.mark.parametrize("raw", [b"", b"\x03abc", b"\x04abc"])
def test_bytes_that_are_no_sums_are_refused(raw: bytes) -> None:
    stick, training = yardstick(2)
    section = pack_drift_sums(sums_of(training[:5], stick))
    section.ranks = raw
    with pytest.raises(ValueError, match="width"):
        unpack_drift_sums(section)
