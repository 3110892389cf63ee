"""Oracle test: ClassConditionalGaussian against scipy's multivariate normal in float64."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from monitor.detectors.class_conditional import ClassConditionalGaussian

RELATIVE = {np.float32: 1e-4, np.float64: 1e-10}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def make_labelled(rng, n, D, K, dtype, offset=0.0, condition=4.0):
    labels = rng.integers(0, K, size=n)
    centres = rng.normal(size=(K, D)) * 3 + offset
    q, _ = np.linalg.qr(rng.normal(size=(D, D)))
    z = (rng.normal(size=(n, D)) * np.geomspace(1, condition**-0.5, D)) @ q.T * (1 + labels[:, None] % 3)
    return (z + centres[labels]).astype(dtype), labels


def expected_scores(z, train, labels, reg=1e-6):
    """Return -log sum_c pi_c N and min_c Mahalanobis^2 / D by their definitions."""
    z, train = z.astype(np.float64), train.astype(np.float64)
    logs, squares = [], []
    for c in np.unique(labels):
        rows = train[labels == c]
        cov = np.cov(rows.T, bias=True).reshape(2 * train.shape[1:]) + reg * np.eye(train.shape[1])
        normal = multivariate_normal(rows.mean(0), cov)
        logs.append(np.log(np.mean(labels == c)) + np.atleast_1d(normal.logpdf(z)))
        deviation = z - rows.mean(0)
        squares.append(np.einsum("ni,ni->n", deviation, np.linalg.solve(cov, deviation.T).T))
    return -logsumexp(logs, axis=0), np.min(squares, axis=0) / train.shape[1]


@DTYPES
@pytest.mark.parametrize(("D", "K"), [(1, 1), (2, 3), (16, 5), (128, 4), (512, 2), (3, 64)])
def test_both_scores_equal_their_definitions(dtype, D, K):
    rng = np.random.default_rng(1)
    train, labels = make_labelled(rng, max(1500, 20 * K), D, K, dtype)
    held = (rng.normal(size=(200, D)) * 3).astype(dtype)
    likelihood, mahalanobis = expected_scores(held, train, labels)
    for score, expected in (("likelihood", likelihood), ("mahalanobis", mahalanobis)):
        scores = ClassConditionalGaussian(score=score).fit_features(train, labels).predict_features(held)
        assert scores.dtype == dtype
        np.testing.assert_allclose(scores, expected, rtol=RELATIVE[dtype])


@DTYPES
def test_an_offset_of_ten_thousand_costs_no_accuracy(dtype):
    rng = np.random.default_rng(2)
    train, labels = make_labelled(rng, 3000, 6, 3, dtype, offset=1e4)
    held, _ = make_labelled(rng, 300, 6, 3, dtype, offset=1e4)
    scores = ClassConditionalGaussian().fit_features(train, labels).predict_features(held)
    rtol = {np.float32: 1e-4, np.float64: 1e-8}[dtype]  # the sums of the oracle are less accurate at this offset
    np.testing.assert_allclose(scores, expected_scores(held, train, labels)[0], rtol=rtol)


@DTYPES
@pytest.mark.parametrize("condition", [1e6, 1e8])
def test_ill_conditioned_classes_are_accurate(dtype, condition):
    rng = np.random.default_rng(3)
    train, labels = make_labelled(rng, 4000, 8, 2, dtype, condition=condition)
    scores = ClassConditionalGaussian(reg=1e-12).fit_features(train, labels).predict_features(train[:300])
    expected = expected_scores(train[:300], train, labels, reg=1e-12)[0]
    np.testing.assert_allclose(scores, expected, rtol={np.float32: 1e-4, np.float64: 1e-7}[dtype])


@DTYPES
def test_far_events_are_finite_accurate_and_ordered(dtype):
    rng = np.random.default_rng(4)
    train, labels = make_labelled(rng, 2000, 5, 4, dtype)
    far = (np.geomspace(100, 1e6, 30)[:, None] * rng.normal(size=5)).astype(dtype)
    scores = ClassConditionalGaussian().fit_features(train, labels).predict_features(far)
    assert (np.diff(scores) > 0).all()
    np.testing.assert_allclose(scores, expected_scores(far, train, labels)[0], rtol=RELATIVE[dtype])


def test_score_of_a_single_event_is_bit_identical_to_that_in_a_batch():
    rng = np.random.default_rng(5)
    train, labels = make_labelled(rng, 2000, 7, 3, np.float32)
    detector = ClassConditionalGaussian().fit_features(train, labels)
    batch = detector.predict_features(train)
    single = np.concatenate([detector.predict_features(train[i : i + 1]) for i in range(0, 2000, 97)])
    np.testing.assert_array_equal(single, batch[::97])
