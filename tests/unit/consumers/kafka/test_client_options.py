"""Options of the Kafka client: user options, defaults and fixed options."""

import pytest

from config.errors import ConfigError
from consumers.kafka.client_options import client_options


def test_user_options_are_merged_with_the_defaults() -> None:
    options = client_options(["a:1", "b:2"], {"fetch_max_bytes": 5, "security_protocol": "SSL"}, "group")
    assert options["fetch_max_bytes"] == 5
    assert options["security_protocol"] == "SSL"
    assert options["bootstrap_servers"] == ["a:1", "b:2"]
    assert options["group_id"] == "group"


def test_client_never_commits_resets_or_reads_uncommitted_by_itself() -> None:
    options = client_options(["a:1"], {}, None)
    assert options["enable_auto_commit"] is False
    assert options["auto_offset_reset"] == "none"
    assert options["isolation_level"] == "read_committed"
    assert options["allow_auto_create_topics"] is False
    assert "value_deserializer" not in options
    assert "key_deserializer" not in options


def test_session_timeout_is_ten_seconds_unless_configured() -> None:
    assert client_options(["a:1"], {}, None)["session_timeout_ms"] == 10_000
    assert client_options(["a:1"], {"session_timeout_ms": 30_000}, None)["session_timeout_ms"] == 30_000


def test_a_member_learns_of_a_reassignment_within_a_second_so_that_a_take_over_ends_in_12_s() -> None:
    assert client_options(["a:1"], {}, None)["heartbeat_interval_ms"] == 1_000
    assert client_options(["a:1"], {"heartbeat_interval_ms": 300}, None)["heartbeat_interval_ms"] == 300


@pytest.mark.parametrize(
    ("option", "value"),
    [("enable_auto_commit", True), ("auto_offset_reset", "latest"), ("isolation_level", "read_uncommitted")],
)
def test_fixed_option_cannot_be_changed(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"kafka.client.{option}"):
        client_options(["a:1"], {option: value}, None)


def test_deserializer_option_is_an_error() -> None:
    with pytest.raises(ConfigError, match="value_deserializer"):
        client_options(["a:1"], {"value_deserializer": bytes}, None)


def test_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean fetch_max_bytes"):
        client_options(["a:1"], {"fetch_max_byte": 1}, None)


def test_misspelled_protocol_is_not_plaintext() -> None:
    with pytest.raises(ConfigError, match=r"SASL-SSL.*one of PLAINTEXT, SSL"):
        client_options(["a:1"], {"security_protocol": "SASL-SSL"}, None)
