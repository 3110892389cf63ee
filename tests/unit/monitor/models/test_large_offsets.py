"""Features that are large against their spread: model, energies, drift codes and explanations are not blind."""

from functools import lru_cache

import numpy as np
import pytest

from config.streams import ModelSettings
from monitor.detectors.detector import load_detector
from monitor.models.fitting import FittedModel, encode_labels, fit_model
from monitor.models.scoring import LoadedModel, Scorer, explain_events, load_model
from monitor.models.training_set import TrainingSet
from monitor.statistics.training_profile import N_BINS
from storage.control.models import ModelRecord

OFFSET = 1e9
NAMES = ("load", "meter")
RNG = np.random.default_rng(5)
CENTRED = RNG.standard_normal((2_000, 2))
EVENTS = CENTRED + np.array([20.0, OFFSET])
PROBES = np.array([[20.0, OFFSET + deviations] for deviations in (0, 1, 3, 10, 100)])


@lru_cache
def fit(kind: str = "gaussian_mixture", *, missing: bool = False) -> FittedModel:
    features = EVENTS.copy()
    if missing:
        features[::10, 1] = np.nan
    labels = tuple("ab"[i % 2] for i in range(len(EVENTS)))
    training = TrainingSet(features=features, names=NAMES, rejected=0, exhausted=True, labels=labels)
    return fit_model(
        training,
        ModelSettings(kind=kind, n_components=1),  # type: ignore[arg-type]
        labels=encode_labels(training, "class") if kind == "class_conditional" else None,
    )


def load(fitted: FittedModel) -> LoadedModel:
    record = ModelRecord(
        id=1,
        version=1,
        kind=fitted.new_model.kind,
        state="active",
        created_at_us=0,
        valid_from_us=0,
        feature_names=NAMES,
        summary=dict(fitted.new_model.summary),
    )
    return load_model(record, fitted.new_model.artefact, "cpu")


def scorer(model: LoadedModel) -> Scorer:
    return Scorer(lambda _: model)


@pytest.mark.parametrize("kind", ["gaussian_mixture", "class_conditional"])
def test_energy_grows_with_the_square_of_the_distance(kind: str) -> None:
    energies = scorer(load(fit(kind))).energies(PROBES, 1)
    assert energies[1:] - energies[0] == pytest.approx([0.5, 4.5, 50, 5_000], rel=0.15, abs=0.1)


def test_energy_of_a_network_grows_with_the_distance() -> None:
    energies = scorer(load(fit("vaegmm"))).energies(PROBES, 1)
    assert (np.diff(energies[1:]) > 0).all()


@pytest.mark.parametrize("kind", ["gaussian_mixture", "class_conditional"])
def test_energies_are_those_of_the_detector_rounded_once(kind: str) -> None:
    detector = load_detector(fit(kind).new_model.artefact, kind=kind)
    np.testing.assert_array_equal(
        scorer(load(fit(kind))).measure(EVENTS, 1).energies, detector.energy(EVENTS).astype(np.float32)
    )


def test_energy_does_not_depend_on_the_batch() -> None:
    whole = scorer(load(fit())).measure(EVENTS, 1)
    single = [scorer(load(fit())).measure(EVENTS[i : i + 1], 1).energies[0] for i in range(20)]
    assert whole.energies[:20].tolist() == single


def test_codes_of_the_drift_test_use_all_ranks() -> None:
    codes = scorer(load(fit())).measure(EVENTS, 1).codes
    assert codes is not None
    assert np.unique(codes.ranks[:, 1]).size == 2 * N_BINS - 1
    assert (codes.ranks[:, 1] > 0).mean() == pytest.approx(0.5, abs=0.02)


def test_missing_value_gets_the_exact_mean() -> None:
    model = load(fit(missing=True))
    assert model.feature_means is not None
    assert model.feature_means[1] == pytest.approx(OFFSET, abs=0.1)
    energies = scorer(model).energies(np.array([[20.0, np.nan], [20.0, OFFSET + 10]]), 1)
    assert energies[1] - energies[0] > 20


def test_explanation_has_the_exact_values() -> None:
    ((reason, *_),) = explain_events(load(fit()), [dict(zip(NAMES, PROBES[3].tolist(), strict=True))])
    assert reason["feature"] == "meter"
    assert reason["value"] == OFFSET + 10
    assert reason["expected"] == pytest.approx(OFFSET, abs=0.2)
    assert reason["z"] == pytest.approx(10, abs=0.5)


def test_model_of_ordinary_columns_takes_float32() -> None:
    training = TrainingSet(features=CENTRED, names=NAMES, rejected=0, exhausted=True)
    model = load(fit_model(training, ModelSettings(n_components=1)))
    assert model.feature_dtype == np.float32
    np.testing.assert_array_equal(
        scorer(model).energies(CENTRED, 1), scorer(model).energies(CENTRED.astype(np.float32), 1)
    )
