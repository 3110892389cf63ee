"""The sections of a stream: defaults, ranges and consistency."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from config.settings import Settings, StreamSettings

Load = Callable[..., Settings]
Said = Callable[[str], str]


@pytest.fixture
def stream(load_text: Load) -> Callable[..., StreamSettings]:
    def read(sections: str = "") -> StreamSettings:
        text = f"streams:\n  s:\n    source: {{type: kafka, topics: [t]}}\n    {sections}\n"
        return load_text(text).streams["s"]

    return read


def test_defaults_are_the_documented_ones(stream: Callable[..., StreamSettings]) -> None:
    settings = stream()
    assert (settings.event.format, settings.event.features, settings.event.missing) == (
        "json",
        "auto",
        "reject",
    )
    assert (settings.event.time, settings.event.key, settings.event.id) == (None, None, None)
    assert settings.event.max_size == 1_048_576
    assert (settings.model.kind, settings.model.n_components) == ("gaussian_mixture", "auto")
    assert (settings.model.warm_up, settings.model.contamination) == (10_000, 0.0)
    assert settings.window.size == timedelta(minutes=1)
    assert settings.threshold.percentile == 99.5
    assert settings.threshold.refresh == timedelta(minutes=5)
    assert settings.alerts.false_alarms.per_week == 1.0
    assert (settings.alerts.min_outliers, settings.alerts.max_dead_letter_ratio) == (5, 0.05)
    assert settings.alerts.silence_after == "auto"
    assert settings.alerts.drift.horizons == (timedelta(minutes=10), timedelta(hours=1), timedelta(days=1))


@pytest.mark.parametrize(("size", "ahead"), [("1m", "10m"), ("10s", "10m"), ("5m", "10m"), ("1h", "2h")])
def test_default_lead_is_ten_minutes_or_two_windows(
    stream: Callable[..., StreamSettings], size: str, ahead: str
) -> None:
    hours = {"10m": timedelta(minutes=10), "2h": timedelta(hours=2)}
    assert stream(f"window: {{size: {size}}}").window.ahead == hours[ahead]


@pytest.mark.parametrize(
    ("sections", "read"),
    [
        (
            "event: {features: [amount, card.age_days]}",
            lambda s: s.event.features == ("amount", "card.age_days"),
        ),
        ("event: {time: {field: ts}}", lambda s: (s.event.time.field, s.event.time.unit) == ("ts", "auto")),
        ("event: {max_size: 4KiB}", lambda s: s.event.max_size == 4096),
        ("model: {n_components: 5}", lambda s: s.model.n_components == 5),
        ("model: {kind: vaegmm}", lambda s: s.model.kind == "vaegmm"),
        ("model: {kind: class_conditional}", lambda s: s.model.kind == "class_conditional"),
        ("threshold: {refresh: '0 */2 * * *'}", lambda s: s.threshold.refresh == "0 */2 * * *"),
        ("threshold: {refresh: 1h}", lambda s: s.threshold.refresh == timedelta(hours=1)),
        ("threshold: {percentile: 99.9}", lambda s: s.threshold.percentile == 99.9),
        ("alerts: {silence_after: never}", lambda s: s.alerts.silence_after == "never"),
        ("alerts: {false_alarms: 2/day}", lambda s: s.alerts.false_alarms.per_week == 14),
        ("alerts: {drift: {min_effect: 0.2}}", lambda s: s.alerts.drift.min_effect == 0.2),
        ("window: {max_future: 0s}", lambda s: s.window.max_future == timedelta()),
    ],
)
def test_configured_value_is_used(
    stream: Callable[..., StreamSettings], sections: str, read: Callable[[Any], bool]
) -> None:
    assert read(stream(sections))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ("event: {format: jsn}", "event.format: 'jsn' is not known; did you mean json?"),
        ("event: {features: []}", "event.features: must be a list with at least one entry"),
        ("event: {features: [a, a]}", "event.features: contains 'a' twice"),
        ("event: {features: [card..age]}", "event.features: 'card..age' has an empty part"),
        ("event: {time: ts}", "event.time: must contain keys and values"),
        ("event: {time: {unit: s}}", "event.time.field: is missing"),
        ("event: {time: {field: ts, unit: min}}", "event.time.unit: 'min' is not known"),
        ("event: {key: ''}", "event.key: must not be empty"),
        ("event: {max_size: 1024}", "event.max_size: 1024 has no unit"),
        ("event: {max_size: 0B}", "event.max_size: must be at least 1"),
        ("event: {format: float32, id: x}", "event.id: cannot be a field"),
        ("model: {n_components: 0}", "model.n_components: must be auto or a whole number"),
        ("model: {n_components: true}", "model.n_components: must be auto or a whole number"),
        ("model: {n_components: 2.5}", "model.n_components: must be auto or a whole number"),
        ("model: {warm_up: 1}", "model.warm_up: must be auto or a whole number from 10 on"),
        ("model: {warm_up: lots}", "model.warm_up: must be auto or a whole number from 10 on"),
        ("model: {contamination: 0.5}", "model.contamination: must be less than 0.5"),
        ("model: {covariance_type: ful}", "model.covariance_type: 'ful' is not known; did you mean full?"),
        ("model: {kind: gmm}", "model.kind: 'gmm' is not known; did you mean gaussian_mixture?"),
        ("window: {size: 10}", "window.size: 10 has no unit; write a duration such as 500ms, 10s"),
        ("window: {size: 0s}", "window.size: must be longer than zero"),
        ("window: {grace: 0s}", "window.grace: must be longer than zero"),
        ("window: {idle_timeout: 0s}", "window.idle_timeout: must be longer than zero"),
        ("window: {size: 1m, ahead: 30s}", "window.ahead: must be at least window.size (1m)"),
        ("window: {size: [1m]}", "window.size: this is not a text with a unit"),
        ("window: {size: }", "window.size: this is not a text with a unit"),
        (
            "window: {percentile: 99}",
            "window.percentile: unknown key; it belongs at streams.s.threshold.percentile",
        ),
        ("window: {sise: 1m}", "window.sise: unknown key; did you mean streams.s.window.size?"),
        ("windows: {size: 1m}", "windows: unknown key; did you mean streams.s.window?"),
        ("threshold: {percentile: 0.999}", "0.999 is a fraction, percentiles go to 100; did you mean 99.9?"),
        ("threshold: {percentile: 0.95}", "did you mean 95?"),
        (
            "threshold: {percentile: 5}",
            "5 is not a percentile for a threshold: .* between 50 and 100; did you mean 99.9?",
        ),
        ("threshold: {percentile: 50}", "50 is not a percentile"),
        ("threshold: {percentile: 100}", "100 is not a percentile"),
        ("threshold: {percentile: high}", "this is not a percentile"),
        ("threshold: {percentile: true}", "this is not a percentile"),
        ("threshold: {percentile: .nan}", "this is not a percentile"),
        ("threshold: {look_back: 9m}", "threshold.look_back: must hold at least 10 windows of 1m; try 10m"),
        ("threshold: {refresh: 5}", "threshold.refresh: must be a duration above zero, such as 5m, or cron"),
        ("threshold: {refresh: '5 4 * *'}", "threshold.refresh: '5 4 . .' has 4 fields"),
        ("threshold: {refresh: often}", "threshold.refresh: 'often' is not a duration"),
        ("alerts: {false_alarms: 1}", "alerts.false_alarms: 1 has no unit; write a rate such as 1/week"),
        ("alerts: {false_alarms: 0/week}", "no detector achieves zero false alarms"),
        ("alerts: {min_outliers: 0}", "alerts.min_outliers: must be at least 1"),
        ("alerts: {min_ratio: 2}", "alerts.min_ratio: must be at most 1"),
        ("alerts: {max_dead_letter_ratio: -1}", "alerts.max_dead_letter_ratio: must be at least 0"),
        ("alerts: {resolve_after: 3m}", "alerts.resolve_after: must be a whole number"),
        ("alerts: {repeat_interval: never}", "alerts.repeat_interval: 'never' is not a duration"),
        ("alerts: {silence_after: sometimes}", "alerts.silence_after: must be auto, never or a duration"),
        ("alerts: {silence_after: 5}", "alerts.silence_after: must be auto, never or a duration above zero"),
        ("alerts: {drift: {horizons: [1h, 10m]}}", "alerts.drift.horizons: must go from short to long"),
        ("alerts: {drift: {horizons: []}}", "alerts.drift.horizons: must have at least one entry"),
        ("alerts: {drift: {horizons: [10m, 5]}}", r"alerts.drift.horizons\[1\]: 5 has no unit"),
        ("model: 5", "model: must contain keys and values"),
        ("model:", "model: has no value; write one, or leave the key out"),
    ],
)
def test_invalid_value_is_an_error_that_names_the_key(stream_problem: Said, sections: str, message: str) -> None:
    line = stream_problem(sections)
    assert line.startswith("outrider.yaml:4: streams.s.")
    with pytest.raises(ValueError, match=message.replace("(1m)", r"\(1m\)").replace("?", r"\?")):
        raise ValueError(line)


def test_stream_without_a_source_is_an_error(problem_of: Callable[..., str]) -> None:
    assert problem_of("streams:\n  s: {}\n") == "outrider.yaml:2: streams.s.source: is missing"
