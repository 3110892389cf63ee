"""The choice between float32 and float64 for the features of a model."""

import numpy as np
import pytest

from monitor.statistics.precision import needs_float64

RNG = np.random.default_rng(3)
N = 4_000
NOISE = RNG.standard_normal(N)


def beside_an_ordinary_column(column: np.ndarray) -> np.ndarray:
    return np.stack([RNG.normal(20.0, 3.0, N), column], axis=1)


@pytest.mark.parametrize(
    "column",
    [
        1e9 + NOISE,
        -1e6 + NOISE * 0.3,
        np.where(RNG.random(N) < 0.5, 0.0, 9_999.0) + 1e-4 * NOISE,
        np.where(RNG.random(N) < 0.5, 1e9, 1e9 + NOISE),
        np.where(RNG.random(N) < 0.05, np.nan, 1e9 + NOISE),
        1.7e9 + np.arange(N) * 0.9,
    ],
    ids=["meter", "negative", "tight groups far apart", "half constant", "with missing values", "seconds"],
)
def test_column_that_float32_would_blur_needs_float64(column: np.ndarray) -> None:
    assert needs_float64(beside_an_ordinary_column(column))


@pytest.mark.parametrize(
    "column",
    [
        NOISE,
        np.round(RNG.normal(1_500.0, 80.0, N), 2),
        np.exp(4 * NOISE),
        np.full(N, 0.1),
        np.full(N, 1e9 + 0.1),
        16_000_000.0 + RNG.integers(0, 3, N),
        np.full(N, np.nan),
        RNG.standard_cauchy(N),
        1e-30 * NOISE,
    ],
    ids=["normal", "decimals", "skewed", "constant", "large constant", "counts", "missing", "heavy", "tiny"],
)
def test_other_columns_stay_in_float32(column: np.ndarray) -> None:
    assert not needs_float64(beside_an_ordinary_column(column))


def test_columns_whose_difference_float32_would_blur_need_float64() -> None:
    load = RNG.normal(1e6, 1_000.0, N)
    assert needs_float64(np.stack([load, load + 1e-3 * NOISE], axis=1))
    assert not needs_float64(np.stack([load, load + 100.0 * NOISE], axis=1))


def test_float32_events_have_nothing_to_lose() -> None:
    assert not needs_float64((1e9 + NOISE).astype(np.float32)[:, None])
