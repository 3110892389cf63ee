"""Gate before a promotion: likelihood, alert volume, insufficient evidence and reasons."""

from dataclasses import replace

import numpy as np
import pytest

from config.stream_rules import StreamRules
from monitor.models.shadow_gate import ComparedModel, GateVerdict, WindowPair, evaluate_gate
from monitor.statistics.part import Scale, summarise
from tests.rules import make_rules

RULES = make_rules(percentile=99.0, per_week=1.0, size_us=60_000_000, min_outliers=3, min_ratio=0.0)
THRESHOLD = 2.326
REFERENCE_COUNTS = (100, 10_000)


def make_pairs(
    windows: int = 120, *, events: int = 300, shift: float = 0.0, scale: float = 1.0, seed: int = 1, fired: int = 0
) -> list[WindowPair]:
    """Return windows with shadow energies that are shifted and scaled energies of the active model."""
    rng = np.random.default_rng(seed)
    windows_found = []
    for i in range(windows):
        energies = rng.normal(0, 1, events).astype(np.float32)
        other = (energies * scale + shift).astype(np.float32)
        windows_found.append(
            WindowPair(
                active=summarise(energies, energies > THRESHOLD, Scale(median=0.0, iqr=1.35)),
                shadow=summarise(other, other > THRESHOLD + shift, Scale(median=shift, iqr=1.35)),
                fired=i < fired,
            )
        )
    return windows_found


def evaluate(
    windows: list[WindowPair],
    *,
    shift: float = 0.0,
    kind: str = "gaussian_mixture",
    rules: StreamRules = RULES,
    derived: tuple[str, ...] = (),
) -> GateVerdict:
    shadow = ComparedModel(kind=kind, scale=Scale(median=shift, iqr=1.35), derived=derived)
    active = ComparedModel(kind="gaussian_mixture", scale=Scale(median=0.0, iqr=1.35))
    return evaluate_gate(windows, active, shadow, REFERENCE_COUNTS, rules)


def test_model_with_the_same_energies_passes() -> None:
    verdict = evaluate(make_pairs())
    assert verdict.holds
    assert verdict.numbers["energy_difference"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("shift", [-50.0, -0.5])
def test_model_with_lower_energies_passes(shift: float) -> None:
    verdict = evaluate(make_pairs(shift=shift), shift=shift)
    assert verdict.holds, verdict.reason
    assert verdict.numbers["energy_difference"] == pytest.approx(shift, rel=0.02)


def test_model_with_a_higher_mean_energy_fails() -> None:
    verdict = evaluate(make_pairs(shift=0.1), shift=0.1)
    assert verdict.holds is False
    assert "costs 0.1" in verdict.reason


def test_energies_of_a_network_are_not_compared() -> None:
    verdict = evaluate(make_pairs(shift=7.0), shift=7.0, kind="vaegmm")
    assert verdict.holds
    assert "energy_difference" not in verdict.numbers


def test_energies_of_models_with_other_derived_features_are_not_compared() -> None:
    verdict = evaluate(make_pairs(shift=40.0), shift=40.0, derived=("x",))
    assert verdict.holds, verdict.reason
    assert "energy_difference" not in verdict.numbers


@pytest.mark.parametrize("scale", [2.0, 0.5], ids=["too loud", "blind"])
def test_model_that_flags_too_many_or_too_few_events_fails(scale: float) -> None:
    verdict = evaluate(make_pairs(scale=scale), kind="vaegmm")
    assert verdict.holds is False
    assert "of the clean events, 1.000% is meant" in verdict.reason


def test_model_with_too_many_additional_alerts_fails() -> None:
    windows = make_pairs()
    high_energies = np.linspace(3, 4, 300).astype(np.float32)
    for i in (10, 40):
        part = summarise(high_energies, np.arange(300) < 60, Scale(median=0.0, iqr=1.35))
        windows[i] = replace(windows[i], shadow=part)
    verdict = evaluate(windows, kind="vaegmm")
    assert verdict.holds is False
    assert "2 windows would fire in which the active model found nothing, 1 may" in verdict.reason
    fired = [replace(pair, fired=True) if i in (10, 40) else pair for i, pair in enumerate(windows)]
    assert evaluate(fired, kind="vaegmm").holds, "windows in which the active model fired do not count"


@pytest.mark.parametrize(
    ("windows", "words"),
    [
        (make_pairs(windows=29), "29 clean windows of the 30"),
        (make_pairs(windows=40, fired=20), "20 clean windows of the 30"),
        (make_pairs(windows=40, events=100), "4,000 clean events of the 5,000"),
        ([], "0 clean windows"),
    ],
)
def test_insufficient_evidence_gives_no_verdict(windows: list[WindowPair], words: str) -> None:
    verdict = evaluate(windows)
    assert verdict.holds is None
    assert words in verdict.reason
