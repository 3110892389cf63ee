"""Tests of the limit of BLAS threads while scoring."""

from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from monitor.detectors.score.factors import GaussianComponents
from monitor.detectors.score.scorer import make_scorer
from monitor.detectors.score.threads import single_blas_thread

STANDARD_GAUSSIAN = GaussianComponents(weights=np.ones(1), means=np.zeros((1, 2)), inverse=np.eye(2)[None])


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two_threads():
    with threadpool_limits(2, user_api="blas"):
        if blas_threads() != {2}:
            pytest.skip("numpy's BLAS has no threads here")
        yield


@pytest.mark.parametrize("rows", [1, 1000])
def test_chunk_is_scored_on_one_thread(rows):
    thread_counts = []

    def kernel(part, out, shares):
        thread_counts.append(blas_threads())
        out[:] = 0

    scorer = replace(
        make_scorer(STANDARD_GAUSSIAN, np.float64), make_kernel=lambda: kernel, make_small_kernel=None, spare_kernels=[]
    )
    scorer.energies(np.zeros((rows, 2)))
    assert thread_counts
    assert all(threads == {1} for threads in thread_counts)
    assert blas_threads() == {2}


def test_leaving_an_inner_context_keeps_the_limit():
    with single_blas_thread:
        with single_blas_thread:
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == {2}
