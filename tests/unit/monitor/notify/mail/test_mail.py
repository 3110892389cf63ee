"""Mails: one thread per incident, the same mail at each attempt, and no header from the text of an event."""

from dataclasses import replace
from email import message_from_bytes
from email.policy import default

from hypothesis import given
from hypothesis import strategies as st

from monitor.notify.facts import message_facts
from monitor.notify.links import PageLinks
from monitor.notify.mail.mail import MailLink, MailParts, build_mail
from storage.control.outbox import Message
from tests.unit.monitor.notify.messages import T0, make_message

LINKS = PageLinks(server_url="https://outrider.example")
PARTS = MailParts(
    message_id="m1",
    created_at_us=T0,
    channel="post",
    sender="Outrider <outrider@example.org>",
    recipients=["a@example.org", "b@example.org"],
    database_id="d1",
    page=MailLink(label="The incident", url="https://outrider.example/incidents/7?a=1&b=2"),
    actions=[MailLink(label="Acknowledge", url="https://outrider.example/links/x.y")],
)


def build_bytes(message: Message, parts: MailParts = PARTS) -> bytes:
    return build_mail(message_facts(message, LINKS), replace(parts, message_id=message.id)).as_bytes()


def sent(message: Message, parts: MailParts = PARTS):  # type: ignore[no-untyped-def]
    """Return the mail as a receiver parses it."""
    return message_from_bytes(build_bytes(message, parts), policy=default)


def test_an_incident_is_one_thread() -> None:
    opened, resolved = make_message(), replace(make_message(), id="other", transition="resolved")
    other = replace(make_message(), incident_id=99)
    mails = [sent(opened), sent(resolved)]
    assert len({mail["Subject"] for mail in mails}) == 1
    assert len({mail["In-Reply-To"] for mail in mails}) == 1
    assert mails[0]["References"] == mails[0]["In-Reply-To"]
    assert len({mail["Message-ID"] for mail in mails}) == 2
    assert sent(other)["In-Reply-To"] != mails[0]["In-Reply-To"]
    assert sent(opened, replace(PARTS, database_id="d2"))["In-Reply-To"] != mails[0]["In-Reply-To"]


def test_each_attempt_sends_the_same_bytes() -> None:
    first, second = make_message(), replace(make_message(), attempt=2)
    assert build_bytes(first) == build_bytes(second)


def test_text_and_html_have_the_links_and_escape_the_summary() -> None:
    mail = sent(replace(make_message(), summary="<script>alert(1)</script> & 'x'"))
    text, page = (mail.get_body([kind]).get_content() for kind in ("plain", "html"))
    assert "<script>" in text
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    for url in ("https://outrider.example/incidents/7?a=1&b=2", "https://outrider.example/links/x.y"):
        assert url in text
    assert 'href="https://outrider.example/incidents/7?a=1&amp;b=2"' in page
    assert "work once" in text


def test_without_links_a_mail_has_none() -> None:
    mail = sent(make_message(), replace(PARTS, page=None, actions=()))
    assert "http" not in mail.get_body(["plain"]).get_content()
    assert "http" not in mail.get_body(["html"]).get_content()


HEADERS = [
    "From", "To", "Subject", "Date", "Message-ID", "In-Reply-To", "References", "Auto-Submitted",
    "X-Auto-Response-Suppress", "MIME-Version", "Content-Type",
]  # fmt: skip


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_text_adds_a_header_or_a_recipient(stream: str, summary: str) -> None:
    evil = "\r\nBcc: evil@example.org\r\n\r\nbody"
    mail = sent(replace(make_message(), stream=stream + evil, summary=summary + evil))
    assert sorted(mail.keys()) == sorted(HEADERS)
    assert mail["To"] == "a@example.org, b@example.org"


def test_lines_are_short_and_seven_bit() -> None:
    raw = build_bytes(replace(make_message(), summary="ä" * 3_000))
    assert raw.isascii()
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998
