"""Broker addresses and options of the Kafka client."""

from collections.abc import Callable

import pytest

from config.settings import Settings

from .conftest import ONE_STREAM

Load = Callable[..., Settings]
Problem = Callable[..., str]


@pytest.mark.parametrize("servers", ["[a:1, 'b.c:9092']", "'a:1,b.c:9092'", "'a:1, b.c:9092'"])
def test_brokers_are_a_list_or_comma_separated_text(load_text: Load, servers: str) -> None:
    settings = load_text(f"kafka: {{bootstrap_servers: {servers}}}\n" + ONE_STREAM)
    assert settings.kafka.bootstrap_servers == ("a:1", "b.c:9092")


def test_broker_address_can_be_ipv6(load_text: Load) -> None:
    settings = load_text("kafka: {bootstrap_servers: ['[::1]:9092']}\n" + ONE_STREAM)
    assert settings.kafka.bootstrap_servers == ("[::1]:9092",)


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ("localhost", "'localhost' is not a broker address; write host:port, such as localhost:9092"),
        ("localhost:0", "has a port outside 1 to 65535"),
        ("localhost:65536", "has a port outside 1 to 65535"),
        ("localhost:kafka", "is not a broker address"),
        ("kafka://localhost:9092", "is not a broker address"),
        ("a b:9092", "is not a broker address"),
        ("", "must be a list with at least one entry|must be a text"),
    ],
)
def test_invalid_broker_address_is_an_error(problem_of: Problem, server: str, message: str) -> None:
    line = problem_of(f"kafka: {{bootstrap_servers: '{server}'}}\n" + ONE_STREAM)
    assert line.startswith("outrider.yaml:1: kafka.bootstrap_servers: ")
    assert any(part in line for part in message.split("|"))


@pytest.mark.parametrize(
    "option",
    [
        "enable_auto_commit",
        "auto_offset_reset",
        "isolation_level",
        "value_deserializer",
        "key_deserializer",
        "allow_auto_create_topics",
        "group_id",
        "bootstrap_servers",
    ],
)
def test_option_that_breaks_exactness_is_an_error_with_the_reason(problem_of: Problem, option: str) -> None:
    line = problem_of(f"kafka: {{client: {{{option}: x}}}}\n" + ONE_STREAM)
    assert line.startswith(f"outrider.yaml:1: kafka.client.{option}: cannot be set: ")


def test_every_invalid_option_is_reported(problems_of: Callable[..., tuple[str, ...]]) -> None:
    assert len(problems_of("kafka: {client: {group_id: x, isolation_level: y}}\n" + ONE_STREAM)) == 2


def test_misspelled_option_suggests_the_nearest(problem_of: Problem) -> None:
    line = problem_of("kafka: {client: {security_protocl: SSL}}\n" + ONE_STREAM)
    assert line.endswith("kafka.client.security_protocl: unknown to the Kafka client; did you mean security_protocol?")


def test_unknown_option_without_a_near_match_is_passed_through(load_text: Load) -> None:
    settings = load_text("kafka: {client: {quantum_entanglement: 3}}\n" + ONE_STREAM)
    assert settings.kafka.client == {"quantum_entanglement": 3}


@pytest.mark.parametrize(
    ("option", "message"),
    [("session_timeout_ms: 6s", "must be a whole number"), ("check_crcs: si", "true or false")],
)
def test_option_of_the_wrong_type_is_an_error(problem_of: Problem, option: str, message: str) -> None:
    assert message in problem_of(f"kafka: {{client: {{{option}}}}}\n" + ONE_STREAM)


def test_options_that_are_not_a_mapping_are_an_error(problem_of: Problem) -> None:
    line = problem_of("kafka: {client: SSL}\n" + ONE_STREAM)
    assert line == "outrider.yaml:1: kafka.client: must contain keys and values"
