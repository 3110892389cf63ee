"""Tests of GaussianMixture: fit, energies, files and the scikit-learn interface."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.mixture import BayesianGaussianMixture
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.utils.estimator_checks import check_estimator

from config.errors import ModelError
from monitor.detectors import GaussianMixture, load_detector

SIX = np.array([[2, 1], [2, 2], [2, 3], [7, 5], [8, 5], [9, 5]], dtype=float)


def make_blobs(n=600, k=3, d=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    return rng.normal(size=(n, d)) + 8.0 * labels[:, None]


def test_six_points_give_two_known_components():
    gm = GaussianMixture(2, random_state=0).fit(SIX)
    order = np.argsort(-gm.means_[:, 0])
    assert np.allclose(gm.means_[order], [[8, 5], [2, 2]], atol=1e-6)
    labels = gm.predict(SIX)
    assert len(set(labels[:3])) == len(set(labels[3:])) == 1
    assert labels[0] != labels[3]
    assert np.allclose(gm.score_samples(SIX), [3.83, 4.58, 3.83, 3.83, 4.58, 3.83], atol=0.01)


def test_known_components_are_recovered():
    x = make_blobs(n=6000)
    gm = GaussianMixture(3, random_state=0).fit(x)
    assert np.allclose(np.sort(gm.means_[:, 0]), [0, 8, 16], atol=0.15)
    assert np.allclose(gm.covariances_, np.eye(4), atol=0.12)


@pytest.mark.slow
def test_auto_finds_the_number_of_separate_groups():
    assert len(GaussianMixture("auto", random_state=0).fit(make_blobs(n=2000)).weights_) == 3


@pytest.mark.slow
def test_auto_takes_one_component_for_one_gaussian():
    x = np.random.default_rng(0).normal(size=(3000, 5))
    assert len(GaussianMixture("auto").fit(x).weights_) == 1


def test_same_seed_gives_a_bit_identical_model():
    x = make_blobs()
    energies = [GaussianMixture(3, random_state=5).fit(x).energy(x) for _ in range(2)]
    assert np.array_equal(*energies)


def test_energy_is_float32_for_float32_and_float64_for_float64():
    gm = GaussianMixture(2).fit(make_blobs())
    assert gm.energy(make_blobs().astype(np.float32)).dtype == np.float32
    assert gm.energy(make_blobs()).dtype == np.float64
    assert gm.energy(torch.from_numpy(make_blobs()).float()).dtype == np.float32


def test_log_likelihood_is_monotone():
    rng = np.random.default_rng(1)
    x = rng.standard_t(3, size=(3000, 4)) * np.array([1, 5, 0.1, 2])
    log_likelihoods = GaussianMixture(4, tol=0, max_iter=60, n_init=1, shrinkage=0).fit(x).report_.log_likelihood
    assert len(log_likelihoods) > 10
    assert np.diff(log_likelihoods).min() > -1e-5


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_one_component_equals_the_maximum_likelihood_gaussian(kind):
    x = np.random.default_rng(0).normal(size=(500, 3)) * [1, 2, 3]
    mixture = GaussianMixture(1, covariance_type=kind).fit(x)
    sklearn_mixture = SklearnMixture(1, covariance_type=kind).fit(x)
    assert np.allclose(mixture.means_, sklearn_mixture.means_)
    assert np.allclose(mixture.covariances_, sklearn_mixture.covariances_, rtol=1e-4, atol=1e-6)
    assert np.allclose(mixture.score_samples(x), sklearn_mixture.score_samples(x), atol=1e-4)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_conversion_to_scikit_learn_and_back_preserves_energies(kind):
    x = make_blobs()
    gm = GaussianMixture(3, covariance_type=kind).fit(x)
    sklearn_mixture = gm.to_sklearn()
    assert np.allclose(sklearn_mixture.score_samples(x), -gm.energy(x), rtol=1e-9)
    assert np.array_equal(sklearn_mixture.predict(x), gm.predict(x))
    loaded = GaussianMixture.from_sklearn(sklearn_mixture)
    assert np.allclose(loaded.energy(x), gm.energy(x), rtol=1e-9)


def test_conversion_from_scikit_learn_preserves_scores_and_names():
    frame = pd.DataFrame(make_blobs(), columns=list("abcd"))
    sklearn_mixture = SklearnMixture(3, random_state=0).fit(frame)
    gm = GaussianMixture.from_sklearn(sklearn_mixture)
    assert gm.feature_names_ == ("a", "b", "c", "d")
    assert np.allclose(gm.score_samples(frame), sklearn_mixture.score_samples(frame))


def test_unfitted_scikit_learn_mixture_raises_an_error():
    with pytest.raises(ModelError, match="has no weights_, means_, covariances_; call its fit"):
        GaussianMixture.from_sklearn(SklearnMixture())


def test_scikit_learn_mixture_with_parameters_set_by_hand_is_converted():
    mixture = SklearnMixture(2)
    mixture.weights_, mixture.means_ = [1, 3], [[0.0, 0.0], [4.0, 4.0]]
    mixture.covariances_ = np.array([np.eye(2), 2 * np.eye(2)])
    mixture.precisions_cholesky_ = np.array([np.eye(2), np.eye(2) / np.sqrt(2)])
    gm = GaussianMixture.from_sklearn(mixture)
    mixture.weights_, mixture.means_ = np.array([0.25, 0.75]), np.array(mixture.means_)
    x = make_blobs()[:, :2]
    assert np.allclose(gm.energy(x), -mixture.score_samples(x), rtol=1e-9)


@pytest.mark.parametrize("name", ["weights_", "means_", "covariances_"])
def test_scikit_learn_mixture_without_a_parameter_raises_an_error(name):
    mixture = SklearnMixture(2).fit(make_blobs())
    delattr(mixture, name)
    with pytest.raises(ModelError, match=f"has no {name}"):
        GaussianMixture.from_sklearn(mixture)


@pytest.mark.parametrize("other", [None, BayesianGaussianMixture(n_components=2).fit(make_blobs())])
def test_other_objects_than_a_scikit_learn_mixture_raise_an_error(other):
    with pytest.raises(ModelError, match=f"not {type(other).__name__}"):
        GaussianMixture.from_sklearn(other)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Estimator GaussianMixture does not inherit")
def test_estimator_checks_of_scikit_learn_pass():
    results = check_estimator(GaussianMixture(n_init=1), on_fail=None, on_skip=None)
    failed = [f"{r['check_name']}: {r['exception']}" for r in results if r["status"] == "failed"]
    assert not failed, "\n".join(failed)
    assert sum(r["status"] == "passed" for r in results) > 30
    # The array API check does not apply: arrays of other libraries are converted to numpy or rejected.
    assert [r["check_name"] for r in results if r["status"] == "skipped"] in ([], ["check_array_api_input"])


@pytest.mark.slow
def test_saved_model_has_bit_identical_energies(tmp_path):
    x = make_blobs().astype(np.float32)
    gm = GaussianMixture(3).fit(pd.DataFrame(x, columns=list("abcd"))).calibrate(x)
    gm.save(tmp_path / "m.safetensors")
    loaded = load_detector(tmp_path / "m.safetensors", kind="gaussian_mixture", n_features=4)
    assert np.array_equal(loaded.energy(x), gm.energy(x))
    assert loaded.feature_names_ == ("a", "b", "c", "d")
    assert np.array_equal(loaded.reference_energies_, gm.reference_energies_)
    assert loaded.report_ == gm.report_
    assert loaded.to_bytes() == gm.to_bytes()


def test_pickled_mixture_has_the_same_energies_after_scoring():
    x = make_blobs()
    gm = GaussianMixture(2).fit(x)
    energies = gm.energy(x)
    assert np.array_equal(pickle.loads(pickle.dumps(gm)).energy(x), energies)


@pytest.mark.parametrize(
    "settings", [{"n_components": np.int64(2), "tol": np.float32(0.01)}, {"random_state": np.random.RandomState(0)}]
)
def test_mixture_with_numpy_settings_is_stored(settings):
    x = make_blobs()
    gm = GaussianMixture(**settings).fit(x)
    assert np.array_equal(load_detector(gm.to_bytes()).energy(x), gm.energy(x))


def test_loading_with_another_expected_number_of_features_raises_an_error():
    with pytest.raises(ModelError, match="fitted on 4 features and the events have 5"):
        load_detector(GaussianMixture(2).fit(make_blobs()).to_bytes(), n_features=5)


def test_frame_with_other_names_raises_an_error():
    gm = GaussianMixture(2).fit(pd.DataFrame(make_blobs(), columns=list("abcd")))
    with pytest.raises(ModelError, match="missing: 'd'"):
        gm.energy(pd.DataFrame(make_blobs(), columns=list("abce")))


def test_error_for_nan_in_scored_events_names_the_row():
    gm = GaussianMixture(2).fit(make_blobs())
    x = make_blobs()
    x[17, 2] = np.nan
    with pytest.raises(ModelError, match="rows 17; columns 2"):
        gm.energy(x)


def test_events_with_overflowing_squares_have_finite_energies():
    gm = GaussianMixture(2).fit(make_blobs())
    x = np.full((1, 4), 1e30, dtype=np.float32)
    assert np.isfinite(gm.energy(x)).all()
    assert gm.energy(x)[0] >= gm.energy(x / 1e12)[0] > 1e30
    assert gm.energy(x.astype(np.float64))[0] > 1e58


def test_fewer_rows_than_components_raise_an_error():
    with pytest.raises(ModelError, match="minimum of 5"):
        GaussianMixture(5).fit(make_blobs(n=4))


@pytest.mark.parametrize(
    "settings",
    [
        {"n_components": 0},
        {"n_components": "many"},
        {"covariance_type": "round"},
        {"contamination": 0.5},
        {"reg_covar": 0},
        {"n_init": 0},
        {"max_iter": 0},
        {"tol": -1},
    ],
)
def test_invalid_settings_raise_an_error(settings):
    with pytest.raises(ModelError):
        GaussianMixture(**settings).fit(make_blobs())


def test_error_for_energy_before_fit_advises_a_fit():
    with pytest.raises(ModelError, match="call fit"):
        GaussianMixture().energy(make_blobs())


def test_sample_has_the_weights_and_the_mean_of_the_mixture():
    gm = GaussianMixture(3, random_state=1).fit(make_blobs(n=3000))
    drawn, labels = gm.sample(20_000)
    assert np.allclose(drawn.mean(axis=0), gm.weights_ @ gm.means_, atol=0.2)
    assert np.allclose(np.bincount(labels) / 20_000, gm.weights_, atol=0.02)


def test_bic_and_aic_equal_those_of_scikit_learn():
    x = make_blobs()
    gm = GaussianMixture(3).fit(x)
    sklearn_mixture = gm.to_sklearn()
    assert np.isclose(gm.bic(x), sklearn_mixture.bic(x))
    assert np.isclose(gm.aic(x), sklearn_mixture.aic(x))


def test_integer_weights_are_equivalent_to_repeated_rows():
    x = make_blobs(n=300)
    w = np.random.default_rng(0).integers(0, 3, 300)
    weighted = GaussianMixture(1).fit(x, sample_weight=w)
    repeated = GaussianMixture(1).fit(np.repeat(x, w, axis=0))
    assert np.allclose(weighted.means_, repeated.means_)
    assert np.allclose(weighted.covariances_, repeated.covariances_)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_lower_bound_is_the_mean_log_likelihood_in_the_units_of_the_columns(kind):
    x = make_blobs() * [1e-3, 1, 50, 1e4] + 7
    gm = GaussianMixture(3, covariance_type=kind).fit(x)
    assert np.isclose(gm.lower_bound_, gm.score(x), rtol=1e-2, atol=1e-2)


def test_progress_is_called_after_every_pass():
    calls = []
    rng = np.random.default_rng(0)
    x = rng.normal(size=(25_000, 2)).astype(np.float32)
    gm = GaussianMixture(2, n_init=1).fit(x, progress=lambda i, value: calls.append((i, value)))
    assert [i for i, _ in calls] == list(range(1, gm.n_iter_ + 1))
    assert tuple(value for _, value in calls) == gm.report_.log_likelihood
