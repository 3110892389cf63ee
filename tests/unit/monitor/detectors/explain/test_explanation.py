"""Explanations as rows and as lines."""

from dataclasses import replace

import numpy as np
import pytest

from monitor.detectors import GaussianMixture, load_detector
from monitor.detectors.explain.derived import find_sources
from monitor.detectors.explain.explanation import Explanation
from monitor.detectors.explain.lines import find_lines


def make_explanation(contribution, line):
    contribution = np.array([contribution])
    zeros = np.zeros_like(contribution)
    return Explanation(
        features=tuple("abcdefgh"[: contribution.shape[1]]),
        value=zeros,
        contribution=contribution,
        typical_energy=1.0,
        z=zeros,
        cost=zeros,
        expected=zeros,
        alternatives=np.full((*zeros.shape, 3), np.nan),
        low=zeros,
        high=zeros,
        line=np.array([line]),
        sources=find_sources("abcdefgh"[: contribution.shape[1]], None),
    )


def test_contributions_of_one_line_are_summed():
    lines = make_explanation([60.0, -3.0, 40.0, 3.0], [0, 1, 0, 3]).lines(0)
    assert [[reason.feature for reason in line.reasons] for line in lines] == [["a", "c"], ["b"], ["d"]]
    assert [line.contribution for line in lines] == [100.0, -3.0, 3.0]
    assert [line.share for line in lines] == [1.0, -0.03, 0.03]


def test_line_rows_name_their_line_and_its_number_of_features():
    rows = make_explanation([10.0, 9.0, 8.0, 7.0, 6.0, 60.0], [0, 0, 0, 0, 0, 5]).line_rows(top=2)[0]
    assert [(row["line"], row["feature"], row["line_features"]) for row in rows] == [
        (0, "f", 1),
        *((1, name, 5) for name in "abcd"),
    ]
    assert rows[1]["line_contribution"] == 40.0
    assert rows[1]["line_share"] == pytest.approx(0.4)


def test_share_is_unknown_when_the_energy_is_below_the_typical_one():
    assert np.isnan(make_explanation([-2.0, 1.0], [0, 1]).lines(0)[0].share)


def test_lines_join_features_by_the_correlation_within_a_component():
    correlated = np.linalg.cholesky(np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    assert find_lines(np.stack([correlated, np.eye(3)])).tolist() == [[0, 0, 2], [0, 1, 2]]


def test_features_with_only_their_modes_in_common_are_on_different_lines():
    rng = np.random.default_rng(0)
    train = np.concatenate([rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) + 50])
    mixture = GaussianMixture(2, random_state=0).fit(train)
    assert mixture.explain(np.array([[0.0, 30.0]])).line.tolist() == [[0, 1]]


def test_typical_contributions_and_usual_ranges_are_stored_with_the_model():
    train = np.random.default_rng(0).normal(size=(300, 3)) ** 3
    mixture = GaussianMixture(2, random_state=0).fit(train).calibrate(train)
    loaded = load_detector(mixture.to_bytes())
    first, second = mixture.explain(train[:5]), loaded.explain(train[:5])
    np.testing.assert_array_equal(first.contribution, second.contribution)
    np.testing.assert_array_equal(first.low, second.low)
    assert first.typical_energy == second.typical_energy


def test_a_new_fit_discards_the_typical_contributions():
    train = np.random.default_rng(0).normal(size=(300, 2))
    mixture = GaussianMixture(1).fit(train).calibrate(train)
    before = mixture.explain(train[:1])
    mixture.fit(train * 10)
    assert mixture.typical_contributions_ is None
    assert mixture.explain(train[:1]).typical_energy > before.typical_energy + 4


def test_a_model_stored_without_typical_contributions_draws_typical_events():
    train = np.random.default_rng(0).normal(size=(300, 3))
    mixture = GaussianMixture(1).fit(train).calibrate(train)
    stored = mixture.to_artefact()
    tensors = {name: array for name, array in stored.tensors.items() if name != "typical_contributions"}
    older = GaussianMixture.from_artefact(replace(stored, tensors=tensors))
    events = train[:5] + 4
    np.testing.assert_allclose(older.explain(events).contribution, mixture.explain(events).contribution, atol=0.3)
    sums = older.explain(events).contribution.sum(axis=1) + older.explain(events).typical_energy
    np.testing.assert_allclose(sums, older.energy(events), rtol=1e-9)
