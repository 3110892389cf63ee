"""Tests of the E and M steps, the expected gain and the shrinkage."""

import numpy as np
import pytest
import torch

from monitor.detectors.fit import em
from monitor.detectors.fit.em import CholeskyFactors, Mixture, Moments

ROWS = torch.from_numpy(np.random.default_rng(3).normal(size=(400, 3)) + 4.0 * (np.arange(400) % 2)[:, None])


def initial_mixture() -> Mixture:
    means = torch.tensor([[0.5, -0.5, 0.0], [3.0, 3.5, 4.0]], dtype=torch.float64)
    covariances = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1) * torch.tensor([1.5, 2.5]).double().view(2, 1, 1)
    return Mixture(weights=torch.tensor([0.3, 0.7], dtype=torch.float64), means=means, covariances=covariances)


def run_e_step(mixture: Mixture) -> tuple[CholeskyFactors, Moments, torch.Tensor]:
    factors = em.factorise(mixture)
    pass_factors = em.cast_factors(factors, torch.float64)
    total = Moments.zeros(2, 3)
    em.accumulate_moments(ROWS, pass_factors, None, total)
    return factors, total, em.whiten(ROWS, pass_factors)[1]


def mean_log_likelihood(moments: Moments) -> float:
    return float(moments.log_likelihood[0] / moments.log_likelihood[1])


def test_expected_gain_equals_the_change_of_q_computed_row_by_row():
    before, moments, joint_before = run_e_step(initial_mixture())
    mixture = em.maximise_likelihood(initial_mixture(), before, moments)
    after, _, joint_after = run_e_step(mixture)
    responsibilities = joint_before.softmax(0)
    row_by_row = float((responsibilities * (joint_after - joint_before)).sum() / len(ROWS))
    assert em.expected_gain(before, moments, mixture, after) == pytest.approx(row_by_row, abs=1e-7)


def test_log_likelihood_rises_by_at_least_the_expected_gain():
    mixture = initial_mixture()
    for _ in range(6):
        before, moments, _ = run_e_step(mixture)
        mixture = em.maximise_likelihood(mixture, before, moments)
        after, following, _ = run_e_step(mixture)
        gain = em.expected_gain(before, moments, mixture, after)
        assert gain > -1e-9
        assert mean_log_likelihood(following) - mean_log_likelihood(moments) >= gain - 1e-7


def test_unchanged_mixture_has_zero_expected_gain():
    factors, moments, _ = run_e_step(initial_mixture())
    assert em.expected_gain(factors, moments, initial_mixture(), factors) == pytest.approx(0.0, abs=1e-12)


def test_pooled_rows_move_covariances_to_their_average_and_preserve_it():
    mixture = Mixture(
        weights=torch.tensor([0.5, 0.5], dtype=torch.float64),
        means=initial_mixture().means,
        covariances=torch.eye(3, dtype=torch.float64).repeat(2, 1, 1) * torch.tensor([1.0, 3.0]).double().view(2, 1, 1),
    )
    shrinkage = em.Shrinkage(
        prior_rows=0.0, pooled_rows=10.0, target=torch.eye(3).double(), ridge=torch.zeros(3).double()
    )
    shrunk = em.shrink_covariances(mixture, torch.tensor([10.0, 10.0]).double(), "full", shrinkage).covariances
    assert shrunk[:, 0, 0].tolist() == pytest.approx([1.5, 2.5], rel=1e-6)


def test_m_step_is_positive_definite_for_variances_below_rounding_error():
    moments = Moments(
        mass=torch.full((1,), 100.0).double(),
        first=torch.full((1, 2), 100.0).double(),
        second=torch.full((1, 2, 2), 100.0 - 1e-5).double(),
        log_likelihood=torch.tensor([0.0, 100.0]).double(),
    )
    mixture = Mixture(
        weights=torch.ones(1).double(), means=torch.zeros(1, 2).double(), covariances=torch.eye(2).double()[None]
    )
    updated = em.maximise_likelihood(mixture, em.factorise(mixture), moments)
    assert torch.linalg.eigvalsh(updated.covariances).min() > 0
