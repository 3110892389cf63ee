"""A model takes over the dispersion of the model before it, and forgets it as it learns its own."""

import pytest

from monitor.statistics.counts import CountModel, count_model_to_json
from monitor.thresholds.carried import (
    MAX_CARRIED_WINDOWS,
    add_carried,
    carried_to_json,
    carry_dispersion,
    load_carried,
)


def _model(windows: int, dispersion: float, state: str = "provisional") -> CountModel:
    return CountModel(rate=0.01, calibration_n=1_000, dispersion=dispersion, windows=windows, state=state)


def test_a_new_model_has_the_dispersion_of_the_one_before_it() -> None:
    carried = carry_dispersion(count_model_to_json(_model(900, 2.5, "learned")))
    assert carried is not None
    assert carried.windows == MAX_CARRIED_WINDOWS
    model = add_carried(_model(0, 1.0), carried)
    assert (model.dispersion, model.windows, model.state) == (2.5, 300, "learned")
    assert (model.rate, model.calibration_n) == (0.01, 1_000)
    assert load_carried({"carried": carried_to_json(carried)}) == carried


def test_own_windows_replace_the_carried_dispersion() -> None:
    carried = carry_dispersion(count_model_to_json(_model(100, 3.0)))
    assert add_carried(_model(100, 1.0), carried).dispersion == pytest.approx(2.0)
    assert add_carried(_model(300, 1.0, "learned"), carried).dispersion == 1.0


def test_over_many_refits_older_dispersions_fade() -> None:
    law = count_model_to_json(_model(300, 5.0, "learned"))
    for _ in range(10):
        law = count_model_to_json(add_carried(_model(280, 1.0), carry_dispersion(law)))
    assert law["dispersion"] < 1.1
    assert law["state"] == "learned"


def test_nothing_is_carried_of_a_model_without_windows() -> None:
    assert carry_dispersion(count_model_to_json(_model(0, 1.0))) is None
    assert add_carried(_model(5, 1.5), None) == _model(5, 1.5)
    assert load_carried({}) is None
