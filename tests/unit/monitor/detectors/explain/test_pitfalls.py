"""Properties that keep additive explanations readable: typical events, negative parts, lines, modes, memory, replay."""

import tracemalloc

import numpy as np
import pytest

from monitor.detectors import GaussianMixture, load_detector
from monitor.detectors.explain.derived import FeatureRole, FeatureSource
from monitor.detectors.explain.lines import find_lines
from monitor.detectors.explain.mixture_explainer import make_explainer, typical_contributions
from monitor.detectors.explain.prefixes import make_prefix_factors


def mixture_of(weights, means, covariances):
    return GaussianMixture.from_parameters(weights, means, covariances)


@pytest.fixture(scope="module")
def two_modes():
    """Return two modes on the diagonal: each value of one mode is usual beside any value of the other."""
    rng = np.random.default_rng(0)
    train = np.concatenate([rng.normal(size=(500, 3)), rng.normal(size=(500, 3)) + np.array([50, 50, 0])])
    return GaussianMixture(2, random_state=0).fit(train).calibrate(train)


def test_a_pair_between_modes_is_one_line_and_not_two_causes(two_modes):
    explanation = two_modes.explain(np.array([[0.0, 50.0, 0.0]]))
    line = explanation.lines(0)[0]
    assert {reason.feature for reason in line.reasons} == {"x0", "x1"}
    assert line.share > 0.95
    halves = [reason.contribution for reason in line.reasons]
    assert halves[0] == pytest.approx(halves[1], rel=0.05)
    np.testing.assert_allclose(explanation.expected[0, :2], [50, 0], atol=0.5)


def test_features_that_are_strange_alone_stay_on_two_lines(two_modes):
    explanation = two_modes.explain(np.array([[90.0, -40.0, 0.0], [90.0, 50.0, 0.0]]))
    assert explanation.line.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_a_broken_relation_below_the_limit_of_a_line_is_shown_as_a_pair():
    mixture = mixture_of([1.0], [[0.0, 0, 0]], [[[1, 0.75, 0], [0.75, 1, 0], [0, 0, 1]]])
    assert mixture.explain(np.array([[2.0, -2.0, 0.0]])).line.tolist() == [[0, 0, 2]]
    assert mixture.explain(np.array([[2.0, 2.0, 0.0]])).line.tolist() == [[0, 1, 2]]


def test_features_of_one_field_are_always_on_one_line():
    sources = {
        "amount.d": FeatureSource(field="amount", role=FeatureRole.LEVEL_DIFFERENCE),
        "amount.r": FeatureSource(field="amount", role=FeatureRole.VARIATION),
    }
    unit = np.eye(4)[None]
    explainer = make_explainer(
        np.ones(1),
        np.zeros((1, 4)),
        unit,
        unit,
        features=("amount", "hour", "amount.d", "amount.r"),
        profile=None,
        typical=None,
        derived=sources,
    )
    explanation = explainer.explain(np.array([[1.0, 9.0, 20.0, 0.0]]))
    assert explanation.line.tolist() == [[0, 1, 0, 0]]
    rows = explanation.line_rows()[0]
    assert [row["field"] for row in rows] == ["amount", "amount", "amount", "hour"]
    assert rows[0]["role"] == "level_difference"
    assert find_lines(unit).tolist() == [[0, 1, 2, 3]]


def test_negative_contributions_stay_in_the_sum_of_the_lines():
    mixture = mixture_of([1.0], [[0.0, 0, 0]], [[[1, 0.7, 0], [0.7, 1, 0], [0, 0, 1]]])
    explanation = mixture.explain(np.array([[3.0, 2.5, 8.0], [0.0, 0.0, 9.0]]))
    for event in range(2):
        lines = explanation.lines(event)
        assert sum(line.contribution for line in lines) == pytest.approx(explanation.contribution[event].sum())
    assert min(line.contribution for line in explanation.lines(1)) < 0


def test_values_of_near_copies_cancel_within_their_line():
    covariance = np.array([[1.0, 0.9999, 0], [0.9999, 1, 0], [0, 0, 1]])
    explanation = mixture_of([1.0], [[0.0, 0, 0]], [covariance]).explain(np.array([[2.0, 2.0, 6.0]]))
    line = next(line for line in explanation.lines(0) if len(line.reasons) == 2)
    assert abs(line.contribution) < 4
    assert explanation.lines(0)[0].reasons[0].feature == "x2"


def test_a_second_explanation_is_identical_to_the_bit_also_after_a_reload():
    rng = np.random.default_rng(3)
    train = rng.normal(size=(500, 9)) @ rng.normal(size=(9, 9))
    mixture = GaussianMixture(2, random_state=0).fit(train.astype(np.float32)).calibrate(train.astype(np.float32))
    events = (train[:10] * 4).astype(np.float32)
    first = mixture.explain(events)
    for other in (mixture.explain(events), load_detector(mixture.to_bytes()).explain(events)):
        for name in ("contribution", "z", "cost", "expected", "alternatives", "line", "low", "high"):
            np.testing.assert_array_equal(getattr(first, name), getattr(other, name))
        assert first.contribution.dtype == np.float64


def test_sixteen_components_of_128_features_are_explained_within_ten_mebibytes():
    rng = np.random.default_rng(0)
    k, d = 16, 128
    lower = np.tril(rng.normal(size=(k, d, d)) * 0.05)
    lower[:, np.arange(d), np.arange(d)] = rng.uniform(0.5, 2.0, (k, d))
    means, events = rng.normal(size=(k, d)) * 3, rng.normal(size=(10, d)) * 5
    inverse = np.linalg.inv(lower)
    tracemalloc.start()
    try:
        factors = make_prefix_factors(np.full(k, 1 / k), means, lower, inverse)
        explainer = make_explainer(
            factors.weights,
            means,
            lower,
            inverse,
            features=tuple(f"x{j}" for j in range(d)),
            profile=None,
            typical=typical_contributions(events, factors),
        )
        explanation = explainer.explain(events)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 << 20
    assert np.isfinite(explanation.contribution).all()


def test_one_event_of_a_burst_has_the_same_reasons_as_in_the_burst():
    rng = np.random.default_rng(1)
    train = rng.normal(size=(500, 4))
    mixture = GaussianMixture(2, random_state=0).fit(train)
    burst = rng.normal(size=(2_000, 4)) * 6
    whole = mixture.explain(burst)
    for event in (0, 700, 1_999):
        alone = mixture.explain(burst[event : event + 1])
        np.testing.assert_allclose(alone.contribution[0], whole.contribution[event], rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(alone.line[0], whole.line[event])
