"""Checks of the client's TLS files and SASL options without a connection, and of listeners that are no broker."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigError
from consumers.kafka.access import AccessReport, check_credentials, find_refusal
from tests.servers.certificates import Authority
from tests.servers.process import free_port

MECHANISMS = ("OAUTHBEARER", "PLAIN", "SCRAM-SHA-256")
USER = {"sasl_plain_username": "alice", "sasl_plain_password": "secret-password"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


@pytest.fixture(scope="module")
def client_chain(authority: Authority) -> str:
    """A file with a certificate of a client and its key."""
    return str(authority.issue("client"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "kafka.client.sasl_mechanism is missing; SASL_SSL needs one of OAUTHBEARER, PLAIN, SCRAM-SHA-256"),
        ({"sasl_mechanism": "scram-sha-256", **USER}, "'scram-sha-256' is unknown to the client; did you mean SCRAM"),
        ({"sasl_mechanism": "MAGIC", **USER}, "'MAGIC' is unknown to the client; it is one of OAUTHBEARER"),
        ({"sasl_mechanism": "PLAIN", "sasl_plain_username": "a"}, "kafka.client.sasl_plain_password is missing; PLAIN"),
        ({"sasl_mechanism": "PLAIN", "sasl_plain_password": "a"}, "kafka.client.sasl_plain_username is missing; PLAIN"),
    ],
)
def test_sasl_option_that_is_missing_or_unknown_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_credentials({"security_protocol": "SASL_SSL", **options}, MECHANISMS)


@pytest.mark.parametrize("option", ["ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile"])
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_tls_file_that_cannot_be_used_is_named(
    tmp_path: Path, client_chain: str, option: str, content: str | None
) -> None:
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_text(content)
    own = {"ssl_certfile": client_chain} if option == "ssl_keyfile" else {}
    options = {"security_protocol": "SSL", **own, option: str(file)}
    with pytest.raises(ConfigError, match=r"kafka\.client\.ssl_") as caught:
        check_credentials(options, MECHANISMS)
    assert "\n" not in str(caught.value)
    if content is None:
        assert f"{option}: {file} cannot be read: No such file or directory" in str(caught.value)


def test_valid_files_and_options_are_accepted(authority: Authority, client_chain: str) -> None:
    files = {"ssl_cafile": str(authority.certificate), "ssl_certfile": client_chain, "ssl_keyfile": client_chain}
    check_credentials({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", **USER, **files}, MECHANISMS)
    check_credentials({}, MECHANISMS)


@pytest.fixture(params=[b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x00\x00\x04\x00\x00\x00\x09"])
def listener(request: pytest.FixtureRequest) -> Iterator[int]:
    """A listener that answers every connection with some bytes and closes it; the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(request.param)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])
def test_listener_that_is_no_broker_is_no_finding(listener: int, protocol: str) -> None:
    options = {"bootstrap_servers": [f"127.0.0.1:{listener}"], "security_protocol": protocol, "sasl_mechanism": "PLAIN"}
    assert find_refusal(options, _no_mechanism) == AccessReport()


def test_absent_brokers_are_named() -> None:
    port = free_port()
    report = find_refusal({"bootstrap_servers": [f"127.0.0.1:{port}", "no.such.host.invalid:1"]}, _no_mechanism)
    assert report.refusal is None
    assert report.absence == f"nothing listens on port {port} of 127.0.0.1, there is no host 'no.such.host.invalid'"


def test_brokers_behind_a_proxy_are_not_probed() -> None:
    options = {"bootstrap_servers": [f"127.0.0.1:{free_port()}"], "proxy_url": "socks5://127.0.0.1:1080"}
    assert find_refusal(options, _no_mechanism) == AccessReport()


def _no_mechanism() -> Any:
    raise AssertionError("no exchange was expected")
