"""The rules built from the settings: units, and the settings of the right stream."""

from datetime import timedelta
from typing import Any

import pytest

from config.settings import Settings
from consumers.window_schedule import make_window_schedule
from monitor.daemon.rules import build_stream_rules, config_hash
from monitor.incidents.lifecycle import Kind, Severity

SECOND = 1_000_000


def settings(**stream: Any) -> Settings:
    own = {"source": {"type": "synthetic"}} | stream
    notify = {
        "channels": {"ops": {"type": "log"}, "night": {"type": "log"}},
        "routes": [{"match": {"kind": "spike", "severity": "critical"}, "channels": ["night"]}],
    }
    return Settings.model_validate({"streams": {"a": own, "b": {"source": {"type": "synthetic"}}}, "notify": notify})


def test_window_settings_are_converted_to_microseconds_without_a_future_bound_for_kafka() -> None:
    rules = build_stream_rules(settings(window={"size": "30s", "grace": "2s", "ahead": "5m", "max_future": "1m"}), "a")
    assert (rules.size_us, rules.grace_us, rules.ahead_us) == (30 * SECOND, 2 * SECOND, 300 * SECOND)
    assert rules.max_future_us is None


def test_a_file_has_a_bound_on_future_event_times() -> None:
    file = {"source": {"type": "file", "path": "x.jsonl"}, "window": {"max_future": "1m"}}
    assert build_stream_rules(settings(**file), "a").max_future_us == 60 * SECOND


@pytest.mark.parametrize(("sealed", "limit"), [(None, 15), (0, 15), (100, 115), (-10, 5)])
def test_the_lead_ends_at_the_seal_plus_grace_plus_ahead(sealed: int | None, limit: int) -> None:
    rules = build_stream_rules(settings(window={"size": "5s", "grace": "5s", "ahead": "10s"}), "a")
    assert (
        make_window_schedule(rules.windows).lead_end_us(None if sealed is None else sealed * SECOND) == limit * SECOND
    )


def test_the_rules_have_the_settings_of_their_own_stream() -> None:
    rules = build_stream_rules(
        settings(
            threshold={"percentile": 99, "refresh": "0 * * * *", "look_back": "12h", "adopt_after": "1h"},
            alerts={"false_alarms": "2/day", "min_outliers": 9, "resolve_after": 7, "repeat_interval": "1h"},
        ),
        "a",
    )
    assert (rules.stream, rules.refresh, rules.percentile) == ("a", "0 * * * *", 99)
    assert rules.look_back_us == 12 * 3600 * SECOND
    assert rules.adopt_after_us == 3600 * SECOND
    assert rules.per_week == 14
    assert (rules.min_outliers, rules.resolve_after) == (9, 7)
    assert build_stream_rules(settings(), "b").refresh == timedelta(minutes=5)


def test_routes_select_the_channels_of_an_incident() -> None:
    channels = build_stream_rules(settings(), "a").channels
    assert channels(Kind.SPIKE, Severity.CRITICAL) == ("night",)
    assert channels(Kind.SPIKE, Severity.WARNING) == ()


def test_the_configuration_hash_depends_on_the_stream_settings_alone() -> None:
    plain = config_hash(settings(), "a")
    assert plain == config_hash(settings(), "a")
    assert plain == config_hash(settings(), "b")
    assert plain != config_hash(settings(alerts={"min_outliers": 9}), "a")
    assert len(plain) == 16
