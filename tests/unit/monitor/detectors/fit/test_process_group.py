"""Tests of the order statistics over processes."""

import numpy as np
import pytest

from monitor.detectors.fit.process_group import ProcessGroup


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_value_at_rank_equals_the_sorted_value(scale):
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=500) * scale, np.zeros(20), np.full(30, scale), [np.inf, -np.inf]])
    single_process = ProcessGroup(rank=0, size=1)
    assert [single_process.value_at_rank(values, rank) for rank in range(len(values))] == np.sort(values).tolist()
