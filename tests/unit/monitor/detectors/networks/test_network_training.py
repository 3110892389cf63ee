"""Loss terms against their formulas, and training with non-finite steps."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from config.errors import ModelError
from monitor.detectors.networks.density_nets import DensityNets, cosine_and_distance, dense_layers
from monitor.detectors.networks.network_training import (
    LossWeights,
    Objective,
    TrainingOptions,
    gaussian_nll,
    kl_divergence,
    mean_squared_error,
    train_networks,
)

OBJECTIVE = Objective(recon=mean_squared_error, weights=LossWeights(recon=1.0, energy=0.1, cov_diag=0.005, beta=0.0))


def training_options(**changes):
    settings = {"epochs": 3, "batch_size": 32, "learning_rate": 1e-3, "optimizer": None, "seed": 0}
    return TrainingOptions(**{**settings, "verbose": False, **changes})


def networks(density=None):
    torch.manual_seed(0)
    return DensityNets(
        encoder=dense_layers((5, 4, 2), "tanh", last=False),
        decoder=dense_layers((2, 4, 5), "tanh", last=False),
        density=density or dense_layers((4, 6, 2), "tanh", last=False),
        recon_features=cosine_and_distance,
        heads=None,
    )


@pytest.fixture
def rows():
    return torch.randn(200, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return rng.normal(size=(50, 3)), rng.normal(size=(50, 3))


@pytest.mark.parametrize("kind", ["sim", "cov_diag", "cov_full"])
def test_reconstruction_loss_is_the_mean_negative_gaussian_log_likelihood(kind, pair):
    x, r = pair
    training = np.random.default_rng(1).normal(size=(400, 3)) @ np.array([[1, 0.5, 0], [0, 2, 0], [0, 0.3, 1.0]])
    covariance = {
        "sim": 0.3**2 * np.eye(3),
        "cov_diag": np.diag(training.var(axis=0)),
        "cov_full": np.cov(training.T, bias=True) + 1e-6 * np.eye(3),
    }[kind]
    expected = -np.mean([multivariate_normal(b, covariance).logpdf(a) for a, b in zip(x, r, strict=True)])
    loss = gaussian_nll({kind: 0.3 if kind == "sim" else None}, torch.tensor(training))
    assert float(loss(torch.tensor(x), torch.tensor(r))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("given", [{}, {"full": None}, {"sim": 1.0, "cov_diag": None}])
def test_unknown_key_of_cov_elbo_is_an_error(given):
    with pytest.raises(ModelError, match="one key"):
        gaussian_nll(given, torch.zeros(3, 2))


@pytest.mark.parametrize("given", [{"sim": 0.0}, {"cov_diag": [-1.0, 1.0]}, {"cov_full": np.eye(3)}])
def test_invalid_value_of_cov_elbo_is_an_error(given):
    with pytest.raises(ModelError, match="cov_elbo"):
        gaussian_nll(given, torch.zeros(3, 2))


def test_kl_divergence_is_the_mean_over_samples_and_dimensions():
    mean, log_variance = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 0.0]])
    by_dimension = [0.5 * (np.exp(v) + m * m - 1 - v) for m, v in ((1.0, 0.5), (-2.0, 0.0))]
    assert float(kl_divergence(mean, log_variance)) == pytest.approx(np.mean(by_dimension))


def test_reconstruction_features_are_negative_cosine_and_relative_distance():
    x = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    r = torch.tensor([[6.0, 8.0], [0.0, 2.0], [1.0, 0.0]])
    expected = torch.tensor([[-1.0, 1.0], [0.0, 5.0**0.5], [0.0, 100.0]])
    torch.testing.assert_close(cosine_and_distance(x, r), expected)


def test_perfect_reconstruction_has_finite_gradients():
    x = torch.ones(3, 2, requires_grad=True)
    cosine_and_distance(x, x.detach().clone()).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.slow
def test_parameters_of_the_best_epoch_are_restored(rows):
    nets = networks()
    report = train_networks(nets, rows, OBJECTIVE, training_options(epochs=12, learning_rate=0.3))
    losses = [epoch["loss"] for epoch in report.epochs]
    assert report.best_epoch == 1 + int(np.argmin(losses))
    with torch.no_grad():
        assert float(OBJECTIVE.loss_terms(nets(rows), rows)["loss"]) == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.slow
def test_dead_component_does_not_stop_the_training(rows):
    density = dense_layers((4, 2), "tanh", last=False)
    with torch.no_grad():
        density[0].bias.copy_(torch.tensor([200.0, -200.0]))  # exp(-400): responsibility 0 in any precision
    report = train_networks(networks(density), rows, OBJECTIVE, training_options())
    assert report.best_epoch >= 1
    assert [epoch["dead"] for epoch in report.epochs] == [1.0, 1.0, 1.0]
    assert report.stopped is None


class FailsAfter(torch.nn.Module):
    """A density network that returns NaN from its nth training batch on."""

    def __init__(self, batches):
        super().__init__()
        self.inner = torch.nn.Linear(4, 2)
        self.left = batches

    def forward(self, z):
        if self.training:
            self.left -= 1
        return self.inner(z) * (1.0 if self.left >= 0 else torch.nan)


@pytest.mark.slow
def test_training_that_fails_keeps_its_best_epoch_and_reports_it(rows):
    report = train_networks(networks(FailsAfter(14)), rows, OBJECTIVE, training_options(epochs=6))
    assert report.best_epoch in (1, 2)
    assert "epoch 3" in report.stopped
    assert report.skipped_steps == 4


def test_training_without_any_usable_step_is_an_error(rows):
    with pytest.raises(ModelError, match="no usable step"):
        train_networks(networks(FailsAfter(0)), rows, OBJECTIVE, training_options())


@pytest.mark.slow
def test_custom_optimizer_is_used(rows):
    made = []

    def factory(parameters):
        made.append(torch.optim.SGD(parameters, lr=0.01))
        return made[0]

    train_networks(networks(), rows, OBJECTIVE, training_options(optimizer=factory))
    assert len(made) == 1


@pytest.mark.slow
def test_verbose_shows_a_progress_bar(rows, capsys):
    train_networks(networks(), rows, OBJECTIVE, training_options(verbose=True))
    assert "3/3" in capsys.readouterr().err
