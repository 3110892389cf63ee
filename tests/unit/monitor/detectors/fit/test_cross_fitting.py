"""Reference energies: of events that the model did not see."""

import numpy as np
import pytest

from config.errors import ModelError
from monitor.detectors import GaussianMixture, reference_energies


class RecordingDetector:
    def __init__(self, seen):
        self.seen = seen

    def fit(self, x):
        self.learned = set(x[:, 0].tolist())
        return self

    def energy(self, x):
        self.seen.append((self.learned, x[:, 0].tolist()))
        return -x[:, 0]


def test_no_event_is_scored_by_a_model_that_saw_it_and_folds_are_contiguous():
    seen = []
    energies = reference_energies(lambda: RecordingDetector(seen), np.arange(23.0)[:, None], folds=5)
    for learned, scored in seen:
        assert not learned & set(scored)
        assert scored == list(np.arange(scored[0], scored[-1] + 1))
    assert sorted(e for _, scored in seen for e in scored) == list(range(23))
    assert energies.tolist() == sorted(-np.arange(23.0))
    assert energies.dtype == np.float32


def test_they_are_larger_than_the_energies_of_the_events_fitted_on():
    x = np.random.default_rng(0).normal(size=(400, 12))
    gm = GaussianMixture(2).fit(x).calibrate(x)
    assert gm.reference_energies_.mean() > gm.energy(x).mean() + 0.5


def test_fewer_events_than_folds_are_refused():
    with pytest.raises(ModelError, match="got 3 events"):
        reference_energies(lambda: GaussianMixture(1), np.zeros((3, 2)), folds=5)
