"""Drift sums: the contribution of one event, and their encoding."""

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
    pack_window_drift_sums,
    unpack_drift_sums,
)
from monitor.statistics.training_profile import TrainingProfile, build_feature_profile, quantile_edges

RNG = np.random.default_rng(3)


def make_profile(d: int) -> tuple[TrainingProfile, np.ndarray]:
    training = RNG.standard_normal((5_000, d)).astype(np.float32)
    return TrainingProfile(
        features=build_feature_profile(training), energy_edges=quantile_edges(training[:, 0])
    ), training


def sums_of(features: np.ndarray, profile: TrainingProfile, shares: np.ndarray | None = None) -> DriftSums:
    return code_events(profile, features, np.ascontiguousarray(features[:, 0]), shares).sum_rows(slice(None))


def test_means_of_the_sums_are_mean_ranks_and_correlations() -> None:
    profile, _ = make_profile(4)
    x = RNG.standard_normal((20_000, 4)).astype(np.float32)
    x[:, 3] = 0.6 * x[:, 1] + 0.8 * x[:, 3]
    x[:, 2] += 0.5
    sums = sums_of(x, profile)
    ranks, pairs = sums.ranks / 128 / len(x), sums.pairs / 256 / len(x)
    assert ranks[:2] == pytest.approx(0, abs=0.02)
    assert ranks[2] == pytest.approx(0.138, abs=0.02)  # Phi(0.5 / sqrt 2) - 1/2
    products = {feature_pair(index, 4): value for index, value in enumerate(pairs)}
    assert products[1, 3] == pytest.approx(0.6, abs=0.05)
    assert max(abs(value) for pair, value in products.items() if pair != (1, 3) and 2 not in pair) < 0.05


def test_component_shares_add_up_to_the_events() -> None:
    profile, training = make_profile(2)
    shares = RNG.dirichlet(np.ones(3), len(training)).astype(np.float32)
    sums = sums_of(training, profile, shares)
    assert sums.occupancy / 65536 == pytest.approx(shares.sum(axis=0), abs=0.2)


def test_single_component_has_no_occupancy() -> None:
    profile, training = make_profile(2)
    assert sums_of(training, profile, np.ones((len(training), 1), np.float32)).occupancy is None


def test_distant_event_is_clipped() -> None:
    profile, _ = make_profile(2)
    far = sums_of(np.array([[1e30, -1e30]], np.float32), profile)
    assert far.pairs.tolist() == [-(64**2)]
    assert far.ranks.tolist() == [63, -63, 63]


def test_constant_feature_has_zero_products() -> None:
    training = np.stack([RNG.standard_normal(500), np.full(500, 4.0)], axis=1).astype(np.float32)
    profile = TrainingProfile(features=build_feature_profile(training), energy_edges=quantile_edges(training[:, 0]))
    assert sums_of(training + 1, profile).pairs.tolist() == [0]


@pytest.mark.parametrize(
    ("d", "shape"),
    [
        (1, (2, 0, 0)),
        (MAX_PAIRED_FEATURES, (33, 0, 496)),
        (MAX_PAIRED_FEATURES + 1, (34, 0, 0)),
        (MAX_FEATURES + 1, (1, 0, 0)),
    ],
)
def test_number_of_tested_features_and_pairs_is_bounded(d: int, shape: tuple[int, int, int]) -> None:
    profile, training = make_profile(d)
    assert sums_of(training[:50], profile).shape == shape


def test_pairs_are_in_row_order() -> None:
    assert [feature_pair(index, 4) for index in range(6)] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


def test_sums_of_a_split_add_up_to_the_whole() -> None:
    profile, x = make_profile(6)
    shares = RNG.dirichlet(np.ones(3), len(x)).astype(np.float32)
    codes = code_events(profile, x, np.ascontiguousarray(x[:, 0]), shares)
    some = RNG.random(len(x)) < 0.3
    sums = add_drift_sums(codes.sum_rows(some), codes.sum_rows(np.flatnonzero(~some)))
    whole = codes.sum_rows(slice(None))
    assert join_sums(sums).tolist() == join_sums(whole).tolist()
    assert join_sums(add_drift_sums(codes.sum_rows(~some & some), whole)).tolist() == join_sums(whole).tolist()


@pytest.mark.parametrize(("d", "n_windows"), [(2, 1), (6, 40), (6, 2_500), (40, 40)])
def test_sums_of_many_windows_are_the_sums_of_each_window_alone(d: int, n_windows: int) -> None:
    profile, x = make_profile(d)
    shares = RNG.dirichlet(np.ones(3), len(x)).astype(np.float32)
    codes = code_events(profile, x, np.ascontiguousarray(x[:, 0]), shares)
    rows = RNG.permutation(len(x))[: len(x) * 2 // 3]
    windows = np.sort((RNG.random(len(rows)) ** 3 * n_windows).astype(np.int64))  # of very different sizes, some empty
    sums = codes.sum_windows(rows, windows, n_windows)
    sections = pack_window_drift_sums(sums)
    for index in range(n_windows):
        own = rows[windows == index]
        ranks = codes.ranks[own].astype(np.int64)
        assert sums.ranks[index].tolist() == ranks.sum(axis=0).tolist()
        assert sums.squares[index].tolist() == (ranks**2).sum(axis=0).tolist()
        assert codes.shares is not None
        assert sums.occupancy is not None
        assert sums.occupancy[index].tolist() == codes.shares[own].astype(np.int64).sum(axis=0).tolist()
        if codes.scores is not None:
            scores = codes.scores[own].astype(np.int64)
            assert sums.pairs is not None
            assert sums.pairs[index].tolist() == (scores.T @ scores)[np.triu_indices(d, 1)].tolist()
        assert sections[index] == pack_drift_sums(sums.window(index))


def test_codes_of_an_event_do_not_depend_on_other_events() -> None:
    profile, x = make_profile(40)
    energies = np.ascontiguousarray(x[:, 0])
    whole = code_events(profile, x, energies, None)
    alone = [code_events(profile, x[i : i + 1], energies[i : i + 1], None).ranks[0].tolist() for i in range(20)]
    assert whole.ranks[:20].tolist() == alone


def test_shape_of_the_sums_matches_the_number_of_features() -> None:
    for d in (1, 2, MAX_PAIRED_FEATURES, MAX_PAIRED_FEATURES + 1, MAX_FEATURES + 1):
        profile, x = make_profile(d)
        shape = sums_of(x[:9], profile).shape
        assert is_valid_shape(shape, d)
        assert not is_valid_shape(shape, d + 1) or d > MAX_FEATURES


def test_adding_sums_of_different_models_is_rejected() -> None:
    (one, x), (other, y) = make_profile(2), make_profile(3)
    with pytest.raises(ValueError, match="different shapes"):
        add_drift_sums(sums_of(x, one), sums_of(y, other))


@pytest.mark.parametrize("n", [1, 300, 5_000])
def test_sums_survive_their_compact_encoding(n: int) -> None:
    profile, training = make_profile(30)
    before = sums_of(training[:n], profile, RNG.dirichlet(np.ones(3), n).astype(np.float32))
    section = pack_drift_sums(before)
    after = unpack_drift_sums(section)
    for name in ("ranks", "squares", "occupancy", "pairs"):
        assert getattr(after, name).tolist() == getattr(before, name).tolist()
    assert len(section.pairs or b"") <= 1 + 4 * 435
    assert after.is_consistent(n)
    assert not after.is_consistent(0)


@pytest.mark.parametrize("raw", [b"", b"\x03abc", b"\x04abc"])
def test_invalid_bytes_of_sums_are_rejected(raw: bytes) -> None:
    profile, training = make_profile(2)
    section = pack_drift_sums(sums_of(training[:5], profile))
    section.ranks = raw
    with pytest.raises(ValueError, match="width"):
        unpack_drift_sums(section)
