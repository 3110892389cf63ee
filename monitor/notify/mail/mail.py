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
_ACTIONS_END = "The links that act ask for a confirmation and work once, for 7 days."


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
    mail = _start_mail(parts, format_subject(facts, parts.channel))
    if not facts.test:
        mail["In-Reply-To"] = _root_id(facts, parts)
        mail["References"] = _root_id(facts, parts)
    end = _format_end(facts, parts)
    _set_bodies(mail, parts, f"{_text_section(facts, parts)}\n{end}\n", _html_page(_html_section(facts, parts), end))
    return mail


def build_group_mail(sections: Sequence[tuple[MessageFacts, MailParts]]) -> EmailMessage:
    """Return the mail of several new incidents; the parts of the first one have its id, sender and recipients.

    It refers to the roots of all incidents, so that the later mails of each of them continue this thread.
    """
    _, parts = sections[0]
    mail = _start_mail(parts, format_group_subject([facts for facts, _ in sections]))
    mail["References"] = " ".join(_root_id(facts, each) for facts, each in sections)
    text = f"\n{'-' * 40}\n\n".join(_text_section(*section) for section in sections)
    page = '<hr style="border:0;border-top:1px solid #ccc">\n'.join(_html_section(*section) for section in sections)
    end = f"{len(sections)} incidents that opened together. {_ACTIONS_END if parts.actions else ''}".rstrip()
    _set_bodies(mail, parts, f"{text}\n{end}\n", _html_page(page, end))
    return mail


def format_group_subject(opened: Sequence[MessageFacts]) -> str:
    """Return the subject of a mail of several incidents."""
    streams = list(dict.fromkeys(facts.stream for facts in opened))
    return f"Outrider: {len(opened)} incidents on {', '.join(streams)}"


def _start_mail(parts: MailParts, subject: str) -> EmailMessage:
    mail = EmailMessage(policy=SMTP)
    mail["From"] = parts.sender
    mail["To"] = ", ".join(parts.recipients)
    mail["Subject"] = shorten(_to_one_line(subject), _MAX_SUBJECT_CHARACTERS)
    mail["Date"] = format_datetime(datetime.fromtimestamp(parts.created_at_us // 1_000_000, UTC))
    mail["Message-ID"] = f"<{parts.message_id}@{parts.domain}>"
    # A mail of a program: no out-of-office answers (RFC 3834).
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    return mail


def _root_id(facts: MessageFacts, parts: MailParts) -> str:
    """Return the id that all mails of an incident refer to.

    No mail has this id: the first mail of an incident may be muted, or too old to be sent.
    """
    return f"<incident-{facts.incident_id}.{parts.database_id}@{parts.domain}>"


def _set_bodies(mail: EmailMessage, parts: MailParts, text: str, page: str) -> None:
    # Servers without 8BITMIME take it too, and no line is longer than they accept.
    mail.set_content(text, cte="quoted-printable")
    mail.add_alternative(page, subtype="html", cte="quoted-printable")
    mail.set_boundary(f"=_{parts.message_id}")


def format_subject(facts: MessageFacts, channel: str) -> str:
    """Return the subject of an incident, the same for all its transitions: mail programs thread by it."""
    if facts.test:
        return f"Outrider: test of the channel {channel}"
    return f"Outrider: {facts.kind.replace('_', ' ')} on {facts.stream} (incident {facts.incident_id})"


def _to_one_line(text: str) -> str:
    return " ".join(escape_plain(text).split())


def _text_section(facts: MessageFacts, parts: MailParts) -> str:
    links = "".join(f"\n{link.label}:\n{link.url}\n" for link in parts.links)
    return f"{parts.own_text or _list_as_text(facts)}\n{links}"


def _list_as_text(facts: MessageFacts) -> str:
    listed = "\n".join(f"{label + ':':20}{_to_one_line(value)}" for label, value in list_facts(facts))
    return f"{_to_one_line(facts.summary)}\n\n{listed}"


def _html_section(facts: MessageFacts, parts: MailParts) -> str:
    links = "".join(f'<p><a href="{html.escape(link.url)}">{html.escape(link.label)}</a></p>\n' for link in parts.links)
    return f"{_list_as_html(facts) if parts.own_text is None else _text_as_html(parts.own_text)}{links}"


def _html_page(sections: str, end: str) -> str:
    """Return the mail as HTML without images, scripts and addresses of other servers."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><body style="font-family:sans-serif;font-size:14px">\n'
        f'{sections}<p style="color:#555">{html.escape(end)}</p>\n</body></html>\n'
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
    return f"{changed} {_ACTIONS_END}" if parts.actions else changed
