"""TLS to PostgreSQL: options of database.url reach the client library; a refusal is named, with exit code 2."""

import os
import pwd
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from config.errors import ConfigError
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from tests.integration.test_errors import ErrorOutput, build_settings, run_outrider
from tests.servers.certificates import Authority
from tests.servers.downloads import postgres_binaries_with_tls
from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerError

__all__ = ["run_outrider"]

pytestmark = pytest.mark.postgres

_HBA = """\
local all all trust
hostssl all certified 127.0.0.1/32 cert
hostssl all all 127.0.0.1/32 trust
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureServer:
    """A server that accepts connections with TLS only, and the certificates of two authorities."""

    server: PostgresServer
    authority: Authority
    other_authority: Authority
    folder: Path

    def url(self, options: str, *, user: str = "postgres") -> str:
        """Return the URL with options; `{ca}`, `{other}` and the names of client certificates become paths."""
        paths = {"ca": self.authority.certificate, "other": self.other_authority.certificate, "folder": self.folder}
        return f"postgresql://{user}@127.0.0.1:{self.server.port}/postgres?{options.format_map(paths)}"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureServer]:
    try:
        programs = postgres_binaries_with_tls()
    except ServerError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("certificates")
    authority, other = Authority(folder, "authority"), Authority(folder, "other")
    server = PostgresServer(programs=programs)
    files = {name: server.directory / name for name in ("server.pem", "authority.pem", "pg_hba.conf")}
    files["server.pem"].write_text(authority.issue("server").read_text())
    files["authority.pem"].write_text(authority.certificate.read_text())
    files["pg_hba.conf"].write_text(_HBA)
    for file in files.values():
        file.chmod(0o600)
        if os.geteuid() == 0:
            account = pwd.getpwnam("nobody")
            os.chown(file, account.pw_uid, account.pw_gid)
    server.add_settings(
        ssl="on",
        ssl_cert_file=str(files["server.pem"]),
        ssl_key_file=str(files["server.pem"]),
        ssl_ca_file=str(files["authority.pem"]),
        hba_file=str(files["pg_hba.conf"]),
    )
    for name, issuer in (("client", authority), ("forged", other), ("shared", authority)):
        (folder / f"{name}.pem").write_text(issuer.issue("certified").read_text())
        (folder / f"{name}.pem").chmod(0o644 if name == "shared" else 0o600)
    try:
        server.start()
        server.execute("CREATE ROLE certified LOGIN SUPERUSER")
        yield SecureServer(server=server, authority=authority, other_authority=other, folder=folder)
    finally:
        server.close()


def test_verified_server_and_client_certificate_are_accepted(secure: SecureServer) -> None:
    verified = "sslmode=verify-full&sslrootcert={ca}"
    with Database(secure.url(verified)) as db:
        upgrade(db)
        db.check_writable()
    certificate = "&sslcert={folder}/client.pem&sslkey={folder}/client.pem"
    with Database(secure.url(verified + certificate, user="certified"), read_only=True) as db:
        db.check_schema()
        with db.read() as connection:
            (row,) = connection.exec_driver_sql(
                "SELECT ssl, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            ).all()
    assert tuple(row) == (True, "/CN=certified")


REFUSED = (
    ("an unknown authority", "postgres", "sslmode=verify-full&sslrootcert={other}", "certificate verify failed"),
    ("no TLS", "postgres", "sslmode=disable", "does not accept user postgres from this machine without TLS"),
    ("no file of the authority", "postgres", "sslmode=verify-full&sslrootcert=/no.pem", "'/no.pem' does not exist"),
    ("no certificates", "postgres", "sslmode=verify-full&sslrootcert=/dev/null", "cannot be read as PEM certificates"),
    ("a mistyped mode", "postgres", "sslmode=verify-ful", 'invalid sslmode value: "verify-ful"'),
    ("a mistyped option", "postgres", "sslmod=require", 'invalid connection option "sslmod"'),
    ("no client certificate", "certified", "sslmode=require", "requires a client certificate of user certified"),
    (
        "a client certificate of another authority",
        "certified",
        "sslmode=require&sslcert={folder}/forged.pem&sslkey={folder}/forged.pem",
        "does not accept the client certificate (tlsv1 alert unknown ca)",
    ),
    (
        "a key file that others may read",
        "certified",
        "sslmode=require&sslcert={folder}/client.pem&sslkey={folder}/shared.pem",
        "run chmod 600 on it",
    ),
    (
        "no key file",
        "certified",
        "sslmode=require&sslcert={folder}/client.pem&sslkey=/no.pem",
        "'/no.pem' does not exist; correct sslkey",
    ),
)


@pytest.mark.parametrize(("user", "options", "text"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refusal_is_a_configuration_error_with_its_reason(
    secure: SecureServer, user: str, options: str, text: str
) -> None:
    with Database(secure.url(options, user=user)) as db, pytest.raises(ConfigError) as error:
        db.schema_revision()
    assert str(error.value).startswith(f"PostgreSQL postgres at 127.0.0.1:{secure.server.port} ")
    assert text in str(error.value)


@pytest.mark.parametrize("command", ["check", "run", "status"])
def test_commands_end_with_2_and_do_not_retry(
    run_outrider: Callable[..., ErrorOutput],
    secure: SecureServer,
    command: str,
) -> None:
    result = run_outrider(build_settings(url=secure.url("sslmode=verify-full&sslrootcert={other}")), command)
    assert result.code == 2
    assert "certificate verify failed" in result.line


def test_certificate_for_another_host_and_server_without_tls_are_named(
    secure: SecureServer, postgres_server: PostgresServer
) -> None:
    url = secure.url("sslmode=verify-full&sslrootcert={ca}").replace("@127.0.0.1", "@db.example")
    with Database(f"{url}&hostaddr=127.0.0.1") as db, pytest.raises(ConfigError, match=r"not for host 'db\.example'"):
        db.schema_revision()
    with (
        Database(postgres_server.url() + "?sslmode=require") as db,
        pytest.raises(ConfigError, match=r"has no TLS, which sslmode in database\.url requires"),
    ):
        db.schema_revision()


def test_addresses_of_one_database_are_equal_with_and_without_tls(secure: SecureServer) -> None:
    with Database(secure.url("sslmode=disable")) as plain, Database(secure.url("sslmode=require")) as encrypted:
        assert plain.identity == encrypted.identity
