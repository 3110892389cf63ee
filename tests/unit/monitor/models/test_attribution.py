"""The lines of an attribution add up to the mean energy of the events."""

import numpy as np
import pytest

from monitor.detectors.explain.explanation import Explanation
from monitor.detectors.gaussian_mixture import GaussianMixture
from monitor.models.attribution import summarise_explanation


@pytest.fixture(scope="module")
def explanation() -> tuple[Explanation, np.ndarray]:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(4000, 3))
    train = np.column_stack([base, base[:, 0] + 0.05 * rng.normal(size=4000)])
    detector = GaussianMixture(n_components=2, random_state=0).fit(train)
    strange = train[:200] + np.array([6.0, 0.0, 0.0, 6.0])
    return detector.explain(strange), detector.energy(strange)


def test_the_lines_add_up_to_the_mean_energy(explanation: tuple[Explanation, np.ndarray]) -> None:
    attribution = summarise_explanation(explanation[0])
    total = attribution.typical_energy + sum(line.nats for line in attribution.lines)
    assert total == pytest.approx(attribution.mean_energy, rel=1e-12)
    assert attribution.mean_energy == pytest.approx(float(explanation[1].mean()), rel=1e-4)
    assert sum(line.share or 0.0 for line in attribution.lines) == pytest.approx(1.0)


def test_features_that_move_together_are_one_line(explanation: tuple[Explanation, np.ndarray]) -> None:
    attribution = summarise_explanation(explanation[0])
    names = [{feature.name for feature in line.features} for line in attribution.lines]
    assert names[0] == {"x0", "x3"}
    assert sorted(name for line in names for name in line) == ["x0", "x1", "x2", "x3"]


def test_a_feature_has_its_values_its_usual_range_and_the_expected_ones(
    explanation: tuple[Explanation, np.ndarray],
) -> None:
    feature = summarise_explanation(explanation[0]).lines[0].features[0]
    assert feature.here is not None
    assert feature.usual is not None
    assert feature.expected is not None
    assert feature.here.low < feature.here.median < feature.here.high
    assert feature.usual[1] < feature.here.median
    assert not feature.is_usual_alone
    assert feature.expected.median < feature.here.median
