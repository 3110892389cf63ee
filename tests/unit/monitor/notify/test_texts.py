"""Facts, escaping and templates of messages."""

import pytest

from config.errors import ConfigError
from monitor.notify.escaping import escape_mentions, escape_plain, shorten
from monitor.notify.facts import message_facts
from monitor.notify.links import PageLinks
from monitor.notify.templates import TextTemplate
from tests.unit.monitor.notify.messages import make_message

LINKS = PageLinks(server_url="https://outrider.example/base")
HOSTILE = "x\r\nBcc: all@example.org\u202e <!channel> @here"


def test_links_lead_to_the_incident_and_its_stream() -> None:
    facts = message_facts(make_message(stream="a/b"), LINKS)
    assert facts.incident_url == "https://outrider.example/base/incidents/7"
    assert facts.stream_url == "https://outrider.example/base/streams/a%2Fb"


def test_message_has_no_links_without_the_address_of_the_server() -> None:
    facts = message_facts(make_message(), PageLinks(server_url=None))
    assert (facts.incident_url, facts.stream_url) == (None, None)


def test_test_message_is_marked_and_has_no_link_to_an_incident() -> None:
    facts = message_facts(make_message(test=True, incident_id=0, kind="test"), LINKS)
    assert facts.headline == "TEST: [warning] test on payments opened"
    assert (facts.incident_url, facts.stream_url) == (None, None)


def test_plain_text_has_no_line_breaks_and_no_marks_of_direction() -> None:
    assert escape_plain(HOSTILE) == "x  Bcc: all@example.org  <!channel> @here"


def test_mentions_are_broken() -> None:
    escaped = escape_mentions(HOSTILE)
    assert "<!" not in escaped
    assert "@here" not in escaped


def test_shortened_text_ends_with_dots() -> None:
    assert (shorten("abcdef", 6), shorten("abcdefg", 6)) == ("abcdef", "abc...")


def test_values_of_a_template_are_escaped_and_its_own_text_is_not() -> None:
    template = TextTemplate("<b>{{ summary }}</b>\n{{ details.n }}", "{{ summary }}", escape_plain)
    facts = message_facts(make_message(summary=HOSTILE, details={"n": 3}), LINKS)
    assert template.render(facts) == f"<b>{escape_plain(HOSTILE)}</b>\n3"


def test_event_text_is_no_template() -> None:
    facts = message_facts(make_message(summary="{{ stream }}"), LINKS)
    assert TextTemplate("", "{{ summary }}", escape_plain).render(facts) == "{{ stream }}"


def test_template_that_is_not_valid_is_an_error() -> None:
    with pytest.raises(ConfigError, match="a template of a message is not valid"):
        TextTemplate("{{ summary", "{{ summary }}", escape_plain)


@pytest.mark.parametrize("source", ["{{ nothing }}", "{{ details.x.y }}", "{{ ''.__class__.__mro__ }}", "{{ 1 / 0 }}"])
def test_template_that_fails_is_replaced_by_the_default(source: str, caplog: pytest.LogCaptureFixture) -> None:
    text = TextTemplate(source, "{{ summary }}", escape_plain).render(message_facts(make_message(), LINKS))
    assert text == "30 outliers among 60 events"
    assert "the default text is sent" in caplog.text
