"""The messages of incidents in chats that change them at each transition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from storage.database.engine import Database
from storage.database.tables import posted_messages


@dataclass(frozen=True, slots=True, kw_only=True)
class PostedMessage:
    """The message of an incident in a chat.

    Attributes:
        target: The place as configured.
        place: The place as the chat names it.
        reference: The message, as the chat names it.
        notification_id: The last notification that was delivered into the message.
    """

    target: str
    place: str
    reference: str
    notification_id: str


class PostedMessageStore:
    """Reads and records the messages of incidents in chats."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, channel: str, incident_id: int) -> PostedMessage | None:
        """Return the message of an incident on a channel, or None before the first one."""
        query = sa.select(posted_messages).where(
            posted_messages.c.channel == channel, posted_messages.c.incident_id == incident_id
        )
        with self._db.read() as conn:
            row = conn.execute(query).one_or_none()
        if row is None:
            return None
        return PostedMessage(
            target=row.target, place=row.place, reference=row.reference, notification_id=row.notification_id
        )

    def record(self, channel: str, incident_id: int, posted: PostedMessage) -> None:
        """Record the message of an incident on a channel; it replaces a former one."""
        values: dict[str, Any] = {
            "target": posted.target,
            "place": posted.place,
            "reference": posted.reference,
            "notification_id": posted.notification_id,
        }
        of_message = (posted_messages.c.channel == channel, posted_messages.c.incident_id == incident_id)
        with self._db.write() as conn:
            values["recorded_at_us"] = self._db.now_us(conn)
            if conn.execute(posted_messages.update().where(*of_message).values(**values)).rowcount == 0:
                conn.execute(posted_messages.insert().values(channel=channel, incident_id=incident_id, **values))
