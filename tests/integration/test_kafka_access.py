"""A broker that refuses access is told apart from one that does not answer, with the reason and the remedy."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from config.errors import BrokerUnavailable, ConfigError
from consumers.kafka.source import KafkaSource
from tests.daemon.fixtures import run_daemon
from tests.daemon.process import DaemonProcess
from tests.daemon.settings import kafka_settings
from tests.servers.certificates import Authority
from tests.servers.kafka import KafkaServer
from tests.servers.process import free_port

__all__ = ["run_daemon"]

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

TOPIC = "payments"
USER, PASSWORD = "alice", "correct-horse"
_PLAIN = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureCluster:
    """A broker with a listener for each security protocol, and the files of its clients."""

    server: KafkaServer
    authority: Authority
    other_authority: Authority
    client_certificate: Path

    def address(self, protocol: str) -> str:
        """Return the address of a listener."""
        return self.server.bootstrap if protocol == "PLAINTEXT" else self.server.address(protocol)

    def options(self, protocol: str) -> dict[str, Any]:
        """Return options that the listener of a protocol accepts."""
        options: dict[str, Any] = {"security_protocol": protocol}
        if protocol.endswith("SSL"):
            options["ssl_cafile"] = str(self.authority.certificate)
        if protocol == "SSL":
            options |= {"ssl_certfile": str(self.client_certificate), "ssl_keyfile": str(self.client_certificate)}
        if protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": "SCRAM-SHA-256",
                "sasl_plain_username": USER,
                "sasl_plain_password": PASSWORD,
            }
        return options


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureCluster]:
    folder = tmp_path_factory.mktemp("certificates")
    authority, other = Authority(folder, "authority"), Authority(folder, "other")
    settings = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority.issue("broker")),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.certificate),
        "listener.name.ssl.ssl.client.auth": "required",
        "listener.name.sasl_plaintext.sasl.enabled.mechanisms": "SCRAM-SHA-256,PLAIN",
        "listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config": _SCRAM,
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": _PLAIN,
        "listener.name.sasl_ssl.sasl.enabled.mechanisms": "SCRAM-SHA-256",
        "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": _SCRAM,
    }
    protocols = ("SSL", "SASL_PLAINTEXT", "SASL_SSL")
    server = KafkaServer(settings, protocols=protocols, scram_users={USER: PASSWORD})
    try:
        server.start()
        server.create_topic(TOPIC)
        yield SecureCluster(
            server=server, authority=authority, other_authority=other, client_certificate=authority.issue("client")
        )
    finally:
        server.close()


def _discover(address: str, options: Options) -> int:
    """Return the number of partitions that a client with these options sees."""
    client = {"bootstrap_timeout_ms": 1_000, **options}
    with closing(KafkaSource([TOPIC], [address], client, group_id="g")) as source:
        return len(source.discover())


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])
def test_valid_options_give_access(cluster: SecureCluster, protocol: str) -> None:
    assert _discover(cluster.address(protocol), cluster.options(protocol)) == 1


Change = Callable[[SecureCluster], Options]
REFUSALS: tuple[tuple[str, str, Change, str], ...] = (
    (
        "wrong password",
        "SASL_SSL",
        lambda _: {"sasl_plain_password": "wrong-password"},
        f"rejects the log-in of user '{USER}' by SCRAM-SHA-256: .*invalid credentials.*; check kafka.client."
        "sasl_plain_username and sasl_plain_password",
    ),
    ("unknown user", "SASL_PLAINTEXT", lambda _: {"sasl_plain_username": "bob"}, "rejects the log-in of user 'bob'"),
    (
        "wrong password of the mechanism PLAIN",
        "SASL_PLAINTEXT",
        lambda _: {"sasl_mechanism": "PLAIN", "sasl_plain_password": "wrong-password"},
        f"rejects the log-in of user '{USER}' by PLAIN: .*nvalid username or password",
    ),
    (
        "mechanism that the broker does not offer",
        "SASL_SSL",
        lambda _: {"sasl_mechanism": "SCRAM-SHA-512"},
        "does not offer the SASL mechanism SCRAM-SHA-512; set kafka.client.sasl_mechanism to one of SCRAM-SHA-256",
    ),
    (
        "unknown authority",
        "SASL_SSL",
        lambda cluster: {"ssl_cafile": str(cluster.other_authority.certificate)},
        "certificate of the broker .* is not accepted: self-signed certificate in certificate chain; "
        "kafka.client.ssl_cafile must name the certificate of the authority that signed it",
    ),
    (
        "no authority",
        "SASL_SSL",
        lambda _: {"ssl_cafile": None},
        "is not accepted: self-signed certificate in certificate chain; kafka.client.ssl_cafile must name",
    ),
    (
        "no certificate of the client",
        "SSL",
        lambda _: {"ssl_certfile": None, "ssl_keyfile": None},
        "ends the TLS handshake .*; check the client's certificate in kafka.client.ssl_certfile and ssl_keyfile",
    ),
    (
        "client without TLS",
        "SSL",
        lambda _: {"security_protocol": "PLAINTEXT"},
        "requires TLS on this port; set kafka.client.security_protocol to SSL or SASL_SSL",
    ),
    (
        "client without TLS and with SASL",
        "SASL_SSL",
        lambda _: {"security_protocol": "SASL_PLAINTEXT"},
        "requires TLS on this port; set kafka.client.security_protocol to SASL_SSL",
    ),
    (
        "client without SASL",
        "SASL_PLAINTEXT",
        lambda _: {"security_protocol": "PLAINTEXT"},
        r"requires a SASL log-in \(.*SCRAM-SHA-256.*\); set kafka.client.security_protocol to SASL_PLAINTEXT",
    ),
    (
        "client with TLS and without SASL",
        "SASL_SSL",
        lambda _: {"security_protocol": "SSL"},
        r"requires a SASL log-in \(SCRAM-SHA-256\); set kafka.client.security_protocol to SASL_SSL",
    ),
    (
        "TLS on a port without TLS",
        "PLAINTEXT",
        lambda cluster: {"security_protocol": "SSL", "ssl_cafile": str(cluster.authority.certificate)},
        "uses no TLS on this port; .*set kafka.client.security_protocol to PLAINTEXT",
    ),
    (
        "SASL on a port without SASL",
        "PLAINTEXT",
        lambda cluster: cluster.options("SASL_PLAINTEXT"),
        "has no SASL log-in on this port; set kafka.client.security_protocol to PLAINTEXT",
    ),
)


@pytest.mark.parametrize(
    ("protocol", "change", "message"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
def test_refusal_is_a_configuration_error_with_its_reason(
    cluster: SecureCluster, protocol: str, change: Change, message: str
) -> None:
    options = cluster.options(protocol) | dict(change(cluster))
    with pytest.raises(ConfigError) as caught:
        _discover(cluster.address(protocol), {name: value for name, value in options.items() if value is not None})
    line = str(caught.value)
    assert re.search(message, line), line
    assert cluster.address(protocol) in line
    assert PASSWORD not in line
    assert "wrong-password" not in line
    assert "\n" not in line


def test_absent_broker_is_unavailable_whatever_the_protocol(cluster: SecureCluster) -> None:
    with pytest.raises(BrokerUnavailable, match="nothing listens on port"):
        _discover(f"127.0.0.1:{free_port()}", cluster.options("SASL_SSL"))


def test_frozen_broker_is_unavailable(cluster: SecureCluster) -> None:
    cluster.server.pause()
    try:
        with pytest.raises(BrokerUnavailable):
            _discover(cluster.address("SASL_SSL"), cluster.options("SASL_SSL"))
    finally:
        cluster.server.resume()


@pytest.mark.parametrize("name", ["another.example", "expired"])
def test_certificate_of_another_name_or_time_is_named(cluster: SecureCluster, tmp_path: Path, name: str) -> None:
    expired = name == "expired"
    names = {} if expired else {"names": f"DNS:{name}"}
    chain = cluster.authority.issue(f"{name}-broker", expired=expired, **names)
    settings = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(chain),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(cluster.authority.certificate),
    }
    message = "certificate has expired; renew it" if expired else "IP address mismatch.*must use a name of the"
    with KafkaServer(settings, protocols=["SSL"]) as server, pytest.raises(ConfigError, match=message):
        _discover(server.address("SSL"), cluster.options("SSL"))


@pytest.mark.parametrize(
    ("protocol", "change", "message"),
    [
        ("SASL_SSL", {"sasl_plain_password": "wrong-password"}, "rejects the log-in of user"),
        ("SASL_SSL", {"ssl_cafile": "/no/such.pem"}, "kafka.client.ssl_cafile: /no/such.pem cannot be read"),
    ],
    ids=["password", "file"],
)
def test_daemon_exits_with_2_when_the_broker_refuses_access(
    cluster: SecureCluster,
    sqlite_url: str,
    run_daemon: Callable[..., DaemonProcess],
    protocol: str,
    change: dict[str, str],
    message: str,
) -> None:
    client = {"bootstrap_timeout_ms": 1_000} | cluster.options(protocol) | change
    daemon = run_daemon(kafka_settings(sqlite_url, cluster.address(protocol), TOPIC, client=client))
    assert daemon.wait() == 2
    assert message in daemon.log
    assert "wrong-password" not in daemon.log
    assert "Traceback" not in daemon.log
