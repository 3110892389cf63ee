"""Effect of contaminated training events on model and threshold, with and without `model.contamination`."""

import numpy as np
import pytest

from config.streams import ModelSettings
from monitor.models.fitting import FittedModel, fit_model
from monitor.models.training_set import TrainingSet

pytestmark = pytest.mark.slow

N = 2_000
OUTLIER_CENTRE = np.array([12.0, -12, 12])


def draw_clean_events(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw events from two modes."""
    events = rng.normal(size=(n, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0.3], [0, 0, 1]])
    second = rng.random(n) < 0.4
    events[second] = events[second] * 0.6 + 4
    return events


def draw_outliers(rng: np.random.Generator, kind: str, n: int) -> np.ndarray:
    if kind == "gross":
        return rng.normal(size=(n, 3)) * 40
    if kind == "clustered":
        return OUTLIER_CENTRE + 0.3 * rng.normal(size=(n, 3))
    return np.tile(OUTLIER_CENTRE, (n, 1))


def fit_contaminated(kind: str, share: float, contamination: float, seed: int = 0) -> FittedModel:
    rng = np.random.default_rng(seed)
    events = draw_clean_events(rng, N)
    n_outliers = round(share * N)
    events[rng.permutation(N)[:n_outliers]] = draw_outliers(rng, kind, n_outliers)
    training = TrainingSet(features=events.astype(np.float32), names=("a", "b", "c"), rejected=0, exhausted=True)
    return fit_model(training, ModelSettings(contamination=contamination))


def measure_exceedance_and_recall(model: FittedModel, kind: str) -> tuple[float, float]:
    """Return the ratio of clean to nominal exceedance at p99, and the recall of the outliers."""
    rng = np.random.default_rng(9)
    threshold = np.quantile(model.reference, 0.99)
    clean_energies = model.detector.energy(draw_clean_events(rng, 20_000).astype(np.float32))
    outlier_energies = model.detector.energy(draw_outliers(rng, kind, 1_000).astype(np.float32))
    return float((clean_energies > threshold).mean()) / 0.01, float((outlier_energies > threshold).mean())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05])
def test_gross_outliers_do_not_affect_the_model_without_contamination(share: float) -> None:
    ratio, recall = measure_exceedance_and_recall(fit_contaminated("gross", share, 0.0), "gross")
    assert 0.5 < ratio < 2
    assert recall > 0.99


@pytest.mark.parametrize(
    ("kind", "share"), [("gross", 0.05), ("clustered", 0.01), ("clustered", 0.05), ("repeated", 0.05)]
)
def test_outliers_of_the_configured_fraction_do_not_affect_the_model(kind: str, share: float) -> None:
    ratio, recall = measure_exceedance_and_recall(fit_contaminated(kind, share, share), kind)
    assert 0.5 < ratio < 2
    assert recall > 0.99


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_tight_group_is_a_mode_without_contamination(share: float) -> None:
    ratio, recall = measure_exceedance_and_recall(fit_contaminated("clustered", share, 0.0), "clustered")
    assert 0.5 < ratio < 2
    assert recall < 0.1


def test_excluded_events_are_counted_and_not_in_the_reference() -> None:
    model = fit_contaminated("gross", 0.05, 0.0)
    n_excluded = model.new_model.summary["left_out"]
    assert n_excluded == pytest.approx(0.05 * N, abs=5)
    assert len(model.reference) == N - n_excluded


def test_rare_mode_recurs_and_is_not_an_outlier() -> None:
    """The core has no event of a mode of 3%: the energies alone would exclude it."""
    rng = np.random.default_rng(0)
    events = rng.normal(size=(N, 8))
    events[np.arange(20, N, 34)] = 30 + rng.normal(size=(len(range(20, N, 34)), 8))
    training = TrainingSet(features=events.astype(np.float32), names=tuple("abcdefgh"), rejected=0, exhausted=True)
    model = fit_model(training, ModelSettings(n_components=1))
    assert model.new_model.summary["recurring"] == pytest.approx(59, abs=5)
    assert model.new_model.summary["left_out"] <= 5
    assert len(model.all_energies) == N


def test_clean_events_of_any_tail_are_not_excluded() -> None:
    rng = np.random.default_rng(3)
    for events in (draw_clean_events(rng, N), rng.standard_t(8, (N, 3)), rng.exponential(size=(N, 3))):
        training = TrainingSet(features=events.astype(np.float32), names=("a", "b", "c"), rejected=0, exhausted=True)
        n_excluded = fit_model(training, ModelSettings(n_components=2)).new_model.summary["left_out"]
        assert n_excluded <= 0.002 * N


def test_configured_fraction_is_excluded_in_full() -> None:
    assert fit_contaminated("gross", 0.0, 0.02).new_model.summary["left_out"] == 40
