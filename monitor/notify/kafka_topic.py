"""The Kafka channel: each transition as a CloudEvent in a compacted topic, keyed by its incident."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from config.channels.kafka import KafkaChannelSettings
from config.kafka import KafkaSettings
from config.time_format import format_time
from consumers.kafka.producer import ProduceError, ProduceFailure, RecordWriter
from monitor.notify.delivery import DeliveryResult, FailureReason, delivered, refuse, retry
from monitor.notify.payload import build_body
from storage.control.outbox import Message

_CONTENT_TYPE = "application/cloudevents+json; charset=UTF-8"
_FINAL = frozenset({ProduceFailure.AUTH, ProduceFailure.CLIENT_ERROR})
_CLOSE_MARGIN_S = 5.0


class KafkaTopic:
    """A channel that writes CloudEvents 1.0 in the structured mode."""

    concurrency = 1

    def __init__(
        self, settings: KafkaChannelSettings, kafka: KafkaSettings, read_database_id: Callable[[], str]
    ) -> None:
        self.timeout_s = settings.timeout.total_seconds() + _CLOSE_MARGIN_S
        servers = settings.bootstrap_servers or kafka.bootstrap_servers
        client = kafka.client if settings.client is None else settings.client
        self._writer = RecordWriter(servers, client, settings.topic, timeout_s=settings.timeout.total_seconds())
        self._read_database_id = read_database_id

    def send(self, message: Message) -> DeliveryResult:
        """Write a message; the id of the event is the same at every attempt."""
        event = build_cloud_event(message, self._read_database_id())
        headers: Sequence[tuple[str, bytes]] = [("content-type", _CONTENT_TYPE.encode())]
        try:
            place = self._writer.write(record_key(event), msgspec.json.encode(event), headers)
        except ProduceError as error:
            answer = refuse if error.kind in _FINAL else retry
            return answer(FailureReason(error.kind.value), str(error))
        return delivered(f"written to {place}")

    def close(self) -> None:
        """Close the connections to the brokers."""
        self._writer.close()


def build_cloud_event(message: Message, database_id: str) -> dict[str, Any]:
    """Return a message as a CloudEvent; its data is the body of a webhook."""
    return {
        "specversion": "1.0",
        "id": message.id,
        "source": f"outrider/{database_id}/{message.stream}",
        "type": f"outrider.incident.{message.transition}",
        "subject": f"incident/{message.incident_id}",
        "time": format_time(message.created_at_us),
        "datacontenttype": "application/json",
        # The extension `sequence`: it grows with the transitions of an incident, also if a record is repeated later.
        "sequence": f"{message.sequence:019d}",
        "data": msgspec.Raw(build_body(message)),
    }


def record_key(event: dict[str, Any]) -> bytes:
    """Return the key of the record: the database and the incident, so that the topic keeps its last transition."""
    database, _, _ = event["source"].removeprefix("outrider/").partition("/")
    return f"{database}/{event['subject']}".encode()
