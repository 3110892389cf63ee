"""Settings of the channel `kafka`."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from config.channels.base import ChannelSection
from config.channels.http import RequestTimeout
from config.kafka import BrokerAddresses, ClientOptions
from config.masking import mask_options
from config.section import raise_problems

_TOPIC = re.compile(r"^[A-Za-z0-9._-]{1,249}$")


class KafkaChannelSettings(ChannelSection):
    """A channel that writes each notification to a compacted Kafka topic as a CloudEvent."""

    secret_mappings: ClassVar = ("client",)

    type: Literal["kafka"]
    topic: str = Field(description="The topic. It is created with cleanup.policy=compact if it does not exist.")
    bootstrap_servers: BrokerAddresses | None = Field(
        default=None, description="Addresses of the initial brokers, each as host:port. null: kafka.bootstrap_servers."
    )
    client: ClientOptions | None = Field(
        default=None,
        repr=False,
        description="Options of kafka-python. <option>_file names a file with a secret. null: kafka.client.",
    )
    timeout: RequestTimeout = Field(
        default=timedelta(seconds=30), description="Timeout of one attempt, with the connection."
    )

    @model_validator(mode="after")
    def _check_channel(self) -> "KafkaChannelSettings":
        raise_problems(self._problems())
        return self

    def _problems(self) -> Iterator[tuple[str, str]]:
        if not _TOPIC.fullmatch(self.topic) or self.topic in {".", ".."}:
            yield "topic", f"{self.topic!r} is not a topic name; use letters, digits, '.', '_' and '-'"

    @property
    def target(self) -> str:
        """Return the topic."""
        return f"topic {self.topic}"

    def masked(self) -> dict[str, Any]:
        """Return the settings in the form of the file, with the secrets of the client masked."""
        shown = self.model_dump(mode="json")
        return shown | {"client": None if self.client is None else mask_options(self.client)}
