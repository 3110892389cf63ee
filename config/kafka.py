"""Settings of the Kafka cluster and the client's options."""

import re
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from config.section import Section, raise_problems, split_list
from config.units import Size

_SERVER_PATTERN = re.compile(r"^(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_.-]+):([0-9]{1,6})$")

# Options that would break the guarantee that each event is scored and stored exactly once.
_REJECTED_OPTIONS = {
    "enable_auto_commit": "positions are committed in the database together with the scores; leave it out",
    "auto_offset_reset": "a silent reset loses or repeats events: use source.start or `offsets reset`",
    "isolation_level": "only committed events are read, so that no aborted event is scored; leave it out",
    "value_deserializer": "event.format decodes records, and undecodable ones become dead letters; leave it out",
    "key_deserializer": "keys are decoded by Outrider, so that an invalid one cannot stop the stream; leave it out",
    "allow_auto_create_topics": "a mistyped topic must be an error, not a new topic; leave it out",
    "group_id": "every stream has its own group; set streams.<name>.source.group_id",
    "bootstrap_servers": "set kafka.bootstrap_servers, one level up",
}
# These names serve to detect misspellings. Other names that are not similar are passed to the client.
_KNOWN_OPTIONS = (
    "api_version",
    "bootstrap_timeout_ms",
    "check_crcs",
    "client_dns_lookup",
    "client_id",
    "client_rack",
    "connections_max_idle_ms",
    "consumer_timeout_ms",
    "enable_incremental_fetch_sessions",
    "exclude_internal_topics",
    "fetch_max_bytes",
    "fetch_max_wait_ms",
    "fetch_min_bytes",
    "group_instance_id",
    "heartbeat_interval_ms",
    "max_in_flight_requests_per_connection",
    "max_partition_fetch_bytes",
    "max_poll_interval_ms",
    "max_poll_records",
    "metadata_max_age_ms",
    "metrics_enabled",
    "partition_assignment_strategy",
    "proxy_url",
    "receive_buffer_bytes",
    "receive_message_max_bytes",
    "reconnect_backoff_max_ms",
    "reconnect_backoff_ms",
    "request_timeout_ms",
    "retry_backoff_ms",
    "sasl_kerberos_domain_name",
    "sasl_kerberos_name",
    "sasl_kerberos_service_name",
    "sasl_mechanism",
    "sasl_oauth_token_provider",
    "sasl_plain_password",
    "sasl_plain_password_file",
    "sasl_plain_username",
    "security_protocol",
    "send_buffer_bytes",
    "session_timeout_ms",
    "socket_options",
    "socks5_proxy",
    "ssl_cafile",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_ciphers",
    "ssl_crlfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_password_file",
)
_NUMERIC_OPTION = re.compile(r"(?:_ms|_bytes|_records|_per_connection)$")
_BOOLEAN_OPTIONS = frozenset(
    {
        "check_crcs",
        "enable_incremental_fetch_sessions",
        "exclude_internal_topics",
        "metrics_enabled",
        "ssl_check_hostname",
    }
)


def _check_servers(value: object) -> tuple[str, ...]:
    servers = split_list(value)
    for server in servers:
        match = _SERVER_PATTERN.fullmatch(server)
        if match is None:
            raise ValueError(f"{server!r} is not a broker address; write host:port, such as {_suggest_address(server)}")
        if not 1 <= int(match[2]) <= 65_535:
            raise ValueError(f"{server!r} has a port outside 1 to 65535")
    return servers


def _suggest_address(server: str) -> str:
    return f"{server}:9092" if re.fullmatch(r"[A-Za-z0-9_.-]+", server) else "localhost:9092"


def _check_client_options(value: object) -> object:
    if not isinstance(value, dict):
        return value
    raise_problems((name, message) for name in value if (message := _option_problem(name)))
    options, problems = {}, []
    for name, option in value.items():
        try:
            options[name] = _convert_option(name, option)
        except ValueError as error:
            problems.append((name, str(error)))
    raise_problems(problems)
    return options


def _option_problem(name: str) -> str | None:
    if name in _REJECTED_OPTIONS:
        return f"cannot be set: {_REJECTED_OPTIONS[name]}"
    matches = get_close_matches(name, _KNOWN_OPTIONS, n=1, cutoff=0.85)
    if name not in _KNOWN_OPTIONS and matches:
        return f"unknown to the Kafka client; did you mean {matches[0]}?"
    return None


def _convert_option(name: str, option: object) -> object:
    """Convert an option to the type that the client requires. Environment variables are always texts."""
    if not isinstance(option, str):
        return option
    if _NUMERIC_OPTION.search(name):
        if not option.isdecimal():
            raise ValueError("must be a whole number")
        return int(option)
    if name in _BOOLEAN_OPTIONS:
        if option.lower() not in {"true", "false"}:
            raise ValueError("must be true or false")
        return option.lower() == "true"
    return option


BrokerAddresses = Annotated[
    tuple[str, ...],
    BeforeValidator(_check_servers),
    WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}),
]
ClientOptions = Annotated[dict[str, Any], BeforeValidator(_check_client_options)]


class KafkaSettings(Section):
    """The Kafka cluster of all streams."""

    bootstrap_servers: BrokerAddresses = Field(
        default=("localhost:9092",), description="Addresses of the initial brokers, each as host:port."
    )
    client: ClientOptions = Field(
        default={"security_protocol": "PLAINTEXT"},
        repr=False,
        description="Options of kafka-python. <option>_file names a file with a secret.",
    )
    max_decompressed_size: Size = Field(
        default=64 * 2**20,
        ge=1,
        description="The maximum size of a decompressed record batch. Larger batches are dead letters.",
    )
