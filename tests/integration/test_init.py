"""`outrider init` on a real broker writes a configuration that runs without edits."""

import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from config.loading import load
from consumers.kafka.topics import list_topics
from monitor.cli.main import main
from tests.daemon.events import BurstStream, produce_records
from tests.servers.kafka import KafkaServer

TOOL = Path(__file__).resolve().parents[3] / "shared" / "tools" / "kdd_events.py"
FEED = BurstStream(events=3_000, seconds=600)


@pytest.fixture
def outrider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a command in a new folder and returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["outrider", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        written = capsys.readouterr()
        return code, written.out, written.err

    return run


@pytest.fixture
def payments(kafka_server: KafkaServer, kafka_topic: Callable[..., str]) -> str:
    """Topic with JSON events."""
    topic = kafka_topic(2)
    produce_records(kafka_server, topic, FEED.records(), 2)
    return topic


@pytest.fixture
def creating_server() -> Iterator[KafkaServer]:
    """Broker that creates topics on request."""
    with KafkaServer(settings={"auto.create.topics.enable": "true"}) as server:
        yield server


def test_configuration_of_a_topic_runs_without_edits(
    outrider: Callable[..., tuple[int, str, str]], kafka_server: KafkaServer, payments: str, tmp_path: Path
) -> None:
    code, out, err = outrider("init", "--bootstrap-servers", kafka_server.bootstrap, "--topic", payments)
    assert code == 0, err
    assert f"read 3,000 of 3,000 records of {payments}" in err
    [(name, stream)] = load(Path("outrider.yaml"), {}).streams.items()
    assert (stream.event.features, stream.event.id) == (("x0", "x1", "x2"), "id")
    assert stream.event.time is not None
    assert stream.event.time.field == "ts"
    code, out, err = outrider("check")
    assert (code, err) == (0, "")
    assert "All checks passed." in out
    with subprocess.Popen(
        [sys.executable, "-m", "monitor.cli.main", "run"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stderr is not None
        warming = next(line for line in daemon.stderr if "warming up" in line)
        daemon.terminate()
        daemon.stderr.read()
        assert daemon.wait(60) == 0
    assert name in warming


def test_sampling_joins_no_consumer_group(
    outrider: Callable[..., tuple[int, str, str]], kafka_server: KafkaServer, payments: str
) -> None:
    from kafka import KafkaAdminClient

    assert outrider("init", "--bootstrap-servers", kafka_server.bootstrap, "--topic", payments)[0] == 0
    with closing(KafkaAdminClient(bootstrap_servers=kafka_server.bootstrap)) as admin:
        assert not [group for group in admin.list_groups() if payments in str(group)]


def test_unknown_topic_gets_suggestions_and_is_not_created(
    outrider: Callable[..., tuple[int, str, str]], creating_server: KafkaServer
) -> None:
    for name in ("payments", "payments-eu", "clicks"):
        creating_server.create_topic(name, 1, {})
    code, out, err = outrider("init", "--bootstrap-servers", creating_server.bootstrap, "--topic", "paymets")
    assert (code, out) == (2, "")
    assert err == (
        f"outrider: there is no topic 'paymets' on Kafka at {creating_server.bootstrap}; "
        "did you mean payments or payments-eu?\n"
    )
    assert not Path("outrider.yaml").exists()
    there = {each.topic for each in list_topics([creating_server.bootstrap], {})}
    assert there == {"payments", "payments-eu", "clicks"}


def test_empty_topic_is_reported_with_the_waiting_time(
    outrider: Callable[..., tuple[int, str, str]], kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic()
    started_s = time.monotonic()
    code, out, err = outrider("init", "--bootstrap-servers", kafka_server.bootstrap, "--topic", topic, "--wait", "1s")
    assert (code, out) == (1, "")
    assert err == (
        f"outrider: topic {topic} on Kafka at {kafka_server.bootstrap} is empty: no event arrived within 1 s; "
        "produce events, or wait longer (--wait 5m)\n"
    )
    assert time.monotonic() - started_s < 30
    assert not Path("outrider.yaml").exists()


def test_topics_are_listed_without_a_topic(
    outrider: Callable[..., tuple[int, str, str]], kafka_server: KafkaServer, payments: str
) -> None:
    code, out, _ = outrider("init", "--bootstrap-servers", kafka_server.bootstrap)
    assert code == 0
    # A topic with a longer name makes the table wider than 80 columns: it is then printed as a list.
    assert re.search(rf"^{payments} +2 +3000$|topic +{payments}\n *partitions +2\n *records +3000$", out, re.MULTILINE)
    assert "__consumer_offsets" not in out
    assert not Path("outrider.yaml").exists()


def test_messagepack_and_float32_are_detected_and_configured(
    outrider: Callable[..., tuple[int, str, str]], kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    rng = random.Random(1)
    packed, plain = kafka_topic(), kafka_topic()
    produce_records(
        kafka_server, packed, [msgspec.msgpack.encode({"a": rng.random(), "b": rng.random()}) for _ in range(300)], 1
    )
    rows = np.random.default_rng(1).normal(size=(300, 4)).astype("<f4")
    produce_records(kafka_server, plain, [row.tobytes() for row in rows], 1)
    for topic, encoding, features in ((packed, "msgpack", ("a", "b")), (plain, "float32", "auto")):
        servers = ("--bootstrap-servers", kafka_server.bootstrap)
        code, _, err = outrider("-c", f"{encoding}.yaml", "init", *servers, "--topic", topic)
        assert code == 0, err
        [stream] = load(Path(f"{encoding}.yaml"), {}).streams.values()
        assert (stream.event.format, stream.event.features) == (encoding, features)
        assert outrider("-c", f"{encoding}.yaml", "check")[0] == 0


def test_schema_registry_framing_is_reported(
    outrider: Callable[..., tuple[int, str, str]], kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic()
    produce_records(kafka_server, topic, [b"\x00\x00\x00\x00\x2a\x06abc%d" % i for i in range(200)], 1)
    code, _, err = outrider("init", "--bootstrap-servers", kafka_server.bootstrap, "--topic", topic)
    assert code == 2
    assert err.splitlines()[-1] == (
        f"outrider: {topic}: the records seem to be framed for a schema registry (0x00, then schema id 42), so Avro, "
        "Protobuf or JSON Schema; Outrider reads json, msgpack and float32 (see event.format): convert them first"
    )


@pytest.mark.skipif(not TOOL.exists(), reason=f"the tool that makes KDD events is not at {TOOL}")
def test_configurations_of_the_network_log_run_without_edits(
    outrider: Callable[..., tuple[int, str, str]],
    kafka_server: KafkaServer,
    kafka_topic: Callable[..., str],
    tmp_path: Path,
) -> None:
    cut = ["--train", "25000", "--live", "6000", "--out", str(tmp_path)]
    subprocess.run([sys.executable, str(TOOL), *cut], check=True, capture_output=True)
    live = (tmp_path / "live.jsonl").read_bytes().splitlines()
    topic = kafka_topic(4)
    produce_records(kafka_server, topic, live, 4)
    assert outrider("-c", "topic.yaml", "init", "--bootstrap-servers", kafka_server.bootstrap, "--topic", topic)[0] == 0
    assert outrider("init", "--file", "live.jsonl")[0] == 0
    [(_, of_topic)], [(name, of_file)] = (
        load(Path(file), {}).streams.items() for file in ("topic.yaml", "outrider.yaml")
    )
    assert of_file.event.id == of_topic.event.id == "id"
    assert of_file.event.time is not None
    assert of_file.event.time.field == "ts"
    known = set(json.loads(live[0])) - {"ts", "id"}
    assert 12 < len(of_file.event.features) <= len(known)
    assert set(of_file.event.features) <= known
    assert outrider("check")[0] == 0
    code, _, err = outrider("run")
    assert code == 0, err
    code, out, _ = outrider("history", name, "--format", "jsonl")
    assert code == 0
    assert len(out.splitlines()) == len(live)
