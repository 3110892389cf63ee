"""A real Apache Kafka broker: one node that is broker and controller, in its own directory."""

import base64
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.downloads import find_java, kafka_jars
from tests.servers.process import (
    ServerError,
    die_with_parent,
    free_port,
    is_listening,
    last_lines,
    make_server_directory,
    stop_process,
    wait_until,
)

# Intervals of minutes in production (retention, compaction, transaction clean-up, sessions) are short here. Internal
# topics have one partition, because fifty take seconds to create.
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    # A killed broker can register again only after its old session has expired: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "300",
    # Events of tests have old timestamps; a test that needs retention sets retention.ms of its topic.
    "log.retention.ms": "-1",
    "log.retention.check.interval.ms": "500",
    "log.initial.task.delay.ms": "100",
    "log.segment.delete.delay.ms": "500",
    "log.cleaner.backoff.ms": "100",
    "log.cleaner.min.cleanable.ratio": "0.01",
    "log.cleaner.dedupe.buffer.size": "4194304",
    "log.index.size.max.bytes": "1048576",
    "num.network.threads": "2",
    "num.io.threads": "4",
}


class KafkaServer:
    """A broker on a loopback port; it retains port and data over `stop` and `start`, until `close`.

    For one thread. `start` returns when the broker answers; every wait is bounded and raises `ServerError`.

    Args:
        settings: Additional settings of the broker.
        heap: Maximum size of the heap.
        protocols: Security protocols with a listener of their own, beside PLAINTEXT.
        scram_users: Passwords by user, for SCRAM-SHA-256.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        heap: str = "384m",
        protocols: Sequence[str] = (),
        scram_users: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = make_server_directory("kafka")
        self.log_path = self.directory / "server.log"
        self._settings = {**_SETTINGS, **(settings or {})}
        self._heap = heap
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._ports = dict.fromkeys(protocols, 0)
        self._scram_users = scram_users or {}

    @property
    def bootstrap(self) -> str:
        """Return the address for clients."""
        return f"127.0.0.1:{self._port}"

    def address(self, protocol: str) -> str:
        """Return the address of the listener of a security protocol."""
        return f"127.0.0.1:{self._ports[protocol]}"

    @property
    def pid(self) -> int:
        """Return the process id of the running broker."""
        if self._process is None or self._process.poll() is not None:
            raise ServerError("the broker is not running")
        return self._process.pid

    def start(self, *, within_s: float = 60) -> None:
        """Start the broker and wait until it serves; the first start formats the storage."""
        for attempts_left in (2, 1, 0):
            first = not self._port
            if first:
                self._format()
            try:
                self._launch(within_s)
            except ServerError:
                # Another test run may have taken the port since it was chosen.
                if not (first and attempts_left and "Address already in use" in last_lines(self.log_path, 200)):
                    raise
                self._port = 0
                shutil.rmtree(self.directory / "data", ignore_errors=True)
            else:
                return

    def stop(self, *, within_s: float = 30) -> None:
        """Shut the broker down gracefully."""
        self._end(signal.SIGTERM, within_s)

    def kill(self) -> None:
        """Kill the broker, as a crash would."""
        self._end(signal.SIGKILL, 10)

    def restart(self) -> None:
        """Stop and start with the same port and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the broker: connections stay open without answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a frozen broker."""
        os.kill(self.pid, signal.SIGCONT)

    def create_topic(self, name: str, partitions: int = 1, settings: Mapping[str, str] | None = None) -> None:
        """Create a topic and wait until every partition has a leader."""
        from kafka import KafkaAdminClient
        from kafka.admin import NewTopic

        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            admin.create_topics(
                [NewTopic(name, partitions, 1, topic_configs=dict(settings or {}))], wait_for_metadata=True
            )
        finally:
            admin.close()

    def segments(self, topic: str, partition: int = 0) -> list[Path]:
        """Return the log files of a partition, ordered by offset."""
        return sorted((self.directory / "data" / f"{topic}-{partition}").glob("*.log"))

    def close(self, *, keep_log: Path | None = None) -> None:
        """Kill the broker and remove its directory; copy its log to `keep_log` if given."""
        self.kill()
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

    def _format(self) -> None:
        self._port, controller = free_port(), free_port()
        self._ports = {protocol: free_port() for protocol in self._ports}
        ports = {"PLAINTEXT": self._port} | self._ports
        listeners = ",".join(f"{protocol}://127.0.0.1:{port}" for protocol, port in ports.items())
        addresses = {
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": ",".join(
                f"{name}:{name}" for name in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
            )
            + ",CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.directory / "data"),
        }
        lines = [f"{key}={value}" for key, value in (addresses | self._settings).items()]
        (self.directory / "server.properties").write_text("\n".join(lines) + "\n")
        cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        command = [
            *self._java(),
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster}",  # one argument: one id in 64 begins with a dash
            "-c",
            "server.properties",
        ]
        for name, password in self._scram_users.items():
            command += ["--add-scram", f"SCRAM-SHA-256=[name={name},password={password}]"]
        done = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerError(f"Kafka's storage could not be formatted: {done.stdout}{done.stderr}")

    def _launch(self, within_s: float) -> None:
        with self.log_path.open("ab") as log:
            written_before = log.tell()
            self._process = subprocess.Popen(
                [*self._java(), "kafka.Kafka", "server.properties"],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in pytest must not reach the broker
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 -- calls prctl, nothing else
            )
        process = self._process

        def serves_or_ended() -> bool:
            with self.log_path.open("rb") as log:
                log.seek(written_before)
                return (
                    b"Kafka Server started" in log.read() and is_listening(self._port)
                ) or process.poll() is not None

        try:
            wait_until(serves_or_ended, within_s=within_s, what=f"Kafka on {self.bootstrap}")
        except ServerError as error:
            self.kill()
            raise ServerError(f"{error}\n{last_lines(self.log_path)}") from None
        if process.poll() is not None:
            raise ServerError(f"Kafka ended with {process.returncode} at start\n{last_lines(self.log_path)}")

    def _java(self) -> list[str]:
        # C1 compiler and serial collector: a test broker runs for a minute and shares two cores with its clients.
        flags = [
            f"-Xmx{self._heap}",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Djava.awt.headless=true",
        ]
        return [str(find_java()), *flags, "-cp", f"{kafka_jars()}/*"]

    def _end(self, with_signal: signal.Signals, within_s: float) -> None:
        if self._process is not None:
            stop_process(self._process, with_signal, within_s=within_s)
            self._process = None
