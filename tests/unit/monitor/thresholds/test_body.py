"""The tail that the body of the energies implies: a warning that moves no threshold."""

import numpy as np
import pytest

from monitor.thresholds.body import describe_heavy_tail, fit_body
from monitor.thresholds.percentile import estimate_reference_threshold
from monitor.thresholds.tick import build_first_threshold
from storage.control.models import Activation

NOW = Activation(valid_from_us=0, computed_at_us=0)


def energies(shape: float, share: float, n: int = 10_000, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    drawn = rng.gamma(shape, 1, n)
    drawn[: round(share * n)] = rng.uniform(60 + shape, 200 + shape, round(share * n))
    return np.sort(drawn.astype(np.float32))


@pytest.mark.parametrize("shape", [1.0, 8.0, 30.0])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.05])
def test_share_beyond_the_tail_of_the_body_is_found(shape: float, share: float) -> None:
    body = fit_body(energies(shape, share), 0.001)
    assert body.outlier_share == pytest.approx(share, abs=0.0015)
    clean = np.quantile(energies(shape, 0.0, 200_000, 2), 0.999)
    assert body.quantile(0.001) == pytest.approx(float(clean), rel=0.1)


@pytest.mark.parametrize("share", [0.01, 0.05])
@pytest.mark.parametrize("a", [0.005, 0.001])
def test_contaminated_warm_up_gives_a_warning(share: float, a: float) -> None:
    warning = describe_heavy_tail(energies(8, share), a)
    assert warning is not None
    assert "model.contamination: 0.0" in warning


@pytest.mark.parametrize("shape", [1.0, 8.0, 30.0])
@pytest.mark.parametrize("a", [0.01, 0.005, 0.001])
def test_clean_energies_give_no_warning(shape: float, a: float) -> None:
    assert [describe_heavy_tail(energies(shape, 0, n, seed), a) for n in (2_000, 10_000) for seed in range(5)] == [
        None
    ] * 10


def test_equal_energies_give_no_warning() -> None:
    assert describe_heavy_tail(np.full(1_000, 3, np.float32), 0.005) is None


def test_warning_is_stored_with_the_first_threshold_and_does_not_move_it() -> None:
    reference = energies(8, 0.05)
    row = build_first_threshold(reference, 1, NOW, 99.5)
    assert "beyond the tail" in row.details["limit"]["warning"]
    assert row.threshold == estimate_reference_threshold(reference, 99.5).value
    assert "warning" not in build_first_threshold(energies(8, 0), 1, NOW, 99.5).details["limit"]
