"""The record of the messages that a bot has posted: the protocol, and a record in memory for test messages."""

from typing import Protocol

from storage.control.posted_messages import PostedMessage


class PostedMessages(Protocol):
    """The messages of incidents in a chat; `storage.control.posted_messages` keeps them in the database.

    Both methods may raise StorageUnavailable.
    """

    def find(self, channel: str, incident_id: int) -> PostedMessage | None:
        """Return the message of an incident on a channel, or None before the first one."""
        ...

    def record(self, channel: str, incident_id: int, posted: PostedMessage) -> None:
        """Record the message of an incident on a channel; it replaces a former one."""
        ...


class PostedInMemory:
    """The messages of the test incident, which is not stored."""

    def __init__(self) -> None:
        self._posted: dict[tuple[str, int], PostedMessage] = {}

    def find(self, channel: str, incident_id: int) -> PostedMessage | None:
        """Return the message of an incident on a channel, or None before the first one."""
        return self._posted.get((channel, incident_id))

    def record(self, channel: str, incident_id: int, posted: PostedMessage) -> None:
        """Record the message of an incident on a channel; it replaces a former one."""
        self._posted[channel, incident_id] = posted
