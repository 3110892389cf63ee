"""Every mistake of a user gives one line that names the cause and the remedy, and an exit code.

Each row of the tables is a mistake in the configuration with the exit code and the whole line.
"""

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitor.cli.main import main
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer

USER = "outrider_scorer"
GUEST = "outrider_guest"
DATABASE = "outrider_errors"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorOutput:
    """Exit code of a command and its line on standard error."""

    code: int
    line: str


@pytest.fixture
def run_outrider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., ErrorOutput]:
    """Return a function that runs a command in this process, with given settings in a new folder."""
    monkeypatch.chdir(tmp_path)

    def run(settings: dict[str, Any] | str, *arguments: str) -> ErrorOutput:
        text = settings if isinstance(settings, str) else yaml.safe_dump(settings)
        Path("outrider.yaml").write_text(text)
        monkeypatch.setattr(sys, "argv", ["outrider", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("{")]
        err = [line for line in lines if not line.startswith("stream ")]  # the progress of `fit`
        assert len(err) == 1, f"one line, not {lines}"
        return ErrorOutput(code=code, line=err[0])

    return run


def build_settings(
    *, url: str = "sqlite:///o.db", source: dict[str, Any] | None = None, **stream: Any
) -> dict[str, Any]:
    source = source or {"type": "synthetic", "rate": 100, "events": 5_000, "speed": 0}
    return {"database": {"url": url}, "streams": {"payments": {"source": source, **stream}}}


def kafka_source(name: str, servers: str) -> dict[str, Any]:
    kafka = {"bootstrap_servers": [servers], "client": {"bootstrap_timeout_ms": 1_000}}
    return build_settings(source={"type": "kafka", "topics": [name]}) | {"kafka": kafka}


SETTINGS = (
    (
        "a mistyped key",
        build_settings(windo={"size": "1m"}),
        "outrider.yaml:10: streams.payments.windo: unknown key; did you mean streams.payments.window?",
    ),
    (
        "another unit",
        build_settings(window={"size": "10sec"}),
        "outrider.yaml:11: streams.payments.window.size: '10sec' is not a duration; did you mean 10s? write a duration "
        "such as 500ms, 10s, 5m, 1h30m, 7d or 1w (units ms, s, m, h, d, w, y)",
    ),
    (
        "no unit",
        build_settings(window={"size": 60}),
        "outrider.yaml:11: streams.payments.window.size: 60 has no unit; write a duration such as 500ms, 10s, 5m, "
        "1h30m, 7d or 1w (units ms, s, m, h, d, w, y)",
    ),
    (
        "a fraction for a percentile",
        build_settings(threshold={"percentile": 0.999}),
        "outrider.yaml:11: streams.payments.threshold.percentile: 0.999 is a fraction, percentiles go to 100; did you "
        "mean 99.9?",
    ),
    (
        "an impossible date",
        build_settings(threshold={"refresh": "0 0 30 2 *"}),
        "outrider.yaml:11: streams.payments.threshold.refresh: 30 2 as day of month and month of a cron expression is "
        "a date that does not exist: the longest month in it has 29 days; try 0 0 1 * *",
    ),
    (
        "a mistyped kind of database",
        build_settings(url="postgress://user:hunter2@host/outrider"),
        "outrider.yaml:2: database.url: is an unknown kind of database, postgress://; did you mean postgres://?",
    ),
    (
        "a slash too few",
        build_settings(url="sqlite://outrider.db"),
        "outrider.yaml:2: database.url: has two slashes where sqlite has three; did you mean sqlite:///outrider.db?",
    ),
    (
        "no database",
        build_settings(url="postgresql://user:hunter2@host"),
        "outrider.yaml:2: database.url: has no database name after the host; write postgresql://user@host/database",
    ),
    (
        "a folder that does not exist",
        build_settings(url="sqlite:////no/such/folder/o.db"),
        "the folder of the database /no/such/folder/o.db does not exist: create it, or change database.url",
    ),
    (
        "an address of brokers without a port",
        kafka_source("payments", "localhost"),
        "outrider.yaml:4: kafka.bootstrap_servers: 'localhost' is not a broker address; write host:port, such as "
        "localhost:9092",
    ),
)


@pytest.mark.parametrize(("wrong", "line"), [row[1:] for row in SETTINGS], ids=[row[0] for row in SETTINGS])
def test_invalid_setting_is_named_with_its_line(
    run_outrider: Callable[..., ErrorOutput], wrong: dict[str, Any], line: str
) -> None:
    assert run_outrider(wrong, "check") == ErrorOutput(code=2, line=f"outrider: {line}")


def test_missing_configuration_refers_to_init(run_outrider: Callable[..., ErrorOutput]) -> None:
    assert run_outrider(build_settings(), "-c", "outrider.yml", "check") == ErrorOutput(
        code=2,
        line="outrider: outrider.yml: there is no such file; name one with --config, or let `outrider init` write one "
        "from your events",
    )


@pytest.fixture(scope="module")
def payments(kafka_server: KafkaServer) -> None:
    """Topic with a similar name."""
    kafka_server.create_topic("card-payments", 1, {})


@pytest.mark.usefixtures("payments")
@pytest.mark.parametrize("command", ["check", "run"])
def test_mistyped_topic_gets_a_suggestion(
    run_outrider: Callable[..., ErrorOutput], kafka_server: KafkaServer, command: str
) -> None:
    name = (
        f"outrider: there is no topic 'card-paymets' on Kafka at {kafka_server.bootstrap}; did you mean card-payments?"
    )
    assert run_outrider(kafka_source("card-paymets", kafka_server.bootstrap), command) == ErrorOutput(code=2, line=name)


@pytest.mark.parametrize(
    ("servers", "why"),
    [
        ("127.0.0.1:1", "nothing listens on port 1 of 127.0.0.1"),
        ("broker.invalid:9092", "there is no host 'broker.invalid'"),
    ],
)
def test_unavailable_broker_is_reported_with_the_cause(
    run_outrider: Callable[..., ErrorOutput], servers: str, why: str
) -> None:
    assert run_outrider(kafka_source("payments", servers), "check") == ErrorOutput(
        code=1,
        line=f"outrider: Kafka at {servers} does not answer ({why}); check kafka.bootstrap_servers and that the broker "
        "runs",
    )


@pytest.fixture(scope="module")
def guarded(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """PostgreSQL with passwords for two users and a database of one of them."""
    hba = Path(postgres_server.execute("SHOW hba_file")[0][0])
    before = hba.read_text()
    rules = [f"host all {user} 127.0.0.1/32 scram-sha-256\n" for user in (USER, GUEST)]
    postgres_server.execute(f"CREATE ROLE {USER} LOGIN PASSWORD 'right'")
    postgres_server.execute(f"CREATE ROLE {GUEST} LOGIN PASSWORD 'right'")
    postgres_server.execute(f"CREATE DATABASE {DATABASE} OWNER {USER}")
    hba.write_text("".join(rules) + before)
    postgres_server.execute("SELECT pg_reload_conf()")
    yield postgres_server
    hba.write_text(before)
    postgres_server.execute("SELECT pg_reload_conf()")
    postgres_server.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
    postgres_server.execute(f"DROP ROLE {USER}")
    postgres_server.execute(f"DROP ROLE {GUEST}")


SERVER = (
    (
        "a wrong password",
        f"{USER}:wrong@127.0.0.1:{{port}}/{DATABASE}",
        2,
        f"PostgreSQL {DATABASE} at 127.0.0.1:{{port}} does not accept user {USER}: the user or the password is "
        "wrong; correct database.url (or its source: database.url_file, OUTRIDER_DATABASE__URL)",
    ),
    (
        "no password",
        f"{USER}@127.0.0.1:{{port}}/{DATABASE}",
        2,
        f"PostgreSQL {DATABASE} at 127.0.0.1:{{port}} requires a password for user {USER}; write "
        f"postgresql://{USER}:PASSWORD@HOST/NAME, or put the URL into a file and set database.url_file to it",
    ),
    (
        "a mistyped database",
        f"{USER}:right@127.0.0.1:{{port}}/outridr",
        2,
        "PostgreSQL outridr at 127.0.0.1:{port} has no database 'outridr'; create it (CREATE DATABASE), or correct "
        "database.url",
    ),
    (
        "a mistyped user",
        f"scoer:right@127.0.0.1:{{port}}/{DATABASE}",
        2,
        f"PostgreSQL {DATABASE} at 127.0.0.1:{{port}} has no user 'scoer'; create it (CREATE ROLE ... LOGIN), or "
        "correct database.url",
    ),
)


@pytest.mark.parametrize("command", ["check", "run", "status"])
@pytest.mark.parametrize(("url", "code", "line"), [row[1:] for row in SERVER], ids=[row[0] for row in SERVER])
def test_rejected_connection_is_not_retried(
    run_outrider: Callable[..., ErrorOutput], guarded: PostgresServer, url: str, code: int, line: str, command: str
) -> None:
    port = str(guarded.port)
    wrong = build_settings(url="postgresql://" + url.replace("{port}", port))
    assert run_outrider(wrong, command) == ErrorOutput(code=code, line="outrider: " + line.replace("{port}", port))


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("127.0.0.1:1", "Connection refused; check database.url and that the server runs"),
        (
            "db.invalid:5432",
            r"failed to resolve host 'db\.invalid': .*; check database\.url and that the server runs",
        ),
    ],
)
def test_unavailable_server_is_reported_with_a_remedy(
    run_outrider: Callable[..., ErrorOutput], place: str, why: str
) -> None:
    result = run_outrider(build_settings(url=f"postgresql://u:hunter2@{place}/outrider"), "check")
    assert result.code == 1
    assert re.fullmatch(rf"outrider: PostgreSQL outrider at {re.escape(place)} is not available: {why}", result.line)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (
            "check",
            f"does not allow user {GUEST} to create tables: run GRANT CREATE ON SCHEMA public TO {GUEST}, or use "
            "another user in database.url",
        ),
        (
            "run",
            "denies this user a privilege (permission denied for schema public): grant it (a first run needs CREATE on "
            "the schema, an upgrade the owner of the tables), or use another user in database.url",
        ),
    ],
)
def test_missing_privilege_is_named(
    run_outrider: Callable[..., ErrorOutput], guarded: PostgresServer, command: str, line: str
) -> None:
    url = f"postgresql://{GUEST}:right@127.0.0.1:{guarded.port}/{DATABASE}"
    name = f"outrider: PostgreSQL {DATABASE} at 127.0.0.1:{guarded.port} {line}"
    assert run_outrider(build_settings(url=url), command) == ErrorOutput(code=2, line=name)


def test_read_only_server_is_named(run_outrider: Callable[..., ErrorOutput], guarded: PostgresServer) -> None:
    guarded.execute(f"ALTER ROLE {USER} SET default_transaction_read_only = on")
    try:
        url = f"postgresql://{USER}:right@127.0.0.1:{guarded.port}/{DATABASE}"
        assert run_outrider(build_settings(url=url), "check") == ErrorOutput(
            code=1,
            line=f"outrider: PostgreSQL {DATABASE} at 127.0.0.1:{guarded.port} is read-only: use the primary server "
            f"in database.url, or allow user {USER} to write",
        )
    finally:
        guarded.execute(f"ALTER ROLE {USER} RESET default_transaction_read_only")


@pytest.fixture
def nobody() -> Iterator[None]:
    """Run as an unprivileged user, since root may write files regardless of their modes."""
    if os.geteuid() != 0:
        yield
        return
    import monitor.daemon.daemon  # noqa: F401 - later imports might not be readable
    import storage.database.migrations.upgrade  # noqa: F401

    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    yield
    os.seteuid(0)


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("exists", "message"),
    [
        (False, r"may not write in \S+|allow this user to write the file and its folder"),
        (True, r"allow this user to write the file and its folder"),
    ],
)
def test_read_only_file_or_folder_is_named(
    run_outrider: Callable[..., ErrorOutput],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    command: str,
    exists: bool,
    message: str,
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    url = f"sqlite:///{folder}/o.db"
    if exists:
        with Database(url) as db:
            upgrade(db)
        (folder / "o.db").chmod(0o444)
    folder.chmod(0o555)
    mine = takewhile(
        lambda parent: parent.name.startswith(("test_", "popen-", "pytest-")), (tmp_path, *tmp_path.parents)
    )
    for parent in mine:
        parent.chmod(parent.stat().st_mode | 0o055)
    Path("outrider.yaml").touch(mode=0o666)
    Path("outrider.yaml").chmod(0o666)
    request.getfixturevalue("nobody")
    result = run_outrider(build_settings(url=url), command)
    assert result.code == 1
    file = re.escape(f"{folder}/o.db")
    pattern = f"outrider: (cannot create the database {file}: .*|the database {file} cannot be \\w+.*)({message})"
    assert re.fullmatch(pattern, result.line)


def test_full_disk_is_named(tmp_path: Path) -> None:
    """A process in its own mount namespace may mount a disk of 300 KB."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("no mount namespaces here")
    (tmp_path / "disk").mkdir()
    own = build_settings(url=f"sqlite:///{tmp_path}/disk/o.db", model={"warm_up": 1_000})
    (tmp_path / "outrider.yaml").write_text(json.dumps(own))
    command = f"mount -t tmpfs -o size=300k disk disk && exec {sys.executable} -m monitor.cli.main run"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"outrider: the database {tmp_path}/disk/o.db cannot be written (database or disk is full): free space on its "
        "disk, or shorten `retention`"
    )


def test_missing_extra_is_named_with_its_installation(
    run_outrider: Callable[..., ErrorOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("events.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run_outrider(build_settings(source={"type": "file", "path": "events.parquet"}), "check") == ErrorOutput(
        code=2,
        line="outrider: source.path: 'events.parquet' needs pyarrow; install it with: pip install 'outrider[parquet]'",
    )


def test_missing_column_is_named_by_fit(run_outrider: Callable[..., ErrorOutput]) -> None:
    Path("r.csv").write_text("ts,amont,age\n" + "1767225600,1.5,3\n" * 100)
    own = build_settings(event={"features": ["amount", "age"], "time": {"field": "ts"}})
    assert run_outrider(own, "fit", "payments", "r.csv") == ErrorOutput(
        code=2, line="outrider: event.features: the table has no column 'amount'; did you mean 'amont'?"
    )


def test_missing_event_file_is_named(run_outrider: Callable[..., ErrorOutput], tmp_path: Path) -> None:
    assert run_outrider(build_settings(), "fit", "payments", "no-such.csv") == ErrorOutput(
        code=2, line=f"outrider: source.path: there is no file 'no-such.csv' (in {tmp_path})"
    )
