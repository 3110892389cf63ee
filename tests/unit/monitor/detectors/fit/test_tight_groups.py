"""Columns of tight groups far apart: the fit keeps the width of the groups."""

import numpy as np
import pytest

from monitor.detectors import GaussianMixture
from monitor.detectors.fit.tight_groups import group_variances

RNG = np.random.default_rng(0)
N = 2_000
NOISE = RNG.standard_normal(N)
GROUPS = np.where(RNG.random(N) < 0.5, 0.0, 9_999.0)


def test_width_of_groups_far_apart_is_found() -> None:
    (variance,) = group_variances((GROUPS + 0.01 * NOISE)[:, None])
    assert 1e-5 < variance < 1e-2


@pytest.mark.parametrize(
    "column",
    [
        NOISE,
        np.exp(4 * NOISE),
        RNG.standard_cauchy(N),
        np.append(NOISE[1:], 1e12),
        GROUPS,
        np.where(RNG.random(N) < 0.6, 0.0, 1e6 + NOISE),
        np.round(np.exp(3 * NOISE)),
        np.where(RNG.random(N) < 0.5, 0.0, 10.0) + NOISE,
    ],
    ids=["normal", "skewed", "heavy", "one far value", "two values", "mostly zero", "counts", "two modes"],
)
def test_other_columns_have_no_groups(column: np.ndarray) -> None:
    assert group_variances(column[:, None]).tolist() == [np.inf]


@pytest.mark.parametrize("covariance_type", ["spherical", "diag", "full", "tied"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_event_thirty_deviations_from_its_group_is_strange(covariance_type: str, dtype: type) -> None:
    x = (GROUPS + 0.01 * NOISE)[:, None].astype(dtype)
    mixture = GaussianMixture(2, covariance_type=covariance_type).fit(x)  # type: ignore[arg-type]
    assert mixture.covariances_.ravel() == pytest.approx(1e-4, rel=0.15)
    usual, strange = mixture.energy(np.array([[9_999.0], [9_999.3]], dtype))
    assert strange - usual == pytest.approx(450, rel=0.15)
