"""`outrider check` validates settings, connects, and prints settings, memory bound and false-alarm budget."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from storage.database.revisions import KNOWN_REVISIONS
from tests.daemon.events import produce_records
from tests.servers.kafka import KafkaServer
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import PaymentsStream


@pytest.fixture
def dead_port() -> int:
    """Port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def parse_settings(out: str) -> dict[str, Any]:
    """Parse the output, which is YAML: the settings, then comments."""
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


def test_effective_settings_are_printed(outrider: OutriderRunner, config: Path) -> None:
    result = outrider("check")
    assert result.code == 0, result.err
    shown = parse_settings(result.out)
    assert list(shown["streams"]) == ["payments", "clicks"]
    assert shown["streams"]["clicks"]["alerts"]["false_alarms"] == "1/week"


def test_missing_database_is_not_created(outrider: OutriderRunner, tmp_path: Path) -> None:
    result = outrider("check")
    assert result.code == 0
    assert "does not exist yet" in result.out
    assert not list(tmp_path.glob("*.db*"))


def test_schema_revision_of_the_database_is_printed(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    payments.add_model()
    assert f"has schema {KNOWN_REVISIONS[-1]}" in outrider("check").out


def test_unloadable_stored_model_exits_with_1(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    result = outrider("check")  # the artefact of these tests is not a model
    assert result.code == 1
    assert "error: " in result.out
    assert "All checks passed" not in result.out


def test_budget_is_printed_in_counts_of_the_judged_windows(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    out = outrider("check").out
    stream = out.split("# stream payments")[1].split("# stream clicks")[0]
    assert " of 60 in a minute; 1 false alarm in " in stream
    assert "provisional: " in stream


def test_budget_of_a_new_stream_uses_the_nominal_rate(outrider: OutriderRunner) -> None:
    stream = outrider("check", "--offline").out.split("# stream clicks")[1]
    assert "of 60 in a minute" in stream
    assert "provisional: 0 of 300 windows learned" in stream


def test_too_short_window_gets_a_suggested_size(outrider: OutriderRunner) -> None:
    # 60 events per window and 0.5% outliers: 0.3 outliers per window.
    stream = outrider("check", "--offline").out.split("# stream clicks")[1]
    assert "a window has 0.3 outliers on average" in stream
    assert "windows of " in stream


def test_configured_floor_above_the_count_threshold_is_printed(outrider: OutriderRunner, tmp_path: Path) -> None:
    config = write_config_text(
        tmp_path, "streams: {a: {source: {type: synthetic, rate: 1}, alerts: {min_outliers: 40}}}"
    )
    assert (
        "alerts.min_outliers or alerts.min_ratio raises that to 40 or more"
        in outrider("check", "--offline", config=config).out
    )


def test_too_short_warm_up_for_the_percentile_is_reported(outrider: OutriderRunner, tmp_path: Path) -> None:
    config = write_config_text(tmp_path, "streams: {a: {source: {type: synthetic}, threshold: {percentile: 99.9}}}")
    out = outrider("check", "--offline", config=config).out
    assert "set model.warm_up to 20,000 or more" in out


def test_check_says_what_is_never_reached_and_exits_with_0(outrider: OutriderRunner, tmp_path: Path) -> None:
    stream = "a: {source: {type: synthetic, rate: 1}, window: {size: 1h}}"
    result = outrider("check", config=write_config_text(tmp_path, f"streams: {{{stream}}}"))
    assert result.code == 0, result.err
    assert "count model: never learned: the look-back of 1 d holds 24 windows" in result.out
    assert "All checks passed, but some things are never reached with these settings:" in result.out
    assert "stream a: count model, slow rises, drift over 10m (see above)" in result.out


def test_check_says_when_everything_is_reached(outrider: OutriderRunner, tmp_path: Path) -> None:
    config = write_config_text(tmp_path, "streams: {a: {source: {type: synthetic, rate: 10}}}")
    out = outrider("check", config=config).out
    assert "reached at 10 events a second:" in out
    assert "count model: learned after 5 h (300 windows of 1m)" in out
    assert out.endswith("# All checks passed.\n")


def test_values_of_auto_are_shown_by_the_sample(outrider: OutriderRunner, tmp_path: Path, sqlite_url: str) -> None:
    write_events(tmp_path, *[f'{{"ts": {1_767_225_600 + 300 * i}, "x": {i % 7}}}' for i in range(2_000)])
    event = "{features: [x], time: {field: ts}}, window: {size: auto}, threshold: {look_back: auto, percentile: auto}"
    result = outrider("check", config=config_for_events(tmp_path, sqlite_url, event))
    assert result.code == 0, result.err
    assert "auto: by this sample window.size 1h, threshold.percentile 99.0, threshold.look_back 18d" in result.out
    assert "count model: learned after 4 d 5 h (100 windows of 1h)" in result.out


def test_memory_bound_is_the_sum_of_its_parts(outrider: OutriderRunner, tmp_path: Path) -> None:
    config = write_config_text(tmp_path, "streams: {a: {source: {type: synthetic, features: 16, partitions: 2}}}")
    out = outrider("check", config=config).out
    # 40,000 events x 2 partitions x (8 x 16 + 192) bytes = 24.4 MiB, and 32 MiB of the inbox.
    assert "at most 56.4 MiB" in out
    assert "32.0 MiB waiting to be decoded" in out
    assert "24.4 MiB waiting for their commit: 40,000 events x 2 partitions x (8 x 16 features + 192) bytes" in out
    assert "memory of the daemon: at most 824.4 MiB: 768.0 MiB for the program, 56.4 MiB for events" in out


def test_memory_of_the_daemon_counts_each_stream_and_the_largest_decompressed_batch(
    outrider: OutriderRunner, tmp_path: Path
) -> None:
    source = "{source: {type: kafka, topics: [a]}}"
    fetched = {}
    for size in ("1MiB", "65MiB"):
        text = f"kafka: {{max_decompressed_size: {size}}}\nstreams: {{a: {source}, b: {source}}}"
        out = outrider("check", "--offline", config=write_config_text(tmp_path, text)).out
        line = next(line for line in out.splitlines() if "memory of the daemon" in line)
        assert "16.0 MiB for further streams" in line
        fetched[size] = float(line.split("at most ")[1].split(" MiB")[0].replace(",", ""))
    assert fetched["65MiB"] - fetched["1MiB"] == pytest.approx(2 * 2 * 64)


def test_secrets_are_masked(outrider: OutriderRunner, tmp_path: Path) -> None:
    config = write_config_text(
        tmp_path,
        """
database: {url: "postgresql://me:hush-1@127.0.0.1/x"}
kafka: {client: {security_protocol: SASL_SSL, sasl_mechanism: PLAIN, sasl_plain_username: me,
                 sasl_plain_password: hush-2}}
streams: {a: {source: {type: kafka, topics: [a]}}}
""",
    )
    result = outrider("check", "--offline", config=config)
    assert result.code == 0, result.err
    assert "hush" not in result.out + result.err


def test_offline_makes_no_connection(outrider: OutriderRunner, tmp_path: Path, dead_port: int) -> None:
    config = write_config_text(
        tmp_path,
        f"""
database: {{url: "postgresql://me@127.0.0.1:{dead_port}/x"}}
kafka: {{bootstrap_servers: ["127.0.0.1:{dead_port}"]}}
streams: {{a: {{source: {{type: kafka, topics: [a]}}}}}}
""",
    )
    result = outrider("check", "--offline", config=config)
    assert (result.code, result.err) == (0, "")
    assert "178.3 MiB fetched" in result.out


def test_unavailable_servers_are_named_once_and_exit_with_1(
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
    result = outrider("check", config=config)
    assert result.code == 1
    assert "PostgreSQL x at 127.0.0.1" in result.err
    assert result.err.count("Kafka at") == 1


def test_missing_file_exits_with_2(outrider: OutriderRunner, tmp_path: Path, url: str) -> None:
    absent = tmp_path / "absent.jsonl"
    config = write_config_text(
        tmp_path, f"database: {{url: '{url}'}}\nstreams: {{a: {{source: {{type: file, path: {absent}}}}}}}"
    )
    result = outrider("check", config=config)
    assert result.code == 2
    assert str(absent) in result.err


def test_standard_input_is_not_opened(outrider: OutriderRunner, tmp_path: Path, url: str) -> None:
    config = write_config_text(
        tmp_path, f"database: {{url: '{url}'}}\nstreams: {{a: {{source: {{type: file, path: '-'}}}}}}"
    )
    result = outrider("check", config=config)
    assert result.code == 0, result.err
    assert "standard input" in result.out


@pytest.mark.slow
def test_partitions_of_a_topic_are_listed_and_counted_in_the_bound(
    outrider: OutriderRunner, tmp_path: Path, url: str, kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic(3)
    result = outrider("check", config=config_for_topic(tmp_path, url, kafka_server, topic))
    assert result.code == 0, result.err
    assert f"{topic}[2] has offsets 0 to 0" in result.out
    assert "40,000 events x 3 partitions" in result.out
    assert "MiB fetched" in result.out


def test_unknown_topic_exits_with_2(
    outrider: OutriderRunner, tmp_path: Path, url: str, kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic()
    result = outrider("check", config=config_for_topic(tmp_path, url, kafka_server, topic + "x"))
    assert result.code == 2
    assert topic in result.err


def test_unknown_key_exits_with_2_and_one_line(outrider: OutriderRunner, tmp_path: Path) -> None:
    config = write_config_text(tmp_path, "streams: {a: {sorce: {type: synthetic}, source: {type: synthetic}}}")
    result = outrider("check", config=config)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "sorce" in result.err


def config_for_events(folder: Path, url: str, event: str, name: str = "events.jsonl") -> Path:
    return write_config_text(
        folder,
        f"database: {{url: '{url}'}}\n"
        f"streams: {{a: {{source: {{type: file, path: '{folder / name}'}}, event: {event}}}}}",
    )


def write_events(folder: Path, *lines: str) -> None:
    (folder / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))


def test_sample_of_a_file_is_decoded(outrider: OutriderRunner, tmp_path: Path, sqlite_url: str) -> None:
    write_events(tmp_path, *['{"amount": 1, "age": 2}'] * 1_500)
    result = outrider("check", config=config_for_events(tmp_path, sqlite_url, "{features: [amount, age]}"))
    assert result.code == 0, result.err
    assert "sample: 1,000 of the first 1,000 records are events with 2 features" in result.out


def test_records_of_the_sample_that_would_be_rejected_are_named(
    outrider: OutriderRunner, tmp_path: Path, sqlite_url: str
) -> None:
    write_events(tmp_path, *['{"amount": 1}'] * 5, *['{"amout": 1}'] * 3, "{")
    result = outrider("check", config=config_for_events(tmp_path, sqlite_url, "{features: [amount]}"))
    assert result.code == 0, result.err
    assert "sample: 5 of the first 9 records are events with 1 feature" in result.out
    assert "missing_feature 3 (amount: absent; the field nearest to 'amount' is 'amout')" in result.out
    assert "would be rejected: not_json 1" in result.out


def test_sample_without_a_usable_record_exits_with_2(outrider: OutriderRunner, tmp_path: Path, sqlite_url: str) -> None:
    write_events(tmp_path, *['{"amout": 1}'] * 3)
    result = outrider("check", config=config_for_events(tmp_path, sqlite_url, "{features: [amount]}"))
    assert result.code == 2
    assert "stream a: all 3 records of the sample would be rejected: missing_feature 3" in result.err
    assert "the field nearest to 'amount' is 'amout'" in result.err
    assert "All checks passed" not in result.out


def test_sample_without_a_feature_exits_with_2(outrider: OutriderRunner, tmp_path: Path, sqlite_url: str) -> None:
    write_events(tmp_path, *['{"name": "a"}'] * 3)
    result = outrider("check", config=config_for_events(tmp_path, sqlite_url, "{}"))
    assert result.code == 2
    assert "no field is a number" in result.err


def test_empty_file_has_no_sample(outrider: OutriderRunner, tmp_path: Path, sqlite_url: str) -> None:
    write_events(tmp_path)
    result = outrider("check", config=config_for_events(tmp_path, sqlite_url, "{}"))
    assert result.code == 0, result.err
    assert "sample: no record to decode yet" in result.out


def test_newest_records_of_a_topic_are_decoded(
    outrider: OutriderRunner,
    tmp_path: Path,
    sqlite_url: str,
    kafka_server: KafkaServer,
    kafka_topic: Callable[..., str],
) -> None:
    topic = kafka_topic(2)
    old, new = [b'{"other": 1}'] * 1_000, [b'{"amount": 1}'] * 1_900 + [b'{"Amount": 1}'] * 100
    produce_records(kafka_server, topic, [*old, *new], 2)
    config = write_config_text(
        tmp_path,
        f"""
database: {{url: '{sqlite_url}'}}
kafka: {{bootstrap_servers: ["{kafka_server.bootstrap}"]}}
streams: {{a: {{source: {{type: kafka, topics: ["{topic}"]}}, event: {{features: [amount]}}}}}}
""",
    )
    result = outrider("check", config=config)
    assert result.code == 0, result.err
    assert "sample: 900 of the newest 1,000 records are events with 1 feature" in result.out
    assert "missing_feature 100 (amount: absent; the field nearest to 'amount' is 'Amount')" in result.out


def test_topic_of_another_encoding_exits_with_2(
    outrider: OutriderRunner,
    tmp_path: Path,
    sqlite_url: str,
    kafka_server: KafkaServer,
    kafka_topic: Callable[..., str],
) -> None:
    topic = kafka_topic(1)
    produce_records(kafka_server, topic, [b"\x81\xa6amount\x01"] * 20, 1)
    config = write_config_text(
        tmp_path,
        f"""
database: {{url: '{sqlite_url}'}}
kafka: {{bootstrap_servers: ["{kafka_server.bootstrap}"]}}
streams: {{a: {{source: {{type: kafka, topics: ["{topic}"]}}, event: {{features: [amount]}}}}}}
""",
    )
    result = outrider("check", config=config)
    assert result.code == 2
    assert "it looks like MessagePack; set event.format: msgpack" in result.err


@pytest.mark.parametrize(
    ("event", "time", "warnings"),
    [
        (
            "{features: [x]}",
            '"20.12.2025 08:00:07"',
            ["ts looks like a time, but its texts cannot be read", "no field is the"],
        ),
        ("{features: [x]}", "638501636960000000", ["ts looks like a time, but its numbers seem to be ticks of .NET"]),
        ("{features: [x]}", '"2025-12-20 08:00:07+00"', ["no field is the event time: events get the time of reading"]),
        ("{features: [x], time: {field: ts}}", "638501636960000000", ["bad_time", "seem to be ticks of .NET"]),
        ("{features: [x], time: {field: ts, unit: ns}}", "638501636960000000", ["newest time of ts is 1990-03-27"]),
    ],
)
def test_time_that_cannot_be_read_is_a_warning(
    outrider: OutriderRunner, tmp_path: Path, sqlite_url: str, event: str, time: str, warnings: list[str]
) -> None:
    file = tmp_path / "events.jsonl"
    numbers = [time.replace("0000000", f"{i:03}0000") if time.isdigit() else time for i in range(200)]
    file.write_text("".join(f'{{"ts": {number}, "x": {i % 7}}}\n' for i, number in enumerate(numbers)))
    text = (
        f"database: {{url: '{sqlite_url}'}}\nstreams: {{a: {{source: {{type: file, path: '{file}'}}, event: {event}}}}}"
    )
    result = outrider("check", config=write_config_text(tmp_path, text))
    for warning in warnings:
        assert warning in result.out


def test_readable_time_gives_no_warning(outrider: OutriderRunner, tmp_path: Path, sqlite_url: str) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(
        "".join(f'{{"ts": "2026-11-30 08:{i // 60:02}:{i % 60:02}+00", "x": {i % 7}}}\n' for i in range(200))
    )
    source = f"source: {{type: file, path: '{file}'}}, event: {{features: [x], time: {{field: ts}}}}"
    text = f"database: {{url: '{sqlite_url}'}}\nstreams: {{a: {{{source}}}}}"
    assert "warning: " not in outrider("check", config=write_config_text(tmp_path, text)).out
