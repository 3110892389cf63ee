"""The text of the initial configuration written by `init`."""

from datetime import timedelta

import pytest
import yaml

from config.document import parse_document
from config.loading import load_document
from config.sizing import EventRate, EventVolume, resolve_auto
from config.starter_file import StarterConfig, quote_scalar, render_starter

TOPIC = EventVolume(available=50_000, grows=True, rate=EventRate(median_s=20, mean_s=20))


def starter(**others: object) -> StarterConfig:
    given = {
        "stream": "payments",
        "features": ("amount",),
        "advice": resolve_auto(TOPIC, 1),
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


@pytest.mark.parametrize("grows", [True, False])
@pytest.mark.parametrize("rate_s", [1_000, 3, 0.3, 0.01, 0.0001])
def test_every_recommended_size_is_accepted(rate_s: float, grows: bool) -> None:
    volume = EventVolume(available=5_000, grows=grows, rate=EventRate(median_s=rate_s, mean_s=rate_s))
    own = starter(advice=resolve_auto(volume, 1))
    stream = settings(render_starter(own)).streams["payments"]
    assert (stream.window.size, stream.threshold.look_back) == (own.advice.window, own.advice.look_back)
    assert (stream.model.warm_up, stream.threshold.percentile) == (own.advice.warm_up, own.advice.percentile)


def test_long_windows_have_one_threshold_each() -> None:
    volume = EventVolume(available=5_000, grows=True, rate=EventRate(median_s=1 / 300, mean_s=1 / 300))
    stream = settings(render_starter(starter(advice=resolve_auto(volume, 1)))).streams["payments"]
    assert stream.threshold.refresh == stream.window.size == timedelta(hours=1)


def test_window_of_few_events_needs_three_outliers() -> None:
    assert settings(render_starter(starter(advice=resolve_auto(TOPIC, 1)))).streams["payments"].alerts.min_outliers == 5
    volume = EventVolume(available=5_000, grows=True, rate=EventRate(median_s=1, mean_s=1))
    text = render_starter(starter(advice=resolve_auto(volume, 1)))
    assert settings(text).streams["payments"].alerts.min_outliers == 3


def test_grace_covers_late_events() -> None:
    stream = settings(render_starter(starter(lateness_us=42_000_000))).streams["payments"]
    assert stream.window.grace == timedelta(minutes=1)


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
