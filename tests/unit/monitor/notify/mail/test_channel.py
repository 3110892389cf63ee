"""The mail channel against a real SMTP server: TLS, login, refusals, and servers that hang or break off."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from config.channels.email import EmailChannelSettings
from monitor.notify.delivery import FailureReason
from monitor.notify.links import PageLinks
from monitor.notify.mail.action_links import ActionLinks
from monitor.notify.mail.channel import MailChannel
from monitor.notify.signed_links import read_link
from tests.servers.certificates import Authority
from tests.servers.receiver import refusing_port
from tests.servers.smtp import PASSWORD, USERNAME, ReceivedMail, SmtpServer
from tests.unit.monitor.notify.messages import T0, make_message

# aiosmtpd warns of a login without TLS, which is what a test needs.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")

SECRET = "a secret of the links, long enough".replace(" ", "-")
URL = "https://outrider.example"
LOGIN = {"username": USERNAME, "password": PASSWORD}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("mail"), "authority")


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Path:
    return authority.issue("server")


def make_channel(port: int, *, actions: bool = True, **settings: Any) -> MailChannel:
    values = {
        "type": "email",
        "server": f"smtp://localhost:{port}",
        "tls": "none",
        "from": "Outrider <outrider@example.org>",
        "to": ["a@example.org", "b@example.org"],
        "timeout": "3s",
    }
    return MailChannel(
        EmailChannelSettings.model_validate(values | settings),
        PageLinks(server_url=URL),
        ActionLinks(server_url=URL, secret=SECRET) if actions else None,
        lambda: "d1",
    )


def test_a_mail_reaches_all_recipients_once_with_its_links() -> None:
    message = make_message(channel="post")
    with SmtpServer() as server:
        result = make_channel(server.port).send(message)
        (mail,) = server.mails
    assert result.outcome == "delivered"
    assert (mail.sender, mail.recipients) == ("outrider@example.org", ["a@example.org", "b@example.org"])
    assert mail.content["Message-ID"] == f"<{message.id}@example.org>"
    body = mail.content.get_body(["plain"])
    assert body is not None
    text = body.get_content()
    assert f"{URL}/incidents/7" in text
    tokens = [line.rpartition("/")[2] for line in text.splitlines() if line.startswith(f"{URL}/links/")]
    claims = [read_link(token, [SECRET], now_us=T0) for token in tokens]
    assert [(claim.verb, claim.incident_id, claim.who) for claim in claims] == [
        ("acknowledge", 7, "mail:post"),
        ("false_alarm", 7, "mail:post"),
    ]


def test_a_repeated_mail_is_the_same_to_the_byte() -> None:
    with SmtpServer() as server:
        for attempt in (1, 2):
            make_channel(server.port).send(make_message(attempt=attempt))
        assert server.mails[0].raw == server.mails[1].raw


def test_without_a_secret_and_in_a_test_a_mail_has_no_links_that_act() -> None:
    with SmtpServer() as server:
        make_channel(server.port, actions=False).send(make_message())
        make_channel(server.port).send(make_message(test=True, incident_id=0, kind="test"))
        assert [b"/links/" in mail.raw for mail in server.mails] == [False, False]


@pytest.mark.parametrize(("tls", "implicit"), [("starttls", False), ("implicit", True)])
def test_mails_are_encrypted_and_sent_after_the_login(
    tls: str, implicit: bool, certificate: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with SmtpServer(certificate=certificate, implicit=implicit, login=True) as server:
        assert make_channel(server.port, tls=tls, **LOGIN).send(make_message()).outcome == "delivered"
        assert len(server.mails) == 1
        assert implicit or server.mails[0].is_encrypted


@pytest.mark.parametrize(("tls", "implicit"), [("starttls", False), ("implicit", True)])
def test_a_certificate_that_is_not_trusted_gets_no_mail_and_no_login(
    tls: str, implicit: bool, certificate: Path
) -> None:
    with SmtpServer(certificate=certificate, implicit=implicit, login=True) as server:
        result = make_channel(server.port, tls=tls, **LOGIN).send(make_message())
        assert (result.outcome, result.reason) == ("retry", FailureReason.TLS)
        assert "SSL_CERT_FILE" in result.detail
        assert server.mails == []


def test_a_server_without_starttls_gets_no_mail() -> None:
    with SmtpServer() as server:
        result = make_channel(server.port, tls="starttls").send(make_message())
        assert (result.outcome, result.reason) == ("retry", FailureReason.TLS)
        assert server.mails == []


def test_a_refused_login_is_final_and_tells_no_password() -> None:
    with SmtpServer(login=True) as server:
        server.refuses_login = True
        result = make_channel(server.port, **LOGIN).send(make_message())
        assert (result.outcome, result.reason) == ("refused", FailureReason.AUTH)
        assert PASSWORD not in result.detail
        result = make_channel(server.port).send(make_message())
        assert (result.outcome, result.reason) == ("refused", FailureReason.AUTH), "the server requires a login"


@pytest.mark.parametrize(
    ("answer", "outcome", "reason"),
    [("451 later", "retry", FailureReason.SERVER_ERROR), ("554 spam", "refused", FailureReason.CLIENT_ERROR)],
)
def test_4xx_is_tried_again_and_5xx_is_final(answer: str, outcome: str, reason: FailureReason) -> None:
    with SmtpServer() as server:
        server.answer_data = lambda: answer
        result = make_channel(server.port).send(make_message())
        assert (result.outcome, result.reason) == (outcome, reason)
        server.answer_data, server.answer_recipient = lambda: None, lambda _: answer
        result = make_channel(server.port).send(make_message())
        assert (result.outcome, result.reason) == (outcome, reason)
        assert answer in result.detail


def test_a_recipient_that_is_refused_for_now_gets_the_mail_later_and_the_others_once() -> None:
    with SmtpServer() as server:
        channel = make_channel(server.port)
        server.answer_recipient = lambda address: "450 greylisted" if address == "b@example.org" else None
        first = channel.send(make_message())
        assert (first.outcome, first.reason) == ("retry", FailureReason.SERVER_ERROR)
        server.answer_recipient = lambda _: None
        assert channel.send(make_message(attempt=2)).outcome == "delivered"
        assert [mail.recipients for mail in server.mails] == [["a@example.org"], ["b@example.org"]]


def test_a_recipient_that_does_not_exist_is_told_and_the_others_have_the_mail(caplog: pytest.LogCaptureFixture) -> None:
    with SmtpServer() as server, caplog.at_level(logging.WARNING):
        server.answer_recipient = lambda address: "550 no such user" if address == "b@example.org" else None
        result = make_channel(server.port).send(make_message())
        assert result.outcome == "delivered"
        assert "b@example.org: 550 no such user" in result.detail
        assert "b@example.org" in caplog.text
        assert [mail.recipients for mail in server.mails] == [["a@example.org"]]


@contextmanager
def scripted_server(talk: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """Yield the port of a server that talks to one client."""
    closing = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                talk(connection, closing)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        closing.set()
        thread.join(5)


def hang(_: socket.socket, closing: threading.Event) -> None:
    closing.wait()


def drip(connection: socket.socket, closing: threading.Event) -> None:
    try:
        while not closing.wait(0.05):
            connection.sendall(b"2")
    except OSError:
        pass  # The client has gone.


def reset(connection: socket.socket, _: threading.Event) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


@pytest.mark.parametrize("talk", [hang, drip])
@pytest.mark.parametrize("tls", ["none", "implicit"])
def test_a_server_that_hangs_or_sends_single_bytes_is_left_after_the_timeout(
    tls: str, talk: Callable[[socket.socket, threading.Event], None]
) -> None:
    with scripted_server(talk) as port:
        started_s = time.monotonic()
        result = make_channel(port, tls=tls, timeout="300ms").send(make_message())
        took_s = time.monotonic() - started_s
    assert result.outcome == "retry"
    assert result.reason in {FailureReason.TIMEOUT, FailureReason.TLS}
    assert took_s < 1.5


def test_a_server_that_breaks_off_or_is_away_is_tried_again() -> None:
    with scripted_server(reset) as port:
        result = make_channel(port).send(make_message())
    assert (result.outcome, result.reason) == ("retry", FailureReason.CONNECTION)
    with refusing_port() as port:
        result = make_channel(port).send(make_message())
    assert (result.outcome, result.reason) == ("retry", FailureReason.CONNECTION)
    assert "refused" in result.detail


def test_a_host_that_does_not_exist_is_tried_again() -> None:
    result = make_channel(1, server="smtp://no-such-host.invalid:25", tls="starttls").send(make_message())
    assert (result.outcome, result.reason) == ("retry", FailureReason.CONNECTION)


def test_template_is_the_text_of_the_mail_and_its_links_stay() -> None:
    message = make_message(channel="post", summary="<b>x</b>\r\nBcc: all@example.org")
    with SmtpServer() as server:
        make_channel(server.port, template="{{ stream }} & Co\n\n{{ summary }}").send(message)
        (mail,) = server.mails
    text, page = (body_of(mail, kind) for kind in ("plain", "html"))
    assert text.startswith("payments & Co\n\n<b>x</b>  Bcc: all@example.org\n")
    assert text.count(f"{URL}/links/") == 2
    assert "payments &amp; Co\n\n&lt;b&gt;x&lt;/b&gt;" in page
    assert page.count(f"{URL}/links/") == 2
    assert "Outliers" not in text


def test_template_that_fails_sends_the_built_in_text() -> None:
    message = make_message(channel="post")
    with SmtpServer() as server:
        assert make_channel(server.port, template="{{ 1 / 0 }}").send(message).outcome == "delivered"
        assert make_channel(server.port).send(message).outcome == "delivered"
        first, second = server.mails
    assert first.raw == second.raw


def test_group_is_one_mail_with_the_links_of_all_its_incidents_and_the_same_bytes_at_each_attempt() -> None:
    messages = [
        make_message(id=f"m{number}", channel="post", incident_id=number, stream=stream, sequence=number)
        for number, stream in ((7, "payments"), (8, "orders"), (9, "payments"))
    ]
    with SmtpServer() as server:
        for _ in range(2):
            assert make_channel(server.port).send_group(messages).outcome == "delivered"
        first, second = server.mails
    assert first.raw == second.raw
    mail = first.content
    assert mail["Subject"] == "Outrider: 3 incidents on payments, orders"
    assert mail["Message-ID"] == "<m7@example.org>"
    assert mail["References"].split() == [f"<incident-{number}.d1@example.org>" for number in (7, 8, 9)]
    for kind in ("plain", "html"):
        body = body_of(first, kind)
        assert body.count("30 outliers among 60 events") == 3
        assert [f"{URL}/incidents/{number}" in body for number in (7, 8, 9)] == [True] * 3
        tokens = [part.split("/links/")[1].split('"')[0].split()[0] for part in body.split(URL) if "/links/" in part]
        claims = [read_link(token, [SECRET], now_us=T0) for token in tokens]
        assert [(claim.verb, claim.incident_id) for claim in claims] == [
            (verb, number) for number in (7, 8, 9) for verb in ("acknowledge", "false_alarm")
        ]


def body_of(mail: ReceivedMail, kind: str) -> str:
    body = mail.content.get_body([kind])  # type: ignore[arg-type]
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")
