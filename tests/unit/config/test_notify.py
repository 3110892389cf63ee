"""Notification channels and routes."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from config.channels.webhook import WebhookChannelSettings
from config.settings import NotifySettings, Settings

from .conftest import ONE_STREAM

Load = Callable[..., Settings]
Problem = Callable[..., str]
CHANNELS = "channels: {a: {type: log}, b: {type: log}}"


@pytest.fixture
def notify(load_text: Load) -> Callable[[str], NotifySettings]:
    return lambda keys: load_text(f"notify: {{{keys}}}\n" + ONE_STREAM).notify


Notify = Callable[[str], NotifySettings]


def test_every_channel_is_selected_without_routes(notify: Notify) -> None:
    told = notify(CHANNELS).channels_for(stream="payments", kind="spike", severity="warning")
    assert told == ("a", "b")


def test_route_matches_if_every_key_matches(notify: Notify) -> None:
    routed = notify(
        f"{CHANNELS}, routes: [{{match: {{stream: payments, kind: [spike, drift], severity: critical}}, "
        "channels: [b]}]"
    )
    assert routed.channels_for(stream="payments", kind="drift", severity="critical") == ("b",)
    assert routed.channels_for(stream="payments", kind="drift", severity="warning") == ()
    assert routed.channels_for(stream="payments", kind="gap", severity="critical") == ()
    assert routed.channels_for(stream="other", kind="drift", severity="critical") == ()


def test_route_without_match_matches_every_incident(notify: Notify) -> None:
    routed = notify(f"{CHANNELS}, routes: [{{channels: a}}]")
    assert routed.channels_for(stream="payments", kind="gap", severity="warning") == ("a",)


def test_channel_of_two_routes_is_selected_once(notify: Notify) -> None:
    routed = notify(f"{CHANNELS}, routes: [{{channels: [a, b]}}, {{channels: [b]}}]")
    assert routed.channels_for(stream="payments", kind="gap", severity="warning") == ("a", "b")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            "routes: [{channels: [ops]}]",
            "notify.routes[0].channels: there is no channel 'ops'; known channels: none",
        ),
        (f"{CHANNELS}, routes: [{{channels: [c]}}]", "there is no channel 'c'; known channels: a, b"),
        (
            f"{CHANNELS}, routes: [{{channels: []}}]",
            "notify.routes[0].channels: must be a list with at least one",
        ),
        (f"{CHANNELS}, routes: [{{}}]", "notify.routes[0].channels: is missing"),
        (
            f"{CHANNELS}, routes: [{{match: {{knd: x}}, channels: [a]}}]",
            "did you mean notify.routes[0].match.kind?",
        ),
        (f"{CHANNELS}, routes: [{{match: {{kind: spik}}, channels: [a]}}]", "did you mean spike?"),
        (f"{CHANNELS}, routes: [{{match: {{severity: bad}}, channels: [a]}}]", "choose warning or critical"),
        (
            f"{CHANNELS}, routes: [{{match: {{stream: payment}}, channels: [a]}}]",
            "notify.routes[0].match.stream: there is no stream 'payment'; did you mean payments?",
        ),
        (f"{CHANNELS}, routes: {{}}", "notify.routes: must be a list"),
        (
            "channels: {ops: {type: webhok}}",
            "notify.channels.ops: 'webhok' is not known; did you mean webhook?",
        ),
        (
            "channels: {ops: {}}",
            "ops: needs a type: log, webhook, alertmanager, pagerduty, slack, email, kafka or apprise",
        ),
        (
            "channels: {ops: {type: webhook}}",
            "notify.channels.ops.url: is missing; a webhook needs url or url_file",
        ),
        ("channels: {ops: {type: webhook, url: 'ftp://x'}}", "must be an http:// or https:// address"),
        ("channels: {'a.b': {type: log}}", "'a.b' is not a channel name"),
        ("max_age: 1", "notify.max_age: 1 has no unit"),
    ],
)
def test_invalid_route_or_channel_is_an_error(problem_of: Problem, keys: str, message: str) -> None:
    assert message in problem_of(f"notify: {{{keys}}}\n" + ONE_STREAM)


WEBHOOK = "type: webhook, url: 'https://hooks.example.org/x'"


def test_webhook_has_a_timeout_of_10_seconds_and_no_secret_by_default(notify: Notify) -> None:
    channel = notify(f"channels: {{ops: {{{WEBHOOK}}}}}").channels["ops"]
    assert isinstance(channel, WebhookChannelSettings)
    assert (channel.timeout, channel.secret, channel.headers, channel.concurrency) == (timedelta(seconds=10), "", {}, 4)


def test_message_is_retried_for_a_day_by_default(notify: Notify) -> None:
    assert notify("deadline: 30m").deadline == timedelta(minutes=30)
    assert notify("max_age: 1h").deadline == timedelta(hours=24)


def test_log_channel_can_be_in_a_route(notify: Notify) -> None:
    routed = notify(f"{CHANNELS}, routes: [{{channels: [log]}}]")
    assert routed.channels_for(stream="payments", kind="gap", severity="warning") == ("log",)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (f"{CHANNELS}, routes: [{{channels: [bb]}}]", "there is no channel 'bb'; did you mean b?"),
        ("channels: {log: {" + WEBHOOK + "}}", "'log' is always the log; give the channel another name"),
        ("channels: {ops: {type: webhook, url: 'http://h:99999/x'}}", "ops.url: has a port or a bracket that cannot"),
        ("channels: {ops: {type: webhook, url: 'https:///x'}}", "ops.url: must be an http:// or https:// address"),
        ("channels: {ops: {type: webhook, url: 'https://h/ü'}}", "ops.url: contains a space or a non-ASCII character"),
        ("channels: {ops: {" + WEBHOOK + ", timeout: 6m}}", "ops.timeout: must be at most 5m"),
        ("channels: {ops: {" + WEBHOOK + ", concurrency: 0}}", "ops.concurrency: must be at least 1"),
        ("channels: {ops: {" + WEBHOOK + ", headers: {Host: x}}}", "headers.Host: is set by Outrider itself"),
        ("channels: {ops: {" + WEBHOOK + ", headers: {'a b': x}}}", "'a b' is not a valid header name"),
        ("channels: {ops: {" + WEBHOOK + ', headers: {A: "x\\ny"}}}', "headers.A: has an invalid value"),
        ("channels: {ops: {" + WEBHOOK + ", headers: {A: x, a: y}}}", "contains 'a' twice"),
        ("channels: {ops: {" + WEBHOOK + ", secrte: x}}", "did you mean notify.channels.ops.secret?"),
    ],
)
def test_invalid_webhook_is_an_error(problem_of: Problem, keys: str, message: str) -> None:
    assert message in problem_of(f"notify: {{{keys}}}\n" + ONE_STREAM)
