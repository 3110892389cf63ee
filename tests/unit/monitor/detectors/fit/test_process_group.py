"""Quantiles over processes, found by counting."""

import numpy as np
import pytest

from monitor.detectors.fit.process_group import ProcessGroup


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_the_value_of_a_rank_is_that_of_the_sorted_values(scale):
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=500) * scale, np.zeros(20), np.full(30, scale), [np.inf, -np.inf]])
    alone = ProcessGroup(rank=0, size=1)
    assert [alone.value_at_rank(values, rank) for rank in range(len(values))] == np.sort(values).tolist()
