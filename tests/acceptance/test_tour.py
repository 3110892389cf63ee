"""Every documented command runs in order on a real broker, beside the documented daemon and webhook receiver."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.documentation import GUIDES, QUICK_START, README, code_blocks, console_commands, contains_line
from tests.acceptance.payment_events import SECOND_US, payment_events
from tests.acceptance.terminal import Terminal
from tests.servers.kafka import KafkaServer
from tests.servers.process import free_port
from tests.servers.records import open_admin, produce

EVENTS, RATE_S, BURST_AT, BURST = 15_000, 5.0, 13_500, 300

pytestmark = pytest.mark.timeout(900)  # two dozen commands, each in a new interpreter


@pytest.fixture
def topic(kafka_server: KafkaServer) -> Iterator[str]:
    """Topic of the documentation: the last 50 minutes of payments, with a minute of stolen cards in minute 46."""
    name = "payments"
    kafka_server.create_topic(name)
    produce(
        kafka_server, name, payment_events(EVENTS, start_us=begin_us(), rate_s=RATE_S, burst_at=BURST_AT, burst=BURST)
    )
    yield name
    with open_admin(kafka_server) as client:
        client.delete_topics([name])


def begin_us() -> int:
    """Return the time of the first payment, at a full minute, so that the burst lies in one window."""
    return int((time.time() // 60 * 60 - EVENTS / RATE_S) * SECOND_US)


class TourReader:
    """Reader who follows the documentation in an empty folder, with the addresses of the test's servers."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        self.folder = folder
        self.addresses = {"localhost:9092": bootstrap, "8099": str(free_port())}

    def save(self, name: str, text: str, mode: str = "w") -> None:
        with (self.folder / name).open(mode) as file:
            file.write(self.with_test_addresses(text))

    def with_test_addresses(self, text: str) -> str:
        for documented, actual in self.addresses.items():
            text = text.replace(documented, actual)
        return text

    def run(self, line: str) -> Terminal:
        return Terminal(self.with_test_addresses(line).removesuffix(" &"), self.folder)

    @contextmanager
    def run_in_background(self, line: str) -> Iterator[Terminal]:
        with self.run(line) as terminal:
            yield terminal

    def query(self, query: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.folder / "outrider.db")) as connection:
            return connection.execute(query).fetchall()


def test_every_command_prints_the_documented_output(tmp_path: Path, kafka_server: KafkaServer, topic: str) -> None:
    assert topic in code_blocks("console", QUICK_START)[0]
    reader = TourReader(tmp_path, kafka_server.bootstrap)
    reader.save("hook.py", code_blocks("python", QUICK_START)[0])
    day_ago_us = begin_us() - 86_400 * SECOND_US
    (tmp_path / "day.jsonl").write_bytes(b"\n".join(payment_events(12_000, start_us=day_ago_us, rate_s=RATE_S)))
    steps = iter(console_commands(*GUIDES))
    for step in steps:
        if step.line.startswith("python hook.py"):
            break
        assert step.line != "outrider notify test ops"
        check_output(step.printed, reader.run(step.line).wait_for_success(), step.line)
        if step.line == "outrider check":
            reader.save("outrider.yaml", code_blocks("yaml", QUICK_START)[0], "a")
    with reader.run_in_background("python hook.py") as hook:
        hook.wait_until(lambda: is_listening(reader), "the receiver to listen")
        daemon_step = None
        for step in steps:
            if step.line == "outrider run":
                daemon_step = step
                break
            check_output(step.printed, reader.run(step.line).wait_for_success(), step.line)
        assert daemon_step is not None
        assert "Test message" in hook.shown()
        with reader.run_in_background("outrider run") as daemon:
            daemon.wait_until(lambda: "spike resolved (incident 1)" in hook.shown(), "the webhook")
            daemon.wait_until(lambda: count_scores(reader) == EVENTS - 1, "all scores")
            for step in steps:
                check_output(step.printed, reader.run(step.line).wait_for_success(), step.line)
            daemon.process.terminate()
            check_output(daemon_step.printed, daemon.wait_for_success(), daemon_step.line)
        messages = [line for line in hook.shown().splitlines() if line.startswith("Stream payments: ")]
        assert "spike opened (incident 1): " in messages[0]
        assert "not from Outrider" not in hook.shown()
    assert anomalous_ids() >= {row[1] for row in reader.query(code_blocks("sql", QUICK_START)[0])}
    assert len(reader.query(code_blocks("sql", QUICK_START)[0])) == 10
    assert (tmp_path / "scores.csv").read_text().count("\n") == 12_000


def test_the_readme_shows_commands_of_the_quick_start_with_their_output() -> None:
    executed = {command.line: command.printed for command in console_commands(QUICK_START)}
    for command in console_commands(README):
        assert command.line in executed
        assert set(command.printed) <= set(executed[command.line]), command.line


def check_output(printed: tuple[str, ...], screen: str, line: str) -> None:
    for each in printed:
        assert contains_line(each, screen), f"{line} does not print:\n{each}\nbut:\n{screen}"


def anomalous_ids() -> set[str]:
    return {f"p{i:06}" for i in range(BURST_AT, BURST_AT + BURST, 3)}


def is_listening(reader: TourReader) -> bool:
    from tests.servers.process import is_listening as port_listens

    return port_listens(int(reader.addresses["8099"]))


def count_scores(reader: TourReader) -> int:
    return int(str(reader.query("select count(*) from score_history")[0][0]))
