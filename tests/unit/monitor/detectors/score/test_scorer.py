"""The scoring path: one fixed shape, whatever comes."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from monitor.detectors import ClassConditionalGaussian, GaussianMixture
from monitor.detectors.score.factors import GaussianComponents
from monitor.detectors.score.scorer import make_scorer


def random_components(d, k, seed=0, form="full"):
    rng = np.random.default_rng(seed)
    weights, means = rng.dirichlet(np.full(k, 3.0)), rng.normal(size=(k, d)) * 2
    if form == "diag":
        return GaussianComponents(weights=weights, means=means, inverse=1 / rng.uniform(0.5, 2, (k, d)))
    root = rng.normal(size=(1 if form == "tied" else k, d, d))
    covariances = root @ root.swapaxes(1, 2) / d + 0.1 * np.eye(d)
    return GaussianComponents(weights=weights, means=means, inverse=np.linalg.inv(np.linalg.cholesky(covariances)))


SHAPES = [(1, 1), (1, 5), (3, 1), (8, 4), (18, 8), (32, 8), (33, 3), (64, 2), (118, 4), (300, 2)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("d", "k"), SHAPES)
def test_an_energy_is_the_same_to_the_bit_in_any_batch_and_place(d, k, dtype):
    scorer = make_scorer(random_components(d, k), dtype)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1500, d)).astype(dtype)
    whole = scorer.energies(x)
    for size in (1, 2, 7, 16, 63, 257, 1024):
        at = int(rng.integers(0, 1500 - size))
        assert np.array_equal(scorer.energies(x[at : at + size]), whole[at : at + size])
        some = rng.permutation(1500)[:size]
        assert np.array_equal(scorer.energies(x[some]), whole[some])


@pytest.mark.parametrize("form", ["tied", "diag"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shared_and_diagonal_factors_keep_the_bits_too(form, dtype):
    scorer = make_scorer(random_components(20, 5, form=form), dtype)
    x = np.random.default_rng(1).normal(size=(1500, 20)).astype(dtype)
    whole = scorer.energies(x)
    assert np.array_equal(np.concatenate([scorer.energies(part) for part in np.array_split(x, 41)]), whole)


@pytest.fixture
def torch_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_threads_that_share_the_chunks_give_the_bits_of_one(torch_threads):
    x = np.random.default_rng(1).normal(size=(3000, 64)).astype(np.float32)
    found = []
    for threads in (1, 2, 4):
        torch_threads(threads)
        shares = np.empty((3000, 16), np.float32)
        found.append((make_scorer(random_components(64, 16), np.float32).energies(x, shares), shares))
    assert all(np.array_equal(found[0][0], energies) and np.array_equal(found[0][1], s) for energies, s in found)


def test_two_threads_score_two_chunks_at_a_time(torch_threads):
    both = threading.Barrier(2)

    def kernel(part, out, shares):
        both.wait(timeout=60)
        out[:] = 1.0

    scorer = replace(make_scorer(random_components(64, 16), np.float32), make_kernel=lambda: kernel, spare_kernels=[])
    torch_threads(2)
    assert (scorer.energies(np.zeros((2 * scorer.lanes, 64), np.float32)) == 1.0).all()


def test_what_a_helping_thread_meets_is_raised(torch_threads):
    def kernel(part, out, shares):
        raise MemoryError

    scorer = replace(make_scorer(random_components(64, 16), np.float32), make_kernel=lambda: kernel, spare_kernels=[])
    torch_threads(2)
    with pytest.raises(MemoryError):
        scorer.energies(np.zeros((2 * scorer.lanes, 64), np.float32))


@pytest.mark.parametrize(("d", "k"), [(8, 4), (64, 4), (128, 16), (300, 2)])
def test_an_energy_is_the_same_to_the_bit_for_any_number_of_threads(d, k):
    scorer = make_scorer(random_components(d, k), np.float32)
    x = np.random.default_rng(1).normal(size=(700, d)).astype(np.float32)
    energies = []
    for threads in (1, 2, 3, 4):
        with threadpool_limits(threads):
            few = np.concatenate([scorer.energies(x[at : at + 7]) for at in range(0, 700, 7)])
            energies += [scorer.energies(x), few]
    assert all(np.array_equal(energies[0], other) for other in energies[1:])


def test_two_scorers_of_one_mixture_agree_to_the_bit():
    x = np.random.default_rng(1).normal(size=(100, 18)).astype(np.float32)
    assert np.array_equal(*(make_scorer(random_components(18, 4), np.float32).energies(x) for _ in range(2)))


def test_single_precision_gives_way_to_double_where_the_condition_number_asks_for_it():
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    narrow = (turn * np.logspace(0, -8, 8)) @ turn.T
    inverse = np.linalg.inv(np.linalg.cholesky(narrow))[None]
    mixture = GaussianComponents(weights=np.ones(1), means=np.zeros((1, 8)), inverse=inverse)
    assert make_scorer(mixture, np.float32).dtype == np.float64
    assert make_scorer(random_components(8, 4), np.float32).dtype == np.float32


def test_many_calls_keep_one_set_of_buffers():
    scorer = make_scorer(random_components(8, 4), np.float32)
    for size in (1, 100, 5000):
        scorer.energies(np.zeros((size, 8), dtype=np.float32))
    assert len(scorer.spare_kernels) == 1
    assert len(scorer.spare_small_kernels) <= 1


def test_a_row_with_nan_gives_nan_and_leaves_its_neighbours_alone():
    scorer = make_scorer(random_components(8, 4), np.float32)
    x = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)
    clean = scorer.energies(x)
    x[10, 3] = np.nan
    energies = scorer.energies(x)
    assert np.isnan(energies[10])
    assert np.array_equal(np.delete(energies, 10), np.delete(clean, 10))


def test_rows_that_may_not_be_written_to_are_scored():
    x = np.zeros((4, 8), dtype=np.float32)
    x.flags.writeable = False
    assert np.isfinite(make_scorer(random_components(8, 4), np.float32).energies(x)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("d", "k"), SHAPES)
def test_shares_add_up_to_one_and_are_the_same_to_the_bit_in_any_batch(d, k, dtype):
    scorer = make_scorer(random_components(d, k), dtype)
    x = np.random.default_rng(1).normal(size=(1500, d)).astype(dtype)
    whole = np.empty((1500, k), dtype)
    energies = scorer.energies(x, whole)
    assert np.array_equal(energies, scorer.energies(x))
    assert whole.sum(axis=1) == pytest.approx(1, abs=1e-5)
    for size in (1, 7, 16, 257):
        part = np.empty((size, k), dtype)
        scorer.energies(x[40 : 40 + size], part)
        assert np.array_equal(part, whole[40 : 40 + size])


def test_shares_are_the_components_posterior():
    mixture = random_components(3, 4)
    x = np.random.default_rng(2).normal(size=(200, 3))
    shares = np.empty((200, 4))
    make_scorer(mixture, np.float64).energies(x, shares)
    white = np.einsum("kij,nkj->nki", mixture.inverse, x[:, None] - mixture.means)
    joint = mixture.log_constant - 0.5 * np.square(white).sum(2)
    expected = np.exp(joint - joint.max(1, keepdims=True))
    assert shares == pytest.approx(expected / expected.sum(1, keepdims=True), abs=1e-9)


def test_a_row_that_is_too_far_for_single_precision_has_the_shares_of_double():
    scorer = make_scorer(random_components(2, 3), np.float32)
    shares = np.full((2, 3), np.nan, np.float32)
    scorer.energies(np.array([[1e25, 0], [0.0, 0.0]], np.float32), shares)
    assert shares.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("kind", [GaussianMixture, ClassConditionalGaussian])
def test_a_process_that_shortens_its_products_gets_the_same_energies(kind):
    x = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    detector = kind().fit(x, *([np.arange(300) % 2] if kind is ClassConditionalGaussian else []))
    energies = detector.energy(x)
    torch.set_float32_matmul_precision("medium")
    try:
        assert np.array_equal(detector.energy(x), energies)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
