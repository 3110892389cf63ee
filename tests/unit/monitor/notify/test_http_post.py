"""HTTP requests through proxies, and the bound on a whole request."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.notify.http_post import HttpResponse, PostError, PostTarget, find_proxy, post
from tests.servers.receiver import DripReaction, RespondReaction, WebhookReceiver, refusing_port

CERTIFICATE = Path(__file__).with_name("localhost.pem")
TARGET = PostTarget.from_url("http://ann:secret@hook.invalid/a?b=c")


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextlib.contextmanager
def silent_server(*, sends: bytes = b"", every_s: float = 0.2) -> Iterator[int]:
    """A server that accepts connections and sends one chunk every `every_s`, without ever ending; gives its port."""
    closing = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=drip, args=(connection,), daemon=True).start()

        def drip(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                while not closing.wait(every_s):
                    connection.sendall(sends)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield int(server.getsockname()[1])
        finally:
            closing.set()
            server.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def tunnel_proxy(seen: list[str]) -> Iterator[int]:
    """A proxy for CONNECT that appends each request line to `seen`; gives its port."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += connection.recv(1)
        seen.append(request.decode().splitlines()[0])
        host, port = seen[-1].split()[1].split(":")
        with connection, socket.create_connection((host, int(port))) as upstream:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=pump, args=(upstream, connection))
            back.start()
            pump(connection, upstream)
            back.join()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        yield int(server.getsockname()[1])
        thread.join(10)


def send(url: str, timeout_s: float = 5.0) -> HttpResponse:
    return post(PostTarget.from_url(url), b"{}", {}, timeout_s)


def seconds_until_failure(url: str, timeout_s: float) -> float:
    begin_s = time.monotonic()
    with pytest.raises(PostError, match=f"has not answered within {timeout_s:g} s"):
        send(url, timeout_s)
    return time.monotonic() - begin_s


def wait_for_threads(prefix: str) -> None:
    deadline_s = time.monotonic() + 5
    while any(thread.name.startswith(prefix) for thread in threading.enumerate()):
        assert time.monotonic() < deadline_s, "the request's thread still runs"
        time.sleep(0.02)


def test_http_request_goes_through_proxy_of_environment(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://bob:p%40ss@127.0.0.1:{receiver.port}")
    assert post(TARGET, b"{}", {}, 5.0).status == 204
    (request,) = receiver.requests
    assert request.line == "POST http://hook.invalid/a?b=c HTTP/1.1"
    assert request.headers["host"] == "hook.invalid"
    assert request.headers["authorization"] == "Basic YW5uOnNlY3JldA=="
    assert request.headers["proxy-authorization"] == "Basic Ym9iOnBAc3M="


def test_https_request_asks_proxy_for_tunnel(receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{receiver.port}")
    with pytest.raises(PostError, match=rf"the proxy 127\.0\.0\.1:{receiver.port}: Tunnel connection failed: 501"):
        send("https://hook.invalid/")


def test_https_request_passes_through_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    seen: list[str] = []
    with WebhookReceiver(certificate=CERTIFICATE) as secure, tunnel_proxy(seen) as port:
        # A proxy of the environment is not used for the loopback, where the receiver is.
        monkeypatch.setattr("monitor.notify.http_post.find_proxy", lambda _: f"http://127.0.0.1:{port}")
        assert send(secure.url).status == 204
        assert [line.rpartition(" ")[0] for line in seen] == [f"CONNECT 127.0.0.1:{secure.port}"]
        assert [request.line for request in secure.requests] == ["POST /hook?team=ops HTTP/1.1"]


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://a.example/", "http://proxy:3128"),
        ("https://a.example/", None),
        ("http://b.example/", None),
        ("http://localhost:8080/", None),
        ("http://127.0.0.1/", None),
        ("http://[::1]/", None),
    ],
)
def test_proxy_is_chosen_by_scheme_and_host(url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "proxy:3128")
    monkeypatch.setenv("NO_PROXY", "b.example,c.example")
    assert find_proxy(PostTarget.from_url(url)) == proxy


def test_unreachable_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing_port() as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://bob:password@127.0.0.1:{port}")
        with pytest.raises(PostError) as caught:
            post(TARGET, b"{}", {}, 5.0)
    assert str(caught.value) == f"the proxy 127.0.0.1:{port}: Connection refused"


def test_answer_that_arrives_a_byte_every_200_ms_is_cut_off(receiver: WebhookReceiver) -> None:
    receiver.react = lambda _: DripReaction(head=b"HTTP/1.1 200 OK\r\nX-Slow: ", every_s=0.2)
    assert 0.9 < seconds_until_failure(receiver.url, 1.0) < 2.5
    wait_for_threads("post-127.0.0.1")


def test_tls_handshake_that_drips_is_cut_off() -> None:
    # The header of a TLS record that announces a long handshake message, then one byte of it at a time.
    with silent_server(sends=b"\x16\x03\x03\x40\x00\x02") as port:
        assert 0.9 < seconds_until_failure(f"https://127.0.0.1:{port}/", 1.0) < 2.5
    wait_for_threads("post-127.0.0.1")


def test_name_lookup_counts_towards_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    finished = threading.Event()

    def never(*_: object, **__: object) -> list[object]:
        finished.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    assert 0.2 < seconds_until_failure("http://slow.invalid/", 0.3) < 2
    finished.set()
    wait_for_threads("post-slow.invalid")


def test_only_the_beginning_of_a_long_body_is_read(receiver: WebhookReceiver) -> None:
    receiver.react = lambda _: RespondReaction(status=200, body=b"x" * 1_000_000)
    assert send(receiver.url).body_excerpt == "x" * 2_000
