"""Settings of the channels alertmanager, pagerduty, kafka and apprise: errors, secrets and masks."""

from collections.abc import Callable
from pathlib import Path

import pytest

from config.settings import Settings

from .conftest import ONE_STREAM

Load = Callable[..., Settings]
Problem = Callable[..., str]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("type: alertmanager", "ops.urls: is missing"),
        ("type: alertmanager, urls: [ftp://x]", "ops.urls: must be an http:// or https:// address"),
        ("type: alertmanager, urls: ['http://x'], labels: {kind: x}", "labels.kind: is set by Outrider itself"),
        ("type: alertmanager, urls: ['http://x'], labels: {a-b: x}", "'a-b' is not a label name"),
        ("type: alertmanager, urls: ['http://x'], labels: {a: ''}", "labels.a: must not be empty"),
        ("type: alertmanager, urls: ['http://x'], interval: 10ms", "interval: must be at least 1s"),
        ("type: pagerduty", "routing_key: is missing; pagerduty needs routing_key or routing_key_file"),
        ("type: pagerduty, routing_key: x, url: nowhere", "url: must be an http:// or https:// address"),
        ("type: kafka", "ops.topic: is missing"),
        ("type: kafka, topic: 'a b'", "'a b' is not a topic name"),
        ("type: kafka, topic: a, bootstrap_servers: [x]", "'x' is not a broker address"),
        ("type: kafka, topic: a, client: {security_protocl: SSL}", "did you mean security_protocol?"),
        ("type: apprise", "url: is missing; apprise needs url or url_file"),
        ("type: apprise, url: nothing", "must be an address in Apprise's form"),
        ("type: apprise, url: 'PagerDuty://key'", "cannot resolve an incident of pagerduty; use type: pagerduty"),
        ("type: apprise, url: 'opsgenie://key'", "cannot resolve an incident of opsgenie; use type: alertmanager"),
    ],
)
def test_invalid_channel_is_an_error(problem_of: Problem, keys: str, message: str) -> None:
    assert message in problem_of(f"notify: {{channels: {{ops: {{{keys}}}}}}}\n" + ONE_STREAM)


def test_secrets_are_read_from_files_and_masked(load_text: Load, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush-hush\n")
    channels = f"""\
notify:
  channels:
    pd: {{type: pagerduty, routing_key_file: {secret}}}
    am: {{type: alertmanager, urls: ['http://ann:hush-hush@am:9093'], headers: {{Authorization_file: {secret}}}}}
    bus: {{type: kafka, topic: incidents, client: {{sasl_plain_password_file: {secret}}}}}
    other: {{type: apprise, url_file: {secret}}}
"""
    with pytest.raises(Exception, match="must be an address in Apprise's form") as raised:
        load_text(channels + ONE_STREAM)
    assert "hush" not in str(raised.value)
    secret.write_text("ntfy://hush-hush\n")
    settings = load_text(channels + ONE_STREAM)
    assert settings.notify.channels["pd"].routing_key == "ntfy://hush-hush"  # type: ignore[union-attr]
    assert "hush" not in str(settings.masked()["notify"])
    assert "hush" not in "".join(each.target for each in settings.notify.channels.values())
    assert "hush" not in repr(settings.notify)


def test_alerts_are_repeated_every_minute_by_default(load_text: Load) -> None:
    settings = load_text("notify: {channels: {am: {type: alertmanager, urls: 'http://a,http://b'}}}\n" + ONE_STREAM)
    shown = settings.masked()["notify"]["channels"]["am"]
    assert (shown["interval"], shown["urls"]) == ("1m", ["http://a", "http://b"])
