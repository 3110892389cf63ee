"""Gate of a refit: its model becomes active unless the windows between two refits speak against it."""

from dataclasses import replace

import pytest

from monitor.models.shadow_gate import MIN_REFIT_WINDOWS, ComparedModel, GateVerdict, WindowPair, evaluate_refit
from monitor.statistics.part import Scale
from tests.unit.monitor.models.test_shadow_gate import REFERENCE_COUNTS, RULES, make_pairs


def evaluate(
    windows: list[WindowPair], *, shift: float = 0.0, kind: str = "gaussian_mixture", dispersion: float = 1.0
) -> GateVerdict:
    shadow = ComparedModel(kind=kind, scale=Scale(median=shift, iqr=1.35))
    active = ComparedModel(kind="gaussian_mixture", scale=Scale(median=0.0, iqr=1.35), dispersion=dispersion)
    return evaluate_refit(windows, active, shadow, REFERENCE_COUNTS, RULES)


def test_few_windows_without_an_objection_are_enough() -> None:
    verdict = evaluate(make_pairs(MIN_REFIT_WINDOWS, events=12))
    assert verdict.holds is True
    assert verdict.reason == "the windows between two refits do not speak against it"


@pytest.mark.parametrize("windows", [0, MIN_REFIT_WINDOWS - 1])
def test_fewer_windows_keep_the_active_model(windows: int) -> None:
    verdict = evaluate(make_pairs(windows))
    assert verdict.holds is False
    assert f"{windows} clean windows of the {MIN_REFIT_WINDOWS}" in verdict.reason


def test_windows_that_fired_do_not_count() -> None:
    verdict = evaluate(make_pairs(30, fired=30 - MIN_REFIT_WINDOWS + 1))
    assert verdict.holds is False
    assert verdict.numbers["clean_windows"] == MIN_REFIT_WINDOWS - 1


def test_model_that_flags_nothing_passes() -> None:
    assert evaluate(make_pairs(scale=0.3)).holds is True


def test_model_that_flags_significantly_too_many_events_fails() -> None:
    verdict = evaluate(make_pairs(scale=1.5))
    assert verdict.holds is False
    assert "of the clean events, 1.000% is meant" in verdict.reason


def test_flagged_events_within_the_dispersion_of_the_stream_do_not_decide() -> None:
    pairs = make_pairs(6, events=100, scale=2.0)
    assert "is meant" in evaluate(pairs).reason
    assert "is meant" not in evaluate(pairs, dispersion=60.0).reason


def test_model_with_higher_energies_of_clean_events_fails() -> None:
    verdict = evaluate(make_pairs(shift=0.1), shift=0.1)
    assert verdict.holds is False
    assert "costs 0.1" in verdict.reason


def test_energies_of_a_network_are_not_compared() -> None:
    verdict = evaluate(make_pairs(shift=7.0), shift=7.0, kind="vaegmm")
    assert verdict.holds is True
    assert "energy_difference" not in verdict.numbers


def test_model_that_would_fire_in_windows_without_a_finding_fails() -> None:
    pairs = make_pairs(60)
    burst = max(pairs, key=lambda pair: pair.shadow.outliers)
    crowded = replace(burst, shadow=replace(burst.shadow, outliers=40))
    verdict = evaluate([crowded if i % 15 == 7 else pair for i, pair in enumerate(pairs)])
    assert verdict.holds is False
    assert verdict.numbers["would_fire"] == 4
    assert "4 windows would fire in which the active model found nothing" in verdict.reason
