"""The messages to systemd, received on a real datagram socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.daemon.service_manager import ServiceManager
from monitor.metrics.probes import STUCK_AFTER_S, StreamCheck


class Receiver:
    """A service manager that receives datagrams."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def lines(self) -> list[str]:
        """Return the lines of all messages that have arrived."""
        found: list[str] = []
        while True:
            try:
                found += self.socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return found


@pytest.fixture(params=["file", "abstract"])
def receiver(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Receiver, str]]:
    name = f"outrider-test-{os.getpid()}"
    monkeypatch.chdir(tmp_path)
    address = f"{tmp_path}/notify" if request.param == "file" else f"\0{name}"
    made = Receiver(address)
    yield made, address.replace("\0", "@")
    made.socket.close()


def check(state: str = "running", stuck_s: float = 0.0, *, has_outage: bool = False) -> StreamCheck:
    return StreamCheck(stream="payments", state=state, reason=None, stuck_s=stuck_s, has_outage=has_outage)


def manager(address: str, **environment: str) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000"} | environment, process_id=7)


def test_a_process_is_ready_once_when_a_stream_has_claimed_its_sources(receiver: tuple[Receiver, str]) -> None:
    received, address = receiver
    service = manager(address)
    service.report([check("starting")])
    assert received.lines() == ["STATUS=streams: 1 starting", "WATCHDOG=1"]
    service.report([check("running"), check("starting")])
    assert received.lines() == ["READY=1", "STATUS=streams: 1 running, 1 starting", "WATCHDOG=1"]
    service.report([check("running"), check("starting")])
    assert received.lines() == ["WATCHDOG=1"]
    service.tell_stopping()
    assert received.lines() == ["STOPPING=1", "STATUS=stopping"]


def test_a_stuck_process_sends_no_sign_of_life_but_one_whose_broker_is_away_does(
    receiver: tuple[Receiver, str],
) -> None:
    received, address = receiver
    service = manager(address)
    service.report([check(stuck_s=STUCK_AFTER_S + 1)])
    assert "WATCHDOG=1" not in received.lines()
    service.report([check(stuck_s=STUCK_AFTER_S + 1, has_outage=True)])
    assert "WATCHDOG=1" in received.lines()


def test_the_watchdog_of_another_process_gets_no_sign_of_life(receiver: tuple[Receiver, str]) -> None:
    received, address = receiver
    manager(address, WATCHDOG_PID="8").report([check()])
    manager(address, WATCHDOG_USEC="0").report([check()])
    assert "WATCHDOG=1" not in received.lines()


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1"])
def test_without_a_socket_nothing_is_sent(address: str) -> None:
    service = manager(address)
    assert not service.is_present
    service.report([check()])
    service.tell_stopping()


def test_a_service_manager_that_has_gone_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager(f"{tmp_path}/gone").report([check()])
    assert "cannot be told" in caplog.text
