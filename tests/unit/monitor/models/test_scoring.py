"""Scoring with stored models: missing features, finite energies, model cache."""

import json
from functools import lru_cache

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture as SklearnMixture

from config.errors import ConfigError, ModelError
from config.streams import ModelSettings
from monitor.detectors import GaussianMixture
from monitor.detectors.detector import load_detector
from monitor.models.fitting import FittedModel, fit_model, prepare_imported_model
from monitor.models.scoring import LoadedModel, Scorer, explain_events, load_model, pick_device
from monitor.models.training_set import TrainingSet
from storage.control.models import ModelRecord

NAMES = ("x", "y")


@lru_cache(maxsize=1)
def fit_small_model() -> FittedModel:
    features = np.random.default_rng(0).normal((5.0, -2.0), 1.0, (300, 2)).astype(np.float32)
    training = TrainingSet(features=features, names=NAMES, rejected=0, exhausted=True)
    return fit_model(training, ModelSettings(n_components=1))


def loaded_model(*, artefact: bytes | None = None, **changes: object) -> LoadedModel:
    model = fit_small_model().new_model
    values = {
        "id": 1,
        "version": 4,
        "kind": model.kind,
        "state": "active",
        "created_at_us": 0,
        "valid_from_us": 0,
        "feature_names": NAMES,
        "summary": dict(model.summary),
    }
    record = ModelRecord(**(values | changes))  # type: ignore[arg-type]
    return load_model(record, model.artefact if artefact is None else artefact, "cpu")


def make_test_scorer() -> Scorer:
    return Scorer(lambda _: loaded_model())


def test_energies_are_those_of_the_detector_rounded_once() -> None:
    features = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32)
    energies = make_test_scorer().energies(features, 1)
    assert energies.dtype == np.float32
    exact = load_detector(fit_small_model().new_model.artefact, kind="gaussian_mixture").energy(features)
    np.testing.assert_array_equal(energies, np.asarray(exact, np.float32))


def test_missing_feature_is_replaced_by_the_training_mean() -> None:
    means = np.array(fit_small_model().new_model.summary["feature_means"], np.float32)
    incomplete = np.array([[np.nan, 1.0], [2.0, np.nan], [np.nan, np.nan]], np.float32)
    filled = np.array([[means[0], 1.0], [2.0, means[1]], means], np.float32)
    np.testing.assert_array_equal(make_test_scorer().energies(incomplete, 1), make_test_scorer().energies(filled, 1))


def test_missing_feature_with_a_model_without_means_is_an_error() -> None:
    scorer = Scorer(lambda _: loaded_model(summary={"imported": True}))
    assert len(scorer.energies(np.zeros((2, 2), np.float32), 1)) == 2
    with pytest.raises(ModelError, match="an imported one has no means"):
        scorer.energies(np.array([[np.nan, 0]], np.float32), 1)


@pytest.mark.parametrize("value", [3.4e38, -3.4e38, 1e30, 1e-45, 0.0])
def test_energies_of_finite_features_are_finite(value: float) -> None:
    features = np.array([[value, 0], [0, value], [value, value], [value, -value]], np.float32)
    assert np.isfinite(make_test_scorer().energies(features, 1)).all()


def test_empty_batch_has_no_energies() -> None:
    energies = make_test_scorer().energies(np.empty((0, 2), np.float32), 1)
    assert (energies.shape, energies.dtype) == ((0,), np.float32)


def test_energy_does_not_depend_on_other_events_in_the_batch() -> None:
    features = np.random.default_rng(2).normal(size=(700, 2)).astype(np.float32)
    scorer = make_test_scorer()
    all_energies = scorer.energies(features, 1)
    pieces = [scorer.energies(piece, 1) for piece in np.split(features, [1, 2, 9, 500])]
    np.testing.assert_array_equal(np.concatenate(pieces), all_energies)


def test_four_most_recently_used_models_are_cached() -> None:
    loads = []

    def load(model_id: int) -> LoadedModel:
        loads.append(model_id)
        return loaded_model()

    scorer = Scorer(load)
    for model_id in (1, 2, 3, 4, 1, 2, 3, 4, 5, 2, 3, 4, 5, 1):
        scorer.scale(model_id)
    assert loads == [1, 2, 3, 4, 5, 1]


def test_model_without_reference_energies_is_an_error() -> None:
    detector = load_detector(fit_small_model().new_model.artefact, kind="gaussian_mixture")
    detector.reference_energies_ = None
    with pytest.raises(ModelError, match="model 4 has no reference energies"):
        loaded_model(artefact=detector.to_bytes())
    with pytest.raises(ModelError, match="no reference energies, so no threshold can be estimated"):
        prepare_imported_model(detector, NAMES)


def test_imported_model_with_few_reference_energies_is_an_error() -> None:
    detector = load_detector(fit_small_model().new_model.artefact, kind="gaussian_mixture")
    assert detector.reference_energies_ is not None
    detector.reference_energies_ = detector.reference_energies_[:1]
    with pytest.raises(ModelError, match=r"has 1 reference energies, .* at least 100 events"):
        prepare_imported_model(detector, NAMES)


def test_imported_model_with_a_repeated_feature_name_is_an_error() -> None:
    detector = load_detector(fit_small_model().new_model.artefact, kind="gaussian_mixture")
    detector.feature_names_ = ("x", "x")
    with pytest.raises(ModelError, match="several features named x"):
        prepare_imported_model(detector, ())


def test_imported_model_with_too_many_components_is_an_error() -> None:
    n = 1_001
    mixture = SklearnMixture(n, covariance_type="spherical")
    mixture.weights_, mixture.means_, mixture.covariances_ = np.full(n, 1 / n), np.zeros((n, 2)), np.ones(n)
    detector = GaussianMixture.from_sklearn(mixture)
    detector.reference_energies_ = np.zeros(1_000, np.float32)
    with pytest.raises(ModelError, match="has 1,001 components; at most 1,000"):
        prepare_imported_model(detector, NAMES)


def test_model_with_other_features_is_an_error() -> None:
    detector = load_detector(fit_small_model().new_model.artefact, kind="gaussian_mixture")
    with pytest.raises(ModelError, match="has the features x, y; the stream has x, z"):
        prepare_imported_model(detector, ("x", "z"))
    assert prepare_imported_model(detector, NAMES).new_model.feature_names == NAMES


def test_device_is_cuda_only_if_available() -> None:
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA device"):
            pick_device("cuda")


def test_measure_returns_the_same_energies_and_the_drift_codes() -> None:
    features = np.random.default_rng(2).normal((5.0, -2.0), 1.0, (400, 2)).astype(np.float32)
    measured = make_test_scorer().measure(features, 1)
    np.testing.assert_array_equal(measured.energies, make_test_scorer().energies(features, 1))
    assert measured.codes is not None
    all_energies = measured.codes.sum_rows(slice(None))
    assert all_energies.is_consistent(400)
    assert np.abs(all_energies.ranks / 128 / 400).max() < 0.1  # these events are like the training's
    parts = [make_test_scorer().measure(features[at : at + 37], 1).codes for at in range(0, 400, 37)]
    sums = np.sum([part.sum_rows(slice(None)).ranks for part in parts if part is not None], axis=0)
    assert sums.tolist() == all_energies.ranks.tolist()


def test_missing_feature_has_the_rank_of_the_mean() -> None:
    features = np.array([[np.nan, -2.0]], np.float32)
    measured = make_test_scorer().measure(features, 1)
    assert measured.codes is not None
    assert abs(int(measured.codes.ranks[0, 0])) < 8


def test_model_without_a_feature_profile_scores_without_drift_codes() -> None:
    without_profile = load_detector(fit_small_model().new_model.artefact)
    without_profile.profile_ = None
    scorer = Scorer(lambda _: loaded_model(artefact=without_profile.to_bytes()))
    measured = scorer.measure(np.zeros((3, 2), np.float32), 1)
    assert measured.codes is None
    np.testing.assert_array_equal(measured.energies, make_test_scorer().energies(np.zeros((3, 2), np.float32), 1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vaegmm", "aegmm"])
def test_network_models_have_drift_codes(kind: str) -> None:
    features = np.random.default_rng(3).normal(size=(300, 3)).astype(np.float32)
    training = TrainingSet(features=features, names=("a", "b", "c"), rejected=0, exhausted=True)
    model = fit_model(training, ModelSettings.model_validate({"kind": kind})).new_model
    scorer = Scorer(
        lambda _: loaded_model(kind=kind, artefact=model.artefact, feature_names=("a", "b", "c"), summary={})
    )
    measured = scorer.measure(features, 1)
    assert measured.codes is not None
    assert measured.codes.sum_rows(slice(None)).shape == (4, 0, 3)


def test_explained_events_have_contributions_by_line_and_valid_json() -> None:
    model = loaded_model()
    reasons = explain_events(model, [{"x": 15.0, "y": -2.0}, {"x": 5.0}])
    first = reasons[0][0]
    assert (first["feature"], first["line"], first["line_features"]) == ("x", 0, 1)
    assert first["contribution"] == first["line_contribution"]
    assert first["line_share"] == pytest.approx(1, abs=0.2)
    # The second event is at the training means: its energy is below the typical one, and has no shares.
    assert [reason["line_share"] for reason in reasons[1]] == [None, None]
    assert json.loads(json.dumps(reasons, allow_nan=False)) == reasons
