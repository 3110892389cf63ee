"""Tests of ClassConditionalGaussian: labels, loaders, feature models, files and errors."""

import numpy as np
import pandas as pd
import pytest
import torch

from config.errors import ModelError
from monitor.detectors.class_conditional import ClassConditionalGaussian
from monitor.detectors.detector import Detector, load_detector


@pytest.fixture
def labelled_features():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, size=600)
    return rng.normal(size=(600, 4)) + 4 * labels[:, None], labels


def test_unknown_labels_are_ignored(labelled_features):
    z, labels = labelled_features
    noise = np.full((50, 4), 1e6)
    with_unknown = ClassConditionalGaussian().fit_features(
        np.vstack([z, noise]), np.concatenate([labels, np.full(50, -1)])
    )
    without = ClassConditionalGaussian().fit_features(z, labels)
    np.testing.assert_array_equal(with_unknown.predict_features(z), without.predict_features(z))


def test_weights_are_the_fractions_of_the_labelled_samples():
    z = np.arange(10.0).reshape(-1, 1)
    detector = ClassConditionalGaussian().fit_features(z, [0, 0, 0, 7, -1, -1, -1, 7, 0, 0])
    assert detector.classes_.tolist() == [0, 7]
    np.testing.assert_allclose(detector.weights_, [5 / 7, 2 / 7])


def test_the_two_scores_rank_differently_for_different_covariances():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 2000)
    z = rng.normal(size=(4000, 2)) * np.where(labels == 0, 0.1, 3.0)[:, None] + 8 * labels[:, None]
    probes = np.array([[0.3, 0.0], [8.0, 13.0]])
    order = {
        score: ClassConditionalGaussian(score=score).fit_features(z, labels).predict_features(probes).argmax()
        for score in ("likelihood", "mahalanobis")
    }
    assert order == {"likelihood": 1, "mahalanobis": 0}


def test_fit_on_a_loader_with_a_model_equals_fit_on_features(labelled_features):
    z, labels = labelled_features
    module = torch.nn.Linear(4, 2).double()
    batches = [(torch.tensor(z[i : i + 64]), torch.tensor(labels[i : i + 64])) for i in range(0, 600, 64)]
    by_loader = ClassConditionalGaussian(module).fit(batches)
    with torch.no_grad():
        features = module(torch.tensor(z)).numpy()
    by_features = ClassConditionalGaussian().fit_features(features, labels)
    np.testing.assert_allclose(by_loader.predict(torch.tensor(z)), by_features.predict(features), rtol=1e-9)


def test_module_runs_in_evaluation_mode_and_returns_to_training_mode(labelled_features):
    z, labels = labelled_features
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5)).double().train()
    detector = ClassConditionalGaussian(module).fit(torch.tensor(z), labels)
    first, second = (detector.predict(torch.tensor(z)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert module.training


def test_model_can_be_any_callable(labelled_features):
    z, labels = labelled_features
    detector = ClassConditionalGaussian(lambda batch: np.asarray(batch)[:, :2]).fit([(z, labels)])
    assert detector.n_features == 2


def test_frames_with_labels_are_fitted_and_names_are_stored(labelled_features):
    z, labels = labelled_features
    frame = pd.DataFrame(z, columns=list("abcd"))
    detector = ClassConditionalGaussian().fit(frame, labels)
    assert detector.feature_names_ == ("a", "b", "c", "d")
    assert np.array_equal(detector.predict(frame[["b", "a", "d", "c"]]), detector.predict(frame))


def test_a_class_of_one_sample_has_finite_scores():
    z = np.array([[0.0, 0.0], [1.0, 1.0], [0.5, 0.0], [9.0, 9.0]])
    detector = ClassConditionalGaussian().fit_features(z, [0, 0, 0, 1])
    assert np.isfinite(detector.predict_features(z)).all()


def test_explained_cost_equals_the_energy_saved_by_replacing_the_value(labelled_features):
    z, labels = labelled_features
    detector = ClassConditionalGaussian().fit_features(z, labels)
    events = z[:5] + np.array([0.0, 0.0, 6.0, 0.0])
    explanation = detector.explain(events)
    for j in range(4):
        replaced = events.copy()
        replaced[:, j] = explanation.expected[:, j]
        saved = detector.energy(events) - detector.energy(replaced)
        np.testing.assert_allclose(explanation.cost[:, j], saved, rtol=1e-8, atol=1e-9)


def test_contributions_sum_to_the_energy_above_the_typical_energy(labelled_features):
    z, labels = labelled_features
    detector = ClassConditionalGaussian().fit_features(z, labels)
    events = z[:5].astype(np.float64) + np.array([0.0, 0.0, 6.0, 0.0])
    explanation = detector.explain(events)
    sums = explanation.contribution.sum(axis=1) + explanation.typical_energy
    np.testing.assert_allclose(sums, detector.energy(events), rtol=1e-9)


def test_it_implements_detector_and_survives_a_round_trip(labelled_features, tmp_path):
    z, labels = labelled_features
    detector = ClassConditionalGaussian(score="mahalanobis").fit(pd.DataFrame(z, columns=list("abcd")), labels)
    assert isinstance(detector, Detector)
    detector.save(tmp_path / "m.safetensors")
    for source in (detector.to_bytes(), tmp_path / "m.safetensors"):
        loaded = load_detector(source, kind="class_conditional", n_features=4)
        np.testing.assert_array_equal(loaded.energy(z), detector.energy(z))
        assert loaded.feature_names_ == detector.feature_names_


def test_feature_model_must_be_passed_at_load(labelled_features, tmp_path):
    z, labels = labelled_features

    def model(batch):
        return np.asarray(batch)[:, :3]

    detector = ClassConditionalGaussian(model).fit([(z, labels)])
    detector.save(tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match="same callable"):
        ClassConditionalGaussian.load(tmp_path / "m.safetensors")
    loaded = ClassConditionalGaussian.load(tmp_path / "m.safetensors", model=model)
    np.testing.assert_array_equal(loaded.predict(z), detector.predict(z))


@pytest.mark.parametrize(
    ("z", "labels", "message"),
    [
        (np.zeros((3, 2)), [-1, -1, -2], "no known sample"),
        (np.zeros((3, 2)), [0, 1], "one whole number per row"),
        (np.zeros((3, 2)), [0.5, 1, 2], "whole numbers"),
        (np.zeros((0, 2)), [], "0 sample"),
        (np.zeros(3), [0, 1, 2], "2D"),
        (np.array([[np.nan, 1.0]]), [0], "rows 0; columns 0"),
        (np.array([["a", "b"]]), [0], "must hold numbers"),
        (None, [0], "x is None"),
    ],
)
def test_invalid_input_raises_an_error_with_the_reason(z, labels, message):
    with pytest.raises(ModelError, match=message):
        ClassConditionalGaussian().fit_features(z, labels)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "no batch"),
        (np.zeros((4, 2)), "labels are needed"),
        (5, "not a data loader"),
        ([np.zeros((4, 2))], "must yield"),
        ([(np.zeros((4, 2)), [0] * 4), (np.zeros((4, 3)), [0] * 4)], "different widths"),
    ],
)
def test_invalid_loaders_raise_an_error_with_the_reason(data, message):
    with pytest.raises(ModelError, match=message):
        ClassConditionalGaussian().fit(data)


def test_scoring_before_a_fit_and_with_another_width_raises_an_error(labelled_features):
    z, labels = labelled_features
    with pytest.raises(ModelError, match="not fitted yet"):
        ClassConditionalGaussian().predict(z)
    with pytest.raises(ModelError, match="3 features"):
        ClassConditionalGaussian().fit(z, labels).predict(z[:, :3])


def test_unknown_score_raises_an_error():
    with pytest.raises(ModelError, match="score must be"):
        ClassConditionalGaussian(score="euclid")
