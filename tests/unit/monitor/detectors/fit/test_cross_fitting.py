"""Tests of the out-of-fold reference energies."""

import numpy as np
import pytest

from config.errors import ModelError
from monitor.detectors import GaussianMixture, reference_energies


class RecordingDetector:
    def __init__(self, calls):
        self.seen = calls

    def fit(self, x):
        self.train = set(x[:, 0].tolist())
        return self

    def energy(self, x):
        self.seen.append((self.train, x[:, 0].tolist()))
        return -x[:, 0]


def test_each_event_is_scored_by_a_model_fitted_without_its_contiguous_fold():
    calls = []
    energies = reference_energies(lambda: RecordingDetector(calls), np.arange(23.0)[:, None], folds=5)
    for train, scored in calls:
        assert not train & set(scored)
        assert scored == list(np.arange(scored[0], scored[-1] + 1))
    assert sorted(e for _, scored in calls for e in scored) == list(range(23))
    assert energies.tolist() == sorted(-np.arange(23.0))
    assert energies.dtype == np.float32


@pytest.mark.slow
def test_reference_energies_exceed_the_energies_of_training_events():
    x = np.random.default_rng(0).normal(size=(400, 12))
    gm = GaussianMixture(2).fit(x).calibrate(x)
    assert gm.reference_energies_.mean() > gm.energy(x).mean() + 0.5


def test_fewer_events_than_folds_raise_an_error():
    with pytest.raises(ModelError, match="got 5 folds, 3 events"):
        reference_energies(lambda: GaussianMixture(1), np.zeros((3, 2)), folds=5)
