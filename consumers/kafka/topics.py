"""The listing of the topics of a Kafka cluster."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from consumers.kafka.client import KafkaConnection
from consumers.kafka.client_options import client_options
from consumers.kafka.topic_directory import TopicDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicVolume:
    """A topic with its number of partitions and of readable offsets."""

    topic: str
    partitions: int
    records: int


def list_topics(bootstrap_servers: Sequence[str], client: Mapping[str, Any]) -> list[TopicVolume]:
    """List the topics that are visible with these credentials, by name, without internal topics.

    Raises:
        ConfigError: The brokers denied access, or the client rejected an option.
        BrokerUnavailable: No broker answered.
    """
    options = client_options(bootstrap_servers, client, None)
    with closing(TopicDirectory(options)) as directory:
        described = directory.describe(names) if (names := directory.list_names()) else {}
    partitions = [each for topic in described.values() for each in topic.partitions]
    with closing(KafkaConnection(options)) as connection:
        begins, ends = connection.beginning_offsets(partitions), connection.end_offsets(partitions)
    return [
        TopicVolume(
            topic=name,
            partitions=len(topic.partitions),
            records=sum(ends[each] - begins[each] for each in topic.partitions),
        )
        for name, topic in described.items()
    ]
