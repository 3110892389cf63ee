"""A message as a mail. Pure: the same message makes the same mail at every attempt.

An incident is one thread: all its mails have one subject and refer to one root. The id of a mail is that of its
message, so that a mail program recognises a repeated one.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr

from monitor.notify.escaping import escape_plain, shorten
from monitor.notify.facts import MessageFacts
from monitor.notify.wording import describe_state, list_facts

_MAX_SUBJECT_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class MailLink:
    """A link of a mail with its label."""

    label: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MailParts:
    """The parts of a mail beside the facts of its message.

    Attributes:
        message_id: Id of the message, the same at every attempt.
        created_at_us: Time at which the message was stored.
        channel: Name of the channel.
        sender: Address of the sender, with or without a name.
        recipients: Addresses of the recipients.
        database_id: Id of the database: ids of incidents repeat in other databases.
        page: Link to the incident's page, or None.
        actions: Links that act on the incident.
        own_text: A text that takes the place of the summary and the list of facts, or None.
    """

    message_id: str
    created_at_us: int
    channel: str
    sender: str
    recipients: Sequence[str]
    database_id: str
    page: MailLink | None = None
    actions: Sequence[MailLink] = ()
    own_text: str | None = None

    @property
    def links(self) -> list[MailLink]:
        """Return all links in their order."""
        return [*([] if self.page is None else [self.page]), *self.actions]

    @property
    def domain(self) -> str:
        """Return the domain of the sender."""
        return parseaddr(self.sender)[1].rpartition("@")[2]


def build_mail(facts: MessageFacts, parts: MailParts) -> EmailMessage:
    """Return the mail of a message, as text and as HTML.

    Texts of events cannot add a header: line breaks and other control characters become spaces.
    """
    mail = EmailMessage(policy=SMTP)
    mail["From"] = parts.sender
    mail["To"] = ", ".join(parts.recipients)
    mail["Subject"] = shorten(_to_one_line(format_subject(facts, parts.channel)), _MAX_SUBJECT_CHARACTERS)
    mail["Date"] = format_datetime(datetime.fromtimestamp(parts.created_at_us // 1_000_000, UTC))
    mail["Message-ID"] = f"<{parts.message_id}@{parts.domain}>"
    if not facts.test:
        # No mail has this id: the first mail of an incident may be muted, or too old to be sent.
        root = f"<incident-{facts.incident_id}.{parts.database_id}@{parts.domain}>"
        mail["In-Reply-To"] = root
        mail["References"] = root
    # A mail of a program: no out-of-office answers (RFC 3834).
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    # Servers without 8BITMIME take it too, and no line is longer than they accept.
    mail.set_content(_build_text(facts, parts), cte="quoted-printable")
    mail.add_alternative(_build_html(facts, parts), subtype="html", cte="quoted-printable")
    mail.set_boundary(f"=_{parts.message_id}")
    return mail


def format_subject(facts: MessageFacts, channel: str) -> str:
    """Return the subject of an incident, the same for all its transitions: mail programs thread by it."""
    if facts.test:
        return f"Outrider: test of the channel {channel}"
    return f"Outrider: {facts.kind.replace('_', ' ')} on {facts.stream} (incident {facts.incident_id})"


def _to_one_line(text: str) -> str:
    return " ".join(escape_plain(text).split())


def _build_text(facts: MessageFacts, parts: MailParts) -> str:
    links = "".join(f"\n{link.label}:\n{link.url}\n" for link in parts.links)
    return f"{parts.own_text or _list_as_text(facts)}\n{links}\n{_format_end(facts, parts)}\n"


def _list_as_text(facts: MessageFacts) -> str:
    listed = "\n".join(f"{label + ':':20}{_to_one_line(value)}" for label, value in list_facts(facts))
    return f"{_to_one_line(facts.summary)}\n\n{listed}"


def _build_html(facts: MessageFacts, parts: MailParts) -> str:
    """Return the mail as HTML without images, scripts and addresses of other servers."""
    links = "".join(f'<p><a href="{html.escape(link.url)}">{html.escape(link.label)}</a></p>\n' for link in parts.links)
    return (
        '<!DOCTYPE html>\n<html lang="en"><body style="font-family:sans-serif;font-size:14px">\n'
        f"{_list_as_html(facts) if parts.own_text is None else _text_as_html(parts.own_text)}{links}"
        f'<p style="color:#555">{html.escape(_format_end(facts, parts))}</p>\n</body></html>\n'
    )


def _list_as_html(facts: MessageFacts) -> str:
    rows = "".join(
        f'<tr><td style="padding:2px 16px 2px 0;color:#555">{html.escape(label)}</td>'
        f"<td>{html.escape(_to_one_line(value))}</td></tr>\n"
        for label, value in list_facts(facts)
    )
    summary = html.escape(_to_one_line(facts.summary))
    return f'<p style="font-size:16px"><strong>{summary}</strong></p>\n<table>\n{rows}</table>\n'


def _text_as_html(text: str) -> str:
    return f'<div style="white-space:pre-wrap">{html.escape(text)}</div>\n'


def _format_end(facts: MessageFacts, parts: MailParts) -> str:
    if facts.test:
        return "This is a test of `outrider notify test`. It belongs to no incident."
    changed = f"Incident {facts.incident_id}: {describe_state(facts)} since {facts.at}."
    return (
        f"{changed} The links that act ask for a confirmation and work once, for 7 days." if parts.actions else changed
    )
