"""Checks of TLS and SASL: the client's own files and options, and the answers of a broker that refuses access.

The Kafka client reports a refused connection as a broker that does not answer, and tries again without end. After a
failure these checks connect once more and find the reason. They send no request beyond the log-in.
"""

import socket
import ssl
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol

from config.errors import ConfigError

_TIMEOUT_S = 2.0
_MAX_ADDRESSES = 3
_MAX_RESPONSE_BYTES = 1 << 20
_SASL_HANDSHAKE = 17
_SASL_AUTHENTICATE = 36
_NO_ERROR = 0
_ILLEGAL_SASL_STATE = 34
_UNKNOWN_AUTHORITY = {18, 19, 20, 21}
"""Verification errors of OpenSSL: no trusted authority has signed the certificate."""

_OTHER_NAME = {62, 63, 64}
"""Verification errors of OpenSSL: the certificate is of another host name, mail or IP address."""

_USER_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class SaslMechanism(Protocol):
    """The client's half of a SASL exchange, as kafka-python implements it."""

    def auth_bytes(self) -> bytes:
        """Return the next message to the broker."""
        ...

    def receive(self, auth_bytes: bytes) -> None:
        """Process the answer of the broker."""
        ...

    def is_done(self) -> bool:
        """Return whether the exchange is complete."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessReport:
    """The state of the brokers at the configured addresses.

    Attributes:
        refusal: Reason and remedy if a broker answers and refuses access, else None.
        absence: Reasons why no broker accepts a connection, or None if one does.
    """

    refusal: str | None = None
    absence: str | None = None


class _RefusedError(Exception):
    """A broker refuses access; the message has the reason and the remedy."""


def check_credentials(options: Mapping[str, Any], mechanisms: Collection[str]) -> None:
    """Check the client's TLS files and SASL options without a connection.

    Args:
        options: The options of the client.
        mechanisms: The names of the SASL mechanisms that the client implements.

    Raises:
        ConfigError: A file cannot be read, or an option is missing.
    """
    protocol = options.get("security_protocol", "PLAINTEXT")
    if protocol.startswith("SASL_"):
        _check_sasl_options(options, protocol, mechanisms)
    if protocol.endswith("SSL"):
        build_tls_context(options)


def _check_sasl_options(options: Mapping[str, Any], protocol: str, mechanisms: Collection[str]) -> None:
    mechanism = options.get("sasl_mechanism")
    if mechanism is None:
        raise ConfigError(
            f"kafka.client.sasl_mechanism is missing; {protocol} needs one of {', '.join(sorted(mechanisms))}"
        )
    if mechanism not in mechanisms:
        matches = get_close_matches(str(mechanism).upper(), mechanisms, n=1)
        hint = f"did you mean {matches[0]}?" if matches else f"it is one of {', '.join(sorted(mechanisms))}"
        raise ConfigError(f"kafka.client.sasl_mechanism {mechanism!r} is unknown to the client; {hint}")
    if mechanism in _USER_MECHANISMS:
        for name in ("sasl_plain_username", "sasl_plain_password"):
            if not options.get(name):
                raise ConfigError(f"kafka.client.{name} is missing; {mechanism} needs it")


def build_tls_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """Build the TLS context of the client from its files.

    Raises:
        ConfigError: A file is missing, unreadable, or not of the required kind.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = options.get("ssl_check_hostname", True)
    if options.get("ssl_cafile"):
        _load("ssl_cafile", options, context.load_verify_locations, "certificates in PEM form")
    else:
        context.load_default_certs()
    if options.get("ssl_certfile"):
        key, password = options.get("ssl_keyfile"), options.get("ssl_password") or ""
        if key:
            _load("ssl_keyfile", options, _read_one_byte, "a private key in PEM form")
        # Without a password OpenSSL would ask for it on the terminal.
        _load(
            "ssl_certfile",
            options,
            lambda path: context.load_cert_chain(path, key, lambda: password),
            "a certificate in PEM form with its private key, or a key in ssl_keyfile that belongs to it "
            "(an encrypted key needs ssl_password)",
        )
    if options.get("ssl_crlfile"):
        _load("ssl_crlfile", options, context.load_verify_locations, "a revocation list in PEM form")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def _load(name: str, options: Mapping[str, Any], load: Callable[[str], object], kind: str) -> None:
    path = options[name]
    try:
        _read_one_byte(path)
        load(path)
    except ssl.SSLError as error:
        raise ConfigError(f"kafka.client.{name}: {path} does not contain {kind} ({error.reason or error})") from error
    except OSError as error:
        raise ConfigError(f"kafka.client.{name}: {path} cannot be read: {error.strerror or error}") from error


def _read_one_byte(path: str) -> None:
    with open(path, "rb") as file:  # noqa: PTH123 - the path is an option of the client
        file.read(1)


def find_refusal(options: Mapping[str, Any], make_mechanism: Callable[[], SaslMechanism]) -> AccessReport:
    """Connect to the first brokers and report why none of them gives access.

    A broker that accepts the connection and does not answer in time is no finding: it may be starting. Nor is anything
    behind a proxy, which these checks do not use.

    Args:
        options: The options of the client.
        make_mechanism: Make a new SASL exchange for the configured mechanism.
    """
    if options.get("proxy_url") or options.get("socks5_proxy"):
        return AccessReport()
    refusals, absences = [], []
    addresses = options["bootstrap_servers"][:_MAX_ADDRESSES]
    for address in addresses:
        try:
            _check_broker(address, options, make_mechanism)
        except _RefusedError as error:
            refusals.append(str(error))
        except socket.gaierror:
            absences.append(f"there is no host {address.rpartition(':')[0]!r}")
        except ConnectionRefusedError:
            absences.append(f"nothing listens on port {address.rpartition(':')[2]} of {address.rpartition(':')[0]}")
        except _UnreachableError as error:
            absences.append(f"{address}: {error}")
        except (OSError, struct.error, ValueError, LookupError):
            return AccessReport()
        else:
            return AccessReport()
    return AccessReport(refusal=refusals[0] if refusals else None, absence=", ".join(absences) or None)


class _UnreachableError(Exception):
    """No connection could be opened."""


def _check_broker(address: str, options: Mapping[str, Any], make_mechanism: Callable[[], SaslMechanism]) -> None:
    """Connect and log in as the client does.

    Raises:
        _RefusedError: The broker refuses access.
        _UnreachableError: No connection could be opened.
        OSError: The connection failed for another reason.
    """
    protocol = options.get("security_protocol", "PLAINTEXT")
    with ExitStack() as stack:
        connection = stack.enter_context(_connect(address))
        if protocol.endswith("SSL"):
            connection = stack.enter_context(_start_tls(connection, address, options))
        _log_in(connection, address, protocol, options, make_mechanism)


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        return socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT_S)
    except (socket.gaierror, ConnectionRefusedError):
        raise
    except OSError as error:
        raise _UnreachableError(str(error)) from error


def _start_tls(connection: socket.socket, address: str, options: Mapping[str, Any]) -> ssl.SSLSocket:
    """Return the connection with TLS.

    Raises:
        _RefusedError: The broker does not use TLS, or one of the two sides refuses the certificate of the other.
    """
    context, host = build_tls_context(options), address.rpartition(":")[0].strip("[]").rstrip(".")
    try:
        return context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise _RefusedError(
            f"the certificate of the broker {address} is not accepted: {error.verify_message}; {_advise(error)}"
        ) from error
    except (ssl.SSLError, ConnectionError) as error:
        if _speaks_plain_text(address):
            without_tls = options["security_protocol"].replace("SSL", "PLAINTEXT")
            raise _RefusedError(
                f"the broker {address} uses no TLS on this port; use the port of its TLS listener, or set "
                f"kafka.client.security_protocol to {without_tls}"
            ) from error
        raise _explain_alert(error, address) or error from error


def _advise(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return "kafka.client.ssl_cafile must name the certificate of the authority that signed it"
    if error.verify_code in _OTHER_NAME:
        return "kafka.bootstrap_servers must use a name of the certificate"
    return "renew it, or correct kafka.client.ssl_cafile and ssl_crlfile"


def _explain_alert(error: Exception, address: str) -> _RefusedError | None:
    """Return the refusal if the broker has sent a TLS alert."""
    reason = (error.reason if isinstance(error, ssl.SSLError) else None) or ""
    if "ALERT" not in reason and "HANDSHAKE_FAILURE" not in reason:
        return None
    text = reason.lower().replace("_", " ")
    return _RefusedError(
        f"the broker {address} ends the TLS handshake ({text}); check the client's certificate in "
        "kafka.client.ssl_certfile and ssl_keyfile"
    )


def _log_in(
    connection: socket.socket,
    address: str,
    protocol: str,
    options: Mapping[str, Any],
    make_mechanism: Callable[[], SaslMechanism],
) -> None:
    uses_sasl = protocol.startswith("SASL_")
    mechanism = str(options.get("sasl_mechanism")) if uses_sasl else "PLAIN"
    try:
        error, mechanisms = _handshake(connection, mechanism)
    except ssl.SSLError as failure:  # TLS 1.3: a missing certificate of the client is refused after the handshake
        raise _explain_alert(failure, address) or failure from failure
    except (OSError, ValueError, struct.error):
        if not protocol.endswith("SSL") and _speaks_tls(address):
            raise _RefusedError(
                f"the broker {address} requires TLS on this port; set kafka.client.security_protocol to "
                f"{'SASL_SSL' if uses_sasl else 'SSL or SASL_SSL'}, or use the port of its listener without TLS"
            ) from None
        raise
    tls = protocol.removeprefix("SASL_")
    if not uses_sasl:
        if error != _ILLEGAL_SASL_STATE:
            raise _RefusedError(
                f"the broker {address} requires a SASL log-in ({', '.join(mechanisms)}); set "
                f"kafka.client.security_protocol to SASL_{tls}, sasl_mechanism, and the user"
            )
        return
    if error == _ILLEGAL_SASL_STATE:
        raise _RefusedError(
            f"the broker {address} has no SASL log-in on this port; set kafka.client.security_protocol to {tls}, "
            "or use the port of its SASL listener"
        )
    if error != _NO_ERROR:
        raise _RefusedError(
            f"the broker {address} does not offer the SASL mechanism {mechanism}; set kafka.client.sasl_mechanism "
            f"to one of {', '.join(mechanisms) or 'its mechanisms'}"
        )
    _authenticate(connection, address, mechanism, options, make_mechanism())


def _authenticate(
    connection: socket.socket, address: str, name: str, options: Mapping[str, Any], mechanism: SaslMechanism
) -> None:
    """Run the SASL exchange.

    Raises:
        _RefusedError: The broker rejects the credentials.
    """
    user = f" of user {options['sasl_plain_username']!r}" if options.get("sasl_plain_username") else ""
    while not mechanism.is_done():
        token = mechanism.auth_bytes()
        answer = _request(connection, _SASL_AUTHENTICATE, 0, struct.pack(">i", len(token)) + token)
        error, message_length = struct.unpack_from(">hh", answer)
        message = answer[4 : 4 + max(0, message_length)].decode("utf-8", "replace")
        if error != _NO_ERROR:
            advice = (
                "check kafka.client.sasl_plain_username and sasl_plain_password"
                if name in _USER_MECHANISMS
                else "check the credentials in kafka.client"
            )
            raise _RefusedError(
                f"the broker {address} rejects the log-in{user} by {name}: {message or f'error {error}'}; {advice}"
            )
        place = 4 + max(0, message_length)
        (length,) = struct.unpack_from(">i", answer, place)
        mechanism.receive(answer[place + 4 : place + 4 + length])


def _handshake(connection: socket.socket, mechanism: str) -> tuple[int, Sequence[str]]:
    """Ask for a SASL mechanism; return the error code and the mechanisms that the broker offers."""
    answer = _request(connection, _SASL_HANDSHAKE, 1, _pack_text(mechanism))
    error, count = struct.unpack_from(">hi", answer)
    place, names = 6, []
    for _ in range(count):
        (length,) = struct.unpack_from(">h", answer, place)
        names.append(answer[place + 2 : place + 2 + length].decode("utf-8", "replace"))
        place += 2 + length
    return error, names


def _request(connection: socket.socket, key: int, version: int, body: bytes) -> bytes:
    """Send one request; return the response without its header.

    Raises:
        ValueError: The answer is not one of Kafka.
        OSError: The connection ended, or no answer came in time.
    """
    frame = struct.pack(">hhi", key, version, 1) + _pack_text("outrider") + body
    connection.sendall(struct.pack(">i", len(frame)) + frame)
    (size,) = struct.unpack(">i", _receive(connection, 4))
    if not 4 <= size <= _MAX_RESPONSE_BYTES:
        raise ValueError(f"the size of the response is {size}")
    response = _receive(connection, size)
    if response[:4] != struct.pack(">i", 1):
        raise ValueError("the response is of another request")
    return response[4:]


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise ConnectionResetError("the broker closed the connection")
        received += part
    return received


def _pack_text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">h", len(encoded)) + encoded


def _speaks_plain_text(address: str) -> bool:
    """Return whether a listener answers a Kafka request without TLS."""
    with suppress(OSError, _UnreachableError, ValueError, struct.error), _connect(address) as connection:
        _handshake(connection, "PLAIN")
        return True
    return False


def _speaks_tls(address: str) -> bool:
    """Return whether a listener answers a TLS handshake; its certificate is not checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with _connect(address) as connection, context.wrap_socket(connection):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except (OSError, _UnreachableError):
        return False
