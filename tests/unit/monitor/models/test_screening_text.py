"""The text about screening names the numbers, the reason and both thresholds."""

import numpy as np

from config.streams import ModelSettings
from monitor.models.fitting import fit_model
from monitor.models.screening_text import describe_screening
from monitor.models.training_set import TrainingSet

N = 1_000


def describe(events: np.ndarray, contamination: float = 0.0) -> str | None:
    training = TrainingSet(features=events.astype(np.float32), names=("x", "y"), rejected=0, exhausted=True)
    fitted = fit_model(training, ModelSettings(n_components=1, contamination=contamination))
    return describe_screening(fitted, 99.0, "percentile")


def draw(n_outliers: int) -> np.ndarray:
    """Draw a Gaussian body with outliers in different directions."""
    events = np.random.default_rng(0).normal(size=(N, 2))
    angles = np.linspace(0, 2 * np.pi, n_outliers, endpoint=False)
    rows = np.arange(n_outliers) * (N // max(1, n_outliers))
    events[rows] = 60 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return events


def test_text_names_left_out_events_and_both_thresholds() -> None:
    text = describe(draw(20))
    assert text is not None
    assert text.startswith("20 of 1,000 events left out (far outside of all others); threshold ")
    chosen, with_all = (float(part.split()[-1]) for part in text.split("; ")[-1].split(","))
    assert chosen < 12 < with_all


def test_text_names_the_configured_share() -> None:
    text = describe(draw(20), 0.02)
    assert text is not None
    assert text.startswith("20 of 1,000 events left out (the share in model.contamination)")


def test_text_names_recurring_events() -> None:
    events = draw(0)
    events[::50] = 40
    assert describe(events) == "no event left out; 20 unusual events recur and are kept"


def test_clean_events_have_no_text() -> None:
    assert describe(draw(0)) is None
