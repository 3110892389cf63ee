"""The initial configuration written by `init`: recommended sizes and rendered text."""

from datetime import timedelta

import pytest
import yaml

from config.document import parse_document
from config.loading import load_document
from config.sizing import EventVolume, recommend_sizes
from config.starter_file import StarterConfig, quote_scalar, render_starter

TOPIC = EventVolume(available=50_000, grows=True, rate_s=20)


@pytest.mark.parametrize(
    ("rate_s", "window"),
    [(1_000, "1m"), (20, "1m"), (3, "5m"), (0.3, "15m"), (0.01, "6h"), (0.0001, "24h")],
)
def test_recommended_window_has_an_expected_outlier(rate_s: float, window: str) -> None:
    sizes = {"1m": 60, "5m": 300, "15m": 900, "6h": 21_600, "24h": 86_400}
    advice = recommend_sizes(EventVolume(available=50_000, grows=True, rate_s=rate_s), 3)
    assert advice.window == timedelta(seconds=sizes[window])


def test_short_file_gets_a_short_window() -> None:
    assert recommend_sizes(EventVolume(available=16_000, grows=False, rate_s=20), 18).window == timedelta(seconds=10)


def test_window_without_times_is_the_default() -> None:
    advice = recommend_sizes(EventVolume(available=50_000, grows=True), 3)
    assert advice.window == timedelta(minutes=1)
    assert "the rate of events is not known" in advice.window_reason


@pytest.mark.parametrize(
    ("volume", "warm_up"),
    [
        (TOPIC, 10_000),
        (EventVolume(available=1_000, grows=True, rate_s=100), 10_000),
        (EventVolume(available=1_000, grows=True, rate_s=1), 4_600),
        (EventVolume(available=3, grows=True, rate_s=0.001), 500),
        (EventVolume(available=3, grows=True), 10_000),
        (EventVolume(available=30_000, grows=False, rate_s=1), 10_000),
        (EventVolume(available=12_000, grows=False, rate_s=1), 6_000),
        (EventVolume(available=900, grows=False, rate_s=1), 900),
    ],
)
def test_warm_up_is_available_or_arrives_within_an_hour(volume: EventVolume, warm_up: int) -> None:
    assert recommend_sizes(volume, 3).warm_up == warm_up


@pytest.mark.parametrize(("available", "percentile"), [(10_000, 99.5), (2_500, 99), (1_000, 98), (400, 95), (60, 90)])
def test_percentile_is_supported_by_the_warm_up(available: int, percentile: float) -> None:
    assert recommend_sizes(EventVolume(available=available, grows=False, rate_s=1), 2).percentile == percentile


def test_many_features_require_a_longer_warm_up() -> None:
    assert recommend_sizes(TOPIC, 1_500).warm_up == 15_000


def test_grace_covers_late_events() -> None:
    assert recommend_sizes(
        EventVolume(available=50_000, grows=True, rate_s=20, lateness_us=42_000_000), 3
    ).grace == timedelta(minutes=1)


def starter(**others: object) -> StarterConfig:
    given = {
        "stream": "payments",
        "features": ("amount",),
        "advice": recommend_sizes(TOPIC, 1),
        "sampled_events": 5_000,
    }
    source = {"servers": ("localhost:9092",), "topic": "payments"}
    return StarterConfig(**(given | source | others))  # type: ignore[arg-type]


def settings(text: str, **env: str):  # type: ignore[no-untyped-def]
    return load_document(parse_document(text, "outrider.yaml"), env, over={})


def test_rendered_text_round_trips() -> None:
    own = starter(
        features=("amount", "card.age_days"),
        time="ts",
        key="customer_id",
        event_id="payment_id",
        rejected_fields=[("currency", "text, such as 'EUR'")],
    )
    stream = settings(render_starter(own)).streams["payments"]
    assert stream.source.topics == ("payments",)
    assert stream.event.features == ("amount", "card.age_days")
    assert (stream.event.time.field, stream.event.key, stream.event.id) == ("ts", "customer_id", "payment_id")
    assert stream.model.warm_up == 10_000
    assert "#   currency: text, such as 'EUR'" in render_starter(own)


@pytest.mark.parametrize("rate_s", [1_000, 3, 0.3, 0.01, 0.0001])
def test_every_recommended_window_is_accepted(rate_s: float) -> None:
    own = starter(advice=recommend_sizes(EventVolume(available=5, grows=True, rate_s=rate_s), 1))
    assert settings(render_starter(own)).streams["payments"].window.size == own.advice.window


NAMES = [
    "größe",
    "温度",
    "😀",
    "null",
    "yes",
    "a b",
    "a:b",
    '"x"',
    "a\\b",
    "${HOME}",
    "#x",
    "- x",
    "x\ny",
    "\x85\u2028",
    "1e5",
]


@pytest.mark.parametrize("name", NAMES)
def test_quoted_names_round_trip(name: str) -> None:
    own = starter(features=(name,), time=name, rejected_fields=[(name, f"text, such as {name}")])
    stream = settings(render_starter(own)).streams["payments"]
    assert stream.event.features == (name,)
    assert stream.event.time.field == name


def test_plain_names_are_not_quoted() -> None:
    assert quote_scalar("card.age_days") == "card.age_days"


def test_secret_option_stays_a_variable() -> None:
    text = render_starter(starter(client={"sasl_mechanism": "PLAIN", "sasl_plain_password": "${KAFKA_PASSWORD}"}))
    assert yaml.safe_load(text)["kafka"]["client"]["sasl_plain_password"] == "${KAFKA_PASSWORD}"
    assert settings(text, KAFKA_PASSWORD="s3cret").kafka.client["sasl_plain_password"] == "s3cret"


def test_missing_is_mean_if_many_events_are_incomplete() -> None:
    assert settings(render_starter(starter(complete_share=0.9))).streams["payments"].event.missing == "mean"
    assert settings(render_starter(starter())).streams["payments"].event.missing == "reject"


def test_file_source_has_no_kafka_section() -> None:
    text = render_starter(starter(topic=None, path="a folder/events.csv"))
    assert "kafka" not in yaml.safe_load(text)
    assert str(settings(text).streams["payments"].source.path) == "a folder/events.csv"
