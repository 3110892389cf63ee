"""Translation of the Kafka client's errors into the errors of Outrider, by the reaction of the caller."""

import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import zstandard
from kafka import errors as kafka_errors
from kafka.net.sasl import SASL_MECHANISMS

from config.errors import BrokerUnavailable, ConfigError
from consumers.kafka.access import SaslMechanism, find_refusal

# Exceptions raised by a damaged or malformed batch: checksum, compression codec, lengths, header names.
READ_ERRORS = (
    kafka_errors.CorruptRecordError,
    zlib.error,
    zstandard.ZstdError,
    struct.error,
    ValueError,
    LookupError,
    EOFError,
    OSError,
    MemoryError,
    RuntimeError,
)
PERMANENT_ERRORS = (
    kafka_errors.AuthorizationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
    kafka_errors.KafkaConfigurationError,
    kafka_errors.UnsupportedCodecError,
    kafka_errors.UnsupportedVersionError,
    kafka_errors.InvalidTopicError,
    kafka_errors.InvalidGroupIdError,
    kafka_errors.InvalidSessionTimeoutError,
    kafka_errors.InconsistentGroupProtocolError,
    kafka_errors.FencedInstanceIdError,
    kafka_errors.GroupMaxSizeReachedError,
)


@contextmanager
def translate_errors(options: Mapping[str, Any]) -> Iterator[None]:
    """Translate the client's errors: ConfigError if an operator has to act, otherwise BrokerUnavailable."""
    try:
        yield
    except PERMANENT_ERRORS as error:
        raise build_config_error(format_addresses(options), error) from error
    except (kafka_errors.KafkaError, OSError) as error:
        report = find_refusal(options, lambda: _make_sasl_mechanism(options))
        if report.refusal is not None:
            raise ConfigError(f"Kafka refuses access: {report.refusal}") from error
        raise BrokerUnavailable(
            f"Kafka at {format_addresses(options)} does not answer ({report.absence or error}); "
            "check kafka.bootstrap_servers and that the broker runs"
        ) from error


def _make_sasl_mechanism(options: Mapping[str, Any]) -> SaslMechanism:
    host = options["bootstrap_servers"][0].rpartition(":")[0]
    mechanism: SaslMechanism = SASL_MECHANISMS[options["sasl_mechanism"]](host=host, **options)
    return mechanism


def build_config_error(addresses: str, error: Exception) -> ConfigError:
    """Return the error for an answer that does not change until an operator acts."""
    return ConfigError(f"Kafka at {addresses} cannot be used like this: {error}; check kafka.client")


def format_addresses(options: Mapping[str, Any]) -> str:
    """Return the addresses of the brokers, separated by commas."""
    return ", ".join(options["bootstrap_servers"])
