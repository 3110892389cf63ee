"""The lookup of topics on the brokers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from kafka import KafkaAdminClient
from kafka import errors as kafka_errors

from config.errors import BrokerUnavailable, ConfigError
from consumers.batch import Partition
from consumers.kafka.client_errors import format_addresses, translate_errors
from consumers.kafka.client_options import open_admin

_MAX_SUGGESTIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic as described by the brokers. A topic that is deleted and re-created gets a new id."""

    identity: str
    partitions: tuple[Partition, ...]


class TopicDirectory:
    """A lookup of topics over one reused connection, which is replaced after an error."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._admin: KafkaAdminClient | None = None

    def describe(self, topics: Sequence[str]) -> dict[str, Topic]:
        """Return the topics by name. Not cached, and does not create topics.

        Raises:
            ConfigError: A topic does not exist. The message suggests the nearest one.
            BrokerUnavailable: No broker answered.
        """
        try:
            with translate_errors(self._options):
                if self._admin is None:
                    self._admin = open_admin(self._options)
                described = {each["name"]: each for each in self._admin.describe_topics(list(topics))}
                for topic in topics:
                    error = kafka_errors.for_code(described[topic]["error_code"])
                    if error is kafka_errors.UnknownTopicOrPartitionError:
                        raise ConfigError(
                            _unknown_topic_message(topic, self._admin.list_topics(), format_addresses(self._options))
                        )
                    if error is not kafka_errors.NoError:
                        raise error(topic)
        except (BrokerUnavailable, ConfigError):
            self.close()
            raise
        return {topic: _parse_topic(described[topic]) for topic in topics}

    def list_names(self) -> list[str]:
        """Return the sorted names of all topics except internal ones.

        Raises:
            ConfigError: The brokers denied access.
            BrokerUnavailable: No broker answered.
        """
        try:
            with translate_errors(self._options):
                if self._admin is None:
                    self._admin = open_admin(self._options)
                described = self._admin.describe_topics()
        except (BrokerUnavailable, ConfigError):
            self.close()
            raise
        return sorted(each["name"] for each in described if not each["is_internal"])

    def close(self) -> None:
        """Close the connection. The next lookup opens another one."""
        admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()


def _unknown_topic_message(topic: str, topics: Sequence[str], addresses: str) -> str:
    matches = get_close_matches(topic, topics, n=_MAX_SUGGESTIONS)
    hint = f"did you mean {' or '.join(matches)}?" if matches else "create it, or correct streams.<name>.source.topics"
    return f"there is no topic {topic!r} on Kafka at {addresses}; {hint}"


def _parse_topic(described: Mapping[str, Any]) -> Topic:
    numbers = sorted(each["partition_index"] for each in described["partitions"])
    return Topic(
        identity=str(described["topic_id"]),
        partitions=tuple(Partition(topic=described["name"], partition=number) for number in numbers),
    )
