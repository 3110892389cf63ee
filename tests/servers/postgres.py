"""A real PostgreSQL server: one cluster in its own directory, on a loopback port and a socket."""

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psycopg

from tests.servers.downloads import postgres_binaries
from tests.servers.process import (
    ServerError,
    die_with_parent,
    free_port,
    last_lines,
    make_server_directory,
    stop_process,
    wait_until,
)

_STOP = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class PostgresServer:
    """A cluster that retains its port and data over `stop` and `start`, until `close`.

    All local users are trusted. PostgreSQL does not run as root; for root it runs as `nobody`.

    Args:
        durable: Wait for the disk at each commit, as in production; off for speed.
        settings: Additional settings of postgresql.conf.
        programs: The directory of PostgreSQL's programs; None: those of the wheel.
    """

    def __init__(
        self, *, durable: bool = False, settings: Mapping[str, str] | None = None, programs: Path | None = None
    ) -> None:
        self.directory = make_server_directory("postgres")
        self.log_path = self.directory / "server.log"
        self._sync = {} if durable else {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        self._settings = {"max_connections": "200", "shared_buffers": "64MB"} | self._sync | dict(settings or {})
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count(1)
        self._port = 0

    @property
    def port(self) -> int:
        """Return the loopback port, which stays the same over `stop` and `start`."""
        return self._port

    @property
    def pid(self) -> int:
        """Return the process id of the running postmaster."""
        if self._process is None or self._process.poll() is not None:
            raise ServerError("PostgreSQL is not running")
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database over TCP."""
        return f"postgresql://postgres@127.0.0.1:{self._port}/{database}"

    def socket_url(self, database: str = "postgres") -> str:
        """Return the URL of a database over the Unix socket."""
        return f"postgresql://postgres@/{database}?host={self.directory}&port={self._port}"

    def create_database(self) -> str:
        """Create an empty database with a unique name and return its URL."""
        name = f"test_{os.getpid()}_{next(self._names)}"
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database, also if clients are connected to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{url.rpartition("/")[2]}" WITH (FORCE)')

    def add_settings(self, **settings: str) -> None:
        """Add settings of postgresql.conf, which take effect at the next start."""
        self._settings |= settings

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement outside a transaction and return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[arg-type, unused-ignore]
            return cursor.fetchall() if cursor.description else []

    def start(self, *, within_s: float = 30) -> None:
        """Start the server and wait until it accepts connections; the first start creates the cluster."""
        for attempts_left in (2, 1, 0):
            first = not self._port
            if first:
                self._initialise()
            try:
                self._launch(within_s)
            except ServerError:
                # Another test run may have taken the port since it was chosen.
                if not (first and attempts_left and "could not bind" in last_lines(self.log_path, 200)):
                    raise
                self._port = 0
            else:
                return

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast", *, within_s: float = 30) -> None:
        """Stop the server: `fast` ends sessions gracefully, `immediate` is a crash."""
        self._end(_STOP[mode], within_s)

    def restart(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop and start with the same port and data."""
        self.stop(mode)
        self.start()

    def pause(self) -> None:
        """Freeze the postmaster: new connections wait, existing sessions continue."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a frozen postmaster."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self, *, keep_log: Path | None = None) -> None:
        """Stop the server and remove its directory; copy its log to `keep_log` if given."""
        self.stop("immediate")
        if keep_log is not None and self.log_path.exists():
            shutil.copy(self.log_path, keep_log)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _initialise(self) -> None:
        self._port = free_port()
        data = self.directory / "data"
        if (data / "PG_VERSION").exists():
            return
        for account in _find_server_account():
            os.chown(self.directory, account.pw_uid, account.pw_gid)
        command = [
            str((self._programs or _reachable_binaries()) / "initdb"),
            "-D",
            str(data),
            "-U",
            "postgres",
            "-A",
            "trust",
        ]
        command += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, **_run_as_account())
        if done.returncode:
            raise ServerError(f"initdb failed: {done.stdout}{done.stderr}")

    def _launch(self, within_s: float) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": str(self.directory),
        }
        command = [str((self._programs or _reachable_binaries()) / "postgres"), "-D", str(self.directory / "data")]
        for key, value in (options | self._settings).items():
            command += ["-c", f"{key}={value}"]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in pytest must not reach the server
                preexec_fn=die_with_parent(signal.SIGQUIT),  # noqa: PLW1509 -- calls prctl, nothing else
                **_run_as_account(),
            )
        process = self._process
        try:
            wait_until(
                lambda: process.poll() is not None or self._is_ready(),
                within_s=within_s,
                what=f"PostgreSQL on port {self._port}",
            )
        except ServerError as error:
            self.stop("immediate")
            raise ServerError(f"{error}\n{last_lines(self.log_path)}") from None
        if process.poll() is not None:
            raise ServerError(f"PostgreSQL ended with {process.returncode} at start\n{last_lines(self.log_path)}")

    def _is_ready(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _end(self, with_signal: signal.Signals, within_s: float) -> None:
        if self._process is not None:
            stop_process(self._process, with_signal, within_s=within_s)
            self._process = None


def _find_server_account() -> list[pwd.struct_passwd]:
    """Return the account to run the server as if the tests run as root, else an empty list."""
    return [pwd.getpwnam("nobody")] if os.geteuid() == 0 else []


def _run_as_account() -> dict[str, Any]:
    """Return the arguments of `subprocess` that run a child as that account."""
    return {
        key: value
        for account in _find_server_account()
        for key, value in (("user", account.pw_uid), ("group", account.pw_gid), ("extra_groups", []))
    }


def _reachable_binaries() -> Path:
    """Return the directory of PostgreSQL's programs, readable by the server's account.

    An environment below /root is not readable by other accounts: its programs are copied once to the temporary
    directory.
    """
    binaries = postgres_binaries()
    if os.geteuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in binaries.parents):
        return binaries
    package = binaries.parent.parent
    stamp = int((package / "__init__.py").stat().st_mtime)
    copy = Path(tempfile.gettempdir()) / f"outrider-postgres-programs-{stamp}"
    if not copy.exists():
        temporary = make_server_directory("programs")
        shutil.copytree(binaries.parent, temporary / package.name / binaries.parent.name)
        shutil.copytree(package.parent / f"{package.name}.libs", temporary / f"{package.name}.libs")
        temporary.chmod(0o755)
        try:
            temporary.rename(copy)
        except OSError:  # another test run has created it
            shutil.rmtree(temporary)
    return copy / package.name / binaries.parent.name / binaries.name
