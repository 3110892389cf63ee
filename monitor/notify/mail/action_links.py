"""The links of a mail that act on its incident."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monitor.notify.mail.mail import MailLink
from monitor.notify.signed_links import LINK_LIFETIME_US, LinkClaim, LinkVerb, sign_link
from storage.control.outbox import Message

_LABELS: Mapping[LinkVerb, str] = {
    "acknowledge": "Acknowledge: I take care of it",
    "false_alarm": "False alarm: nothing was wrong",
}
_BOTH: Sequence[LinkVerb] = ("acknowledge", "false_alarm")
_FALSE_ALARM: Sequence[LinkVerb] = ("false_alarm",)
_VERBS: Mapping[str, Sequence[LinkVerb]] = {
    "opened": _BOTH,
    "escalated": _BOTH,
    "repeated": _BOTH,
    "reopened": _BOTH,
    "acknowledged": _FALSE_ALARM,
    "resolved": _FALSE_ALARM,
}
"""The verbs that a person may want after a transition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionLinks:
    """Makes the links of mails.

    Attributes:
        server_url: The address of the page, without a slash at its end.
        secret: The secret that signs the links.
    """

    server_url: str
    secret: str

    def build(self, message: Message, database_id: str) -> list[MailLink]:
        """Return the links of a message; the same at every attempt, since they expire 7 days after it was stored."""
        return [
            MailLink(label=_LABELS[verb], url=self._build_url(message, database_id, verb))
            for verb in _VERBS.get(message.transition, ())
        ]

    def _build_url(self, message: Message, database_id: str, verb: LinkVerb) -> str:
        claim = LinkClaim(
            database_id=database_id,
            incident_id=message.incident_id,
            verb=verb,
            channel=message.channel,
            expires_at_us=message.created_at_us + LINK_LIFETIME_US,
        )
        return f"{self.server_url}/links/{sign_link(claim, self.secret)}"
