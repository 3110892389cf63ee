"""Scorer of a mixture: bits, threads, precision and responsibilities."""

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


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("d", "k"), SHAPES)
def test_energy_is_identical_to_the_bit_in_any_batch_and_position(d, k, dtype):
    scorer = make_scorer(random_components(d, k), dtype)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1500, d)).astype(dtype)
    all_energies = scorer.energies(x)
    for size in (1, 2, 7, 16, 63, 257, 1024):
        at = int(rng.integers(0, 1500 - size))
        assert np.array_equal(scorer.energies(x[at : at + size]), all_energies[at : at + size])
        selection = rng.permutation(1500)[:size]
        assert np.array_equal(scorer.energies(x[selection]), all_energies[selection])


@pytest.mark.parametrize("form", ["tied", "diag"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_energies_of_tied_and_diagonal_mixtures_are_identical_in_any_batch(form, dtype):
    scorer = make_scorer(random_components(20, 5, form=form), dtype)
    x = np.random.default_rng(1).normal(size=(1500, 20)).astype(dtype)
    all_energies = scorer.energies(x)
    assert np.array_equal(np.concatenate([scorer.energies(part) for part in np.array_split(x, 41)]), all_energies)


@pytest.fixture
def set_torch_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_parallel_threads_give_the_same_bits_as_one_thread(set_torch_threads):
    x = np.random.default_rng(1).normal(size=(3000, 64)).astype(np.float32)
    results = []
    for threads in (1, 2, 4):
        set_torch_threads(threads)
        responsibilities = np.empty((3000, 16), np.float32)
        results.append(
            (make_scorer(random_components(64, 16), np.float32).energies(x, responsibilities), responsibilities)
        )
    assert all(np.array_equal(results[0][0], energies) and np.array_equal(results[0][1], s) for energies, s in results)


def test_two_threads_score_two_chunks_in_parallel(set_torch_threads):
    barrier = threading.Barrier(2)

    def kernel(part, out, responsibilities):
        barrier.wait(timeout=60)
        out[:] = 1.0

    scorer = replace(make_scorer(random_components(64, 16), np.float32), make_kernel=lambda: kernel, spare_kernels=[])
    set_torch_threads(2)
    assert (scorer.energies(np.zeros((2 * scorer.chunk_rows, 64), np.float32)) == 1.0).all()


def test_exception_in_an_additional_thread_is_raised(set_torch_threads):
    def kernel(part, out, responsibilities):
        raise MemoryError

    scorer = replace(make_scorer(random_components(64, 16), np.float32), make_kernel=lambda: kernel, spare_kernels=[])
    set_torch_threads(2)
    with pytest.raises(MemoryError):
        scorer.energies(np.zeros((2 * scorer.chunk_rows, 64), np.float32))


@pytest.mark.slow
@pytest.mark.parametrize(("d", "k"), [(8, 4), (64, 4), (128, 16), (300, 2)])
def test_energy_is_identical_to_the_bit_for_any_number_of_threads(d, k):
    scorer = make_scorer(random_components(d, k), np.float32)
    x = np.random.default_rng(1).normal(size=(700, d)).astype(np.float32)
    energies = []
    for threads in (1, 2, 3, 4):
        with threadpool_limits(threads):
            in_small_batches = np.concatenate([scorer.energies(x[at : at + 7]) for at in range(0, 700, 7)])
            energies += [scorer.energies(x), in_small_batches]
    assert all(np.array_equal(energies[0], other) for other in energies[1:])


def test_two_scorers_of_one_mixture_agree_to_the_bit():
    x = np.random.default_rng(1).normal(size=(100, 18)).astype(np.float32)
    assert np.array_equal(*(make_scorer(random_components(18, 4), np.float32).energies(x) for _ in range(2)))


def test_ill_conditioned_mixture_is_scored_in_double_precision():
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    ill_conditioned = (rotation * np.logspace(0, -8, 8)) @ rotation.T
    inverse = np.linalg.inv(np.linalg.cholesky(ill_conditioned))[None]
    mixture = GaussianComponents(weights=np.ones(1), means=np.zeros((1, 8)), inverse=inverse)
    assert make_scorer(mixture, np.float32).dtype == np.float64
    assert make_scorer(random_components(8, 4), np.float32).dtype == np.float32


def test_repeated_calls_reuse_one_set_of_buffers():
    scorer = make_scorer(random_components(8, 4), np.float32)
    for size in (1, 100, 5000):
        scorer.energies(np.zeros((size, 8), dtype=np.float32))
    assert len(scorer.spare_kernels) == 1
    assert len(scorer.spare_small_kernels) <= 1


def test_row_with_nan_gives_nan_and_does_not_affect_other_rows():
    scorer = make_scorer(random_components(8, 4), np.float32)
    x = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)
    clean = scorer.energies(x)
    x[10, 3] = np.nan
    energies = scorer.energies(x)
    assert np.isnan(energies[10])
    assert np.array_equal(np.delete(energies, 10), np.delete(clean, 10))


def test_read_only_rows_are_scored():
    x = np.zeros((4, 8), dtype=np.float32)
    x.flags.writeable = False
    assert np.isfinite(make_scorer(random_components(8, 4), np.float32).energies(x)).all()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("d", "k"), SHAPES)
def test_responsibilities_sum_to_one_and_are_identical_in_any_batch(d, k, dtype):
    scorer = make_scorer(random_components(d, k), dtype)
    x = np.random.default_rng(1).normal(size=(1500, d)).astype(dtype)
    all_energies = np.empty((1500, k), dtype)
    energies = scorer.energies(x, all_energies)
    assert np.array_equal(energies, scorer.energies(x))
    assert all_energies.sum(axis=1) == pytest.approx(1, abs=1e-5)
    for size in (1, 7, 16, 257):
        part = np.empty((size, k), dtype)
        scorer.energies(x[40 : 40 + size], part)
        assert np.array_equal(part, all_energies[40 : 40 + size])


def test_responsibilities_are_the_posterior_of_the_components():
    mixture = random_components(3, 4)
    x = np.random.default_rng(2).normal(size=(200, 3))
    responsibilities = np.empty((200, 4))
    make_scorer(mixture, np.float64).energies(x, responsibilities)
    whitened = np.einsum("kij,nkj->nki", mixture.inverse, x[:, None] - mixture.means)
    joint = mixture.log_constant - 0.5 * np.square(whitened).sum(2)
    expected = np.exp(joint - joint.max(1, keepdims=True))
    assert responsibilities == pytest.approx(expected / expected.sum(1, keepdims=True), abs=1e-9)


def test_row_too_far_for_single_precision_gets_responsibilities_in_double():
    scorer = make_scorer(random_components(2, 3), np.float32)
    responsibilities = np.full((2, 3), np.nan, np.float32)
    scorer.energies(np.array([[1e25, 0], [0.0, 0.0]], np.float32), responsibilities)
    assert responsibilities.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("kind", [GaussianMixture, ClassConditionalGaussian])
def test_reduced_matmul_precision_does_not_change_energies(kind):
    x = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    detector = kind().fit(x, *([np.arange(300) % 2] if kind is ClassConditionalGaussian else []))
    energies = detector.energy(x)
    torch.set_float32_matmul_precision("medium")
    try:
        assert np.array_equal(detector.energy(x), energies)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
