"""Tests of invalid arguments: each raises an error that names the argument before the fit."""

import numpy as np
import pandas as pd
import pytest
import torch

from config.errors import ModelError
from monitor.detectors import AEGMM, VAEGMM, ClassConditionalGaussian, GaussianMixture, gmm_params, load_detector

X = np.random.default_rng(0).normal(size=(40, 3))
LABELS = np.arange(40) % 2

SETTINGS = [
    {"tol": "a"},
    {"max_iter": 2.5},
    {"n_init": None},
    {"reg_covar": np.inf},
    {"shrinkage": -1},
    {"contamination": "a"},
    {"random_state": -1},
    {"random_state": 1.5},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_error_names_an_invalid_mixture_setting(settings):
    with pytest.raises(ModelError, match=next(iter(settings))):
        GaussianMixture(**settings).fit(X)


ARGUMENTS = [
    {"threshold": "a"},
    {"encoder_net": "x"},
    {"recon_features": 5},
    {"latent_dim": 0},
    {"n_gmm": 2.0},
]


@pytest.mark.parametrize("kind", [VAEGMM, AEGMM])
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_error_names_an_invalid_network_argument(kind, arguments):
    with pytest.raises(ModelError, match=next(iter(arguments))):
        kind(**arguments)


FITS = [
    {"learning_rate": -1},
    {"w_energy": "x"},
    {"reference_fraction": "a"},
    {"reference_fraction": 1.0},
    {"optimizer": 5},
    {"optimizer": len},
    {"cov_elbo": 5},
    {"cov_elbo": {"sim": "a"}},
    {"cov_elbo": {"sim": np.nan}},
    {"cov_elbo": {"cov_diag": [1.0, 2.0]}},
    {"cov_elbo": {"cov_full": -np.eye(3)}},
    {"cov_elbo": {"cov_full": np.arange(9.0).reshape(3, 3)}},
]


@pytest.mark.parametrize("arguments", FITS, ids=str)
def test_error_names_an_invalid_training_argument(arguments):
    with pytest.raises(ModelError, match=next(iter(arguments))):
        VAEGMM().fit(X, **{"epochs": 1, "verbose": False, **arguments})


@pytest.mark.parametrize("make", [GaussianMixture, ClassConditionalGaussian, VAEGMM, AEGMM])
def test_error_names_a_missing_device(make):
    with pytest.raises(ModelError, match=r'device .nope. cannot be used here .* try device="cpu"'):
        make(device="nope").fit(X, *([LABELS] if make is ClassConditionalGaussian else []))


BAD_LABELS = {
    "text": (["a", "b"] * 20, "whole numbers"),
    "fractions": (LABELS + 0.5, "whole numbers"),
    "NaN": (np.where(LABELS, np.nan, 0), "whole numbers"),
    "infinite": (np.where(LABELS, np.inf, 0), "at most"),
    "beyond int64": (np.full(40, 2**63 + 5, dtype=np.uint64), "at most"),
    "missing": (pd.Series([pd.NA, *LABELS[1:]], dtype="Int64"), "whole numbers"),
    "a column": (LABELS[:, None], "one whole number per row"),
    "all unknown": (np.full(40, -1), "no known sample"),
}


@pytest.mark.parametrize(("labels", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_invalid_labels_raise_an_error(labels, message):
    with pytest.raises(ModelError, match=message):
        ClassConditionalGaussian().fit(X, labels)


@pytest.mark.parametrize("labels", [LABELS.astype(object), LABELS * 1.0, pd.Series(LABELS), torch.from_numpy(LABELS)])
def test_whole_numbers_of_every_type_are_valid_labels(labels):
    assert ClassConditionalGaussian().fit(X, labels).classes_.tolist() == [0, 1]


def test_feature_network_gets_events_of_its_own_precision():
    assert ClassConditionalGaussian(torch.nn.Linear(3, 2)).fit(X, LABELS).n_features == 2
    with pytest.raises(ModelError, match="the feature model does not accept the events"):
        ClassConditionalGaussian(torch.nn.Linear(5, 2)).fit(X, LABELS)


@pytest.mark.parametrize("model", [lambda batch: batch @ batch, torch.nn.Linear(5, 2)])
def test_feature_model_that_rejects_the_events_raises_an_error(model):
    with pytest.raises(ModelError, match="feature model does not accept"):
        ClassConditionalGaussian(model).fit([(X, LABELS)])


def test_feature_model_must_be_a_function():
    with pytest.raises(ModelError, match="model must be a function"):
        ClassConditionalGaussian("resnet")


def test_error_names_failing_recon_features():
    with pytest.raises(ModelError, match=r"recon_features does not accept events .* of shape \(3,\)"):
        AEGMM(recon_features=lambda x, made: x @ made).fit(X, epochs=1, verbose=False)


def test_error_names_a_setting_that_cannot_be_stored():
    with pytest.raises(ModelError, match=r"with .*float32.* cannot be stored"):
        AEGMM(data_type=np.float32).fit(X, epochs=1, verbose=False).to_bytes()


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "message"),
    [
        (["a"], [[0.0]], [[[1.0]]], "arrays of numbers"),
        ([1.0], [[0.0, 0.0]], [[[1.0, 5.0], [0.0, 1.0]]], "symmetric"),
        ([1.0], [[0.0, 0.0]], [[[np.nan, 0.0], [0.0, 1.0]]], "finite"),
    ],
)
def test_invalid_mixture_parameters_raise_an_error(weights, means, covariances, message):
    with pytest.raises(ModelError, match=message):
        GaussianMixture.from_parameters(weights, means, covariances)


def test_sample_weights_with_overflowing_sum_raise_an_error():
    with pytest.raises(ModelError, match="divide all weights by the largest"):
        GaussianMixture().fit(X, sample_weight=np.full(40, 1e308))


@pytest.mark.parametrize("source", [5, None, [1]])
def test_source_must_be_a_path_or_bytes(source):
    with pytest.raises(ModelError, match="from a path or from bytes"):
        load_detector(source)


@pytest.mark.parametrize("invalid", [None, "text", X + 0j])
def test_gmm_params_rejects_other_values_than_real_numbers(invalid):
    with pytest.raises(ModelError, match="gmm_params and gmm_energy take"):
        gmm_params(invalid, np.ones((40, 2)))
