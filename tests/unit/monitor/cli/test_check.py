"""`outrider check` says whether the settings work, what takes effect, and what the promises mean."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers.kafka import KafkaServer
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import PaymentsStream


@pytest.fixture
def dead_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def parse_settings(out: str) -> dict[str, Any]:
    """The output is YAML: the settings, then comments."""
    shown: dict[str, Any] = yaml.safe_load(out)
    return shown


def write_config_text(folder: Path, text: str) -> Path:
    path = folder / "written.yaml"
    path.write_text(text)
    return path


def config_for_file(folder: Path, url: str, path: str) -> Path:
    return write_config_text(
        folder, f"database: {{url: '{url}'}}\nstreams: {{a: {{source: {{type: file, path: '{path}'}}}}}}"
    )


def config_for_topic(folder: Path, url: str, server: KafkaServer, topic: str) -> Path:
    return write_config_text(
        folder,
        f"""
database: {{url: '{url}'}}
kafka: {{bootstrap_servers: ["{server.bootstrap}"]}}
streams: {{a: {{source: {{type: kafka, topics: ["{topic}"]}}}}}}
""",
    )


def test_it_prints_the_settings_that_take_effect(outrider: OutriderRunner, config: Path) -> None:
    ran = outrider("check")
    assert ran.code == 0, ran.err
    shown = parse_settings(ran.out)
    assert list(shown["streams"]) == ["payments", "clicks"]
    assert shown["streams"]["clicks"]["alerts"]["false_alarms"] == "1/week"


def test_a_database_that_is_not_there_is_not_made(outrider: OutriderRunner, tmp_path: Path) -> None:
    ran = outrider("check")
    assert ran.code == 0
    assert "is not there yet" in ran.out
    assert not list(tmp_path.glob("*.db*"))


def test_it_names_the_schema_of_the_database(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    payments.add_model()
    assert "has schema 0002" in outrider("check").out


def test_a_stored_model_that_cannot_be_loaded_ends_with_1(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    ran = outrider("check")  # the artefact of these tests is no model
    assert ran.code == 1
    assert "does not work" in ran.out
    assert "All of it works" not in ran.out


def test_the_promise_is_told_in_counts_of_the_windows_that_were_judged(
    outrider: OutriderRunner, payments: PaymentsStream
) -> None:
    out = outrider("check").out
    stream = out.split("# stream payments")[1].split("# stream clicks")[0]
    assert " of 60 in a minute; 1 false alarm in " in stream
    assert "provisional: " in stream


def test_the_promise_of_a_new_stream_is_told_by_the_nominal_rate(outrider: OutriderRunner) -> None:
    stream = outrider("check", "--offline").out.split("# stream clicks")[1]
    assert "of 60 in a minute" in stream
    assert "provisional: 0 of 300 windows learned" in stream


def test_a_window_that_is_too_short_for_the_promise_comes_with_advice(outrider: OutriderRunner) -> None:
    # 60 events a window, of which 0.5% are outliers: 0.3 a window.
    stream = outrider("check", "--offline").out.split("# stream clicks")[1]
    assert "a window has 0.3 outliers on average" in stream
    assert "windows of " in stream


def test_a_floor_above_the_limit_is_named(outrider: OutriderRunner, tmp_path: Path) -> None:
    config = write_config_text(
        tmp_path, "streams: {a: {source: {type: synthetic, rate: 1}, alerts: {min_outliers: 40}}}"
    )
    assert "your floor raises that to 40 or more" in outrider("check", "--offline", config=config).out


def test_a_warm_up_too_short_for_the_percentile_is_named(outrider: OutriderRunner, tmp_path: Path) -> None:
    config = write_config_text(tmp_path, "streams: {a: {source: {type: synthetic}, threshold: {percentile: 99.9}}}")
    out = outrider("check", "--offline", config=config).out
    assert "set model.warm_up to 20,000 or more" in out


def test_the_bound_on_memory_is_the_sum_of_its_parts(outrider: OutriderRunner, tmp_path: Path) -> None:
    config = write_config_text(tmp_path, "streams: {a: {source: {type: synthetic, features: 16, partitions: 2}}}")
    out = outrider("check", config=config).out
    # 40,000 events x 2 partitions x (4 x 16 + 64) bytes = 9.8 MiB, and 32 MiB of the inbox.
    assert "at most 41.8 MiB" in out
    assert "32.0 MiB waiting to be decoded" in out
    assert "9.8 MiB waiting for their commit: 40,000 events x 2 partitions x (4 x 16 features + 64) bytes" in out


def test_secrets_are_masked_in_what_is_shown(outrider: OutriderRunner, tmp_path: Path) -> None:
    config = write_config_text(
        tmp_path,
        """
database: {url: "postgresql://me:hush-1@127.0.0.1/x"}
kafka: {client: {security_protocol: SASL_SSL, sasl_mechanism: PLAIN, sasl_plain_username: me,
                 sasl_plain_password: hush-2}}
streams: {a: {source: {type: kafka, topics: [a]}}}
""",
    )
    ran = outrider("check", "--offline", config=config)
    assert ran.code == 0, ran.err
    assert "hush" not in ran.out + ran.err


def test_offline_asks_nobody(outrider: OutriderRunner, tmp_path: Path, dead_port: int) -> None:
    config = write_config_text(
        tmp_path,
        f"""
database: {{url: "postgresql://me@127.0.0.1:{dead_port}/x"}}
kafka: {{bootstrap_servers: ["127.0.0.1:{dead_port}"]}}
streams: {{a: {{source: {{type: kafka, topics: [a]}}}}}}
""",
    )
    ran = outrider("check", "--offline", config=config)
    assert (ran.code, ran.err) == (0, "")
    assert "20.9 MiB fetched" in ran.out


def test_everything_that_is_away_is_named_and_ends_with_1(
    outrider: OutriderRunner, tmp_path: Path, dead_port: int
) -> None:
    config = write_config_text(
        tmp_path,
        f"""
database: {{url: "postgresql://me@127.0.0.1:{dead_port}/x"}}
kafka: {{bootstrap_servers: ["127.0.0.1:{dead_port}"], client: {{bootstrap_timeout_ms: 500}}}}
streams: {{a: {{source: {{type: kafka, topics: [a]}}}}, b: {{source: {{type: kafka, topics: [b]}}}}}}
""",
    )
    ran = outrider("check", config=config)
    assert ran.code == 1
    assert "PostgreSQL x at 127.0.0.1" in ran.err
    assert ran.err.count("Kafka at") == 1


def test_a_file_that_is_not_there_ends_with_2(outrider: OutriderRunner, tmp_path: Path, url: str) -> None:
    absent = tmp_path / "absent.jsonl"
    config = write_config_text(
        tmp_path, f"database: {{url: '{url}'}}\nstreams: {{a: {{source: {{type: file, path: {absent}}}}}}}"
    )
    ran = outrider("check", config=config)
    assert ran.code == 2
    assert str(absent) in ran.err


def test_standard_input_is_left_alone(outrider: OutriderRunner, tmp_path: Path, url: str) -> None:
    config = write_config_text(
        tmp_path, f"database: {{url: '{url}'}}\nstreams: {{a: {{source: {{type: file, path: '-'}}}}}}"
    )
    ran = outrider("check", config=config)
    assert ran.code == 0, ran.err
    assert "standard input" in ran.out


def test_it_names_the_partitions_of_a_topic_and_counts_them_in(
    outrider: OutriderRunner, tmp_path: Path, url: str, kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic(3)
    ran = outrider("check", config=config_for_topic(tmp_path, url, kafka_server, topic))
    assert ran.code == 0, ran.err
    assert f"{topic}[2] has the offsets 0 to 0" in ran.out
    assert "40,000 events x 3 partitions" in ran.out
    assert "MiB fetched" in ran.out


def test_a_topic_that_does_not_exist_ends_with_2(
    outrider: OutriderRunner, tmp_path: Path, url: str, kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic()
    ran = outrider("check", config=config_for_topic(tmp_path, url, kafka_server, topic + "x"))
    assert ran.code == 2
    assert topic in ran.err


def test_a_wrong_key_ends_with_2_and_one_line(outrider: OutriderRunner, tmp_path: Path) -> None:
    config = write_config_text(tmp_path, "streams: {a: {sorce: {type: synthetic}, source: {type: synthetic}}}")
    ran = outrider("check", config=config)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "sorce" in ran.err
