"""`outrider init` on files: table of fields, configuration, and rejected input."""

import csv
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.loading import load
from tests.unit.monitor.cli.conftest import CommandResult, OutriderRunner

N = 600


def payment_events(n: int = N) -> list[dict[str, Any]]:
    rng = random.Random(3)
    return [
        {
            "ts": f"2026-01-01T00:{i // 60:02d}:{i % 60:02d}Z",
            "payment_id": 1_000 + i,
            "customer_id": rng.randrange(40),
            "amount": round(rng.lognormvariate(3, 1), 2),
            "card": {"age_days": rng.randrange(900)},
            "currency": rng.choice(["EUR", "USD"]),
            "version": 3,
        }
        for i in range(n)
    ]


def write_jsonl(folder: Path, n: int = N) -> Path:
    file = folder / "Payments 2026.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in payment_events(n)))
    return file


def write_csv(folder: Path) -> Path:
    file = folder / "payments.csv"
    flat = [{**event, "card": event["card"]["age_days"]} for event in payment_events()]
    with file.open("w", newline="") as target:
        writer = csv.DictWriter(target, fieldnames=list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)
    return file


def write_parquet(folder: Path) -> Path:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    flat = [{**event, "card": event["card"]["age_days"]} for event in payment_events()]
    parquet.write_table(pa.Table.from_pylist(flat), folder / "payments.parquet")
    return folder / "payments.parquet"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "first.yaml"


@pytest.fixture
def init(outrider: OutriderRunner, target: Path) -> Callable[..., CommandResult]:
    return lambda *arguments: outrider("init", *arguments, config=target)


def field_roles(out: str) -> dict[str, str]:
    """Parse the table into roles by field."""
    rows = (line.split() for line in out.splitlines()[1:] if line and not line.startswith(("Wrote", "Run", "  ")))
    return {row[0]: row[1] for row in rows if len(row) > 1}


def test_each_field_is_listed_with_role_and_reason(init: Callable[..., CommandResult], tmp_path: Path) -> None:
    result = init("--file", write_jsonl(tmp_path))
    assert result.code == 0, result.err
    assert field_roles(result.out) == {
        "ts": "time",
        "payment_id": "id",
        "customer_id": "key",
        "amount": "feature",
        "card.age_days": "feature",
        "currency": "refused",
        "version": "refused",
    }
    assert "constant, always 3" in result.out
    assert "read 600 of 600 records" in result.err


@pytest.mark.parametrize("write", [write_jsonl, write_csv, write_parquet])
def test_configuration_loads_and_uses_the_listed_roles(
    init: Callable[..., CommandResult], target: Path, tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    file = write(tmp_path)
    assert init("--file", file).code == 0
    [(name, stream)] = load(target, {}).streams.items()
    assert name.startswith("payments")
    assert stream.source.type == "file"
    assert stream.source.path == file
    assert stream.event.features in {("amount", "card.age_days"), ("amount", "card")}
    assert (stream.event.id, stream.event.key) == ("payment_id", "customer_id")
    assert stream.event.time is not None
    assert stream.event.time.field == "ts"
    assert stream.model.warm_up == 400


def test_existing_configuration_is_only_overwritten_with_force(
    init: Callable[..., CommandResult], target: Path, tmp_path: Path
) -> None:
    target.write_text("mine")
    result = init("--file", write_jsonl(tmp_path))
    assert (result.code, target.read_text()) == (2, "mine")
    assert result.err == (
        f"outrider: {target} already exists: name another file with -c, or overwrite it with --force\n"
    )
    assert init("--file", write_jsonl(tmp_path), "--force").code == 0
    assert "streams" in yaml.safe_load(target.read_text())


def test_file_with_too_few_events_is_rejected(init: Callable[..., CommandResult], target: Path, tmp_path: Path) -> None:
    result = init("--file", write_jsonl(tmp_path, 20))
    assert result.code == 2
    assert "20 events are too few, a model of 2 features needs 50; nothing was written" in result.err
    assert not target.exists()


def test_file_without_features_is_rejected_after_the_table(
    init: Callable[..., CommandResult], target: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"n": i, "name": "a"}) + "\n" for i in range(100)))
    result = init("--file", tmp_path / "x.jsonl")
    assert result.code == 2
    assert field_roles(result.out) == {"n": "refused", "name": "refused"}
    assert "no field can be a feature (see the table); nothing was written" in result.err
    assert not target.exists()


def test_empty_file_is_rejected(init: Callable[..., CommandResult], tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("")
    result = init("--file", tmp_path / "x.jsonl")
    assert result.code == 2
    assert result.err.endswith("x.jsonl has no events: name another file\n")


def test_file_in_another_format_is_described(init: Callable[..., CommandResult], tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("2026;12.5;ok\n" * 100)
    result = init("--file", tmp_path / "x.jsonl")
    assert result.code == 2
    assert "the records seem to be text that is not JSON: b'2026;12.5;ok'" in result.err


def test_records_that_are_not_events_are_counted(init: Callable[..., CommandResult], tmp_path: Path) -> None:
    file = write_jsonl(tmp_path)
    file.write_text(file.read_text() + "?\n" * 3)
    result = init("--file", file)
    assert result.code == 0
    assert "3 of them are not events (not_json 3)" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name the events to sample: --file events.jsonl, or --bootstrap-servers HOST:PORT --topic NAME"),
        (("--file", "x.jsonl", "--topic", "t"), "--file cannot be combined with a topic"),
        (("--file", "-"), "standard input can be read only once"),
        (("--file", "x.txt"), "the suffix of 'x.txt' is not a known format"),
        (("--file", "no-such.jsonl"), "there is no file 'no-such.jsonl'"),
        (("--topic", "t", "--wait", "10"), "--wait: '10' has no unit"),
        (("--topic", "a b"), "'a b' is not a topic name"),
        (("--topic", "t", "--bootstrap-servers", "here"), "'here' is not a broker address; write host:port"),
        (("--topic", "t", "--client", "x"), "write KEY=VALUE"),
        (
            ("--topic", "t", "--client", "sasl_plain_password=secret"),
            "'sasl_plain_password=${KAFKA_SASL_PLAIN_PASSWORD}'",
        ),
        (("--topic", "t", "--client", "securty_protocol=SSL"), "did you mean security_protocol?"),
    ],
)
def test_invalid_usage_is_rejected_with_a_remedy(
    init: Callable[..., CommandResult], target: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = init(*arguments)
    assert result.code == 2
    assert message in result.err
    assert not target.exists()


def test_secret_is_not_echoed(init: Callable[..., CommandResult]) -> None:
    assert "hunter2" not in init("--topic", "t", "--client", "sasl_plain_password=hunter2").err


@pytest.mark.slow
def test_init_on_a_file_imports_neither_torch_nor_kafka(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path)
    program = (
        "import sys; sys.argv = ['outrider', '-c', 'a.yaml', 'init', '--file', sys.argv[1]]\n"
        "from monitor.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n    assert 'torch' not in sys.modules and 'kafka' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(file)], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize("indent", [None, 2])
def test_json_array_is_rejected_with_a_command_that_converts_it(
    init: Callable[..., CommandResult], tmp_path: Path, indent: int | None
) -> None:
    (tmp_path / "export.json").write_text(json.dumps(payment_events(100), indent=indent))
    result = init("--file", tmp_path / "export.json")
    assert result.code == 2
    assert "(jq -c '.[]' " in result.err


def test_multi_line_json_objects_are_rejected_with_a_command_that_converts_them(
    init: Callable[..., CommandResult], tmp_path: Path
) -> None:
    (tmp_path / "export.json").write_text("\n".join(json.dumps(event, indent=2) for event in payment_events(100)))
    result = init("--file", tmp_path / "export.json")
    assert result.code == 2
    assert "(jq -c '.' " in result.err


def test_time_that_cannot_be_read_is_a_warning(
    init: Callable[..., CommandResult], target: Path, tmp_path: Path
) -> None:
    file = tmp_path / "ticks.jsonl"
    events = [{**event, "ts": 639_000_000_000_000_000 + i * 10_000_000} for i, event in enumerate(payment_events())]
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    result = init("--file", file)
    assert result.code == 0
    assert field_roles(result.out)["ts"] == "refused"
    assert "warning: ts looks like a time, but its numbers seem to be ticks of .NET" in result.err
    assert "warning: no field is the event time: events get the time of reading" in result.err
    assert "ts: a time that is not read" in target.read_text()


def test_file_that_names_more_than_a_thousand_features_is_rejected(
    init: Callable[..., CommandResult], tmp_path: Path
) -> None:
    (tmp_path / "wide.jsonl").write_text((json.dumps([float(i % 7) for i in range(1_001)]) + "\n") * 60)
    result = init("--file", tmp_path / "wide.jsonl")
    assert result.code == 2


@pytest.mark.parametrize(("jitter_s", "derives"), [(2.0, True), (300.0, False)])
def test_derived_features_are_proposed_for_regular_events_of_a_key(
    init: Callable[..., CommandResult], target: Path, tmp_path: Path, jitter_s: float, derives: bool
) -> None:
    rng = random.Random(1)
    times_s = sorted((1_767_225_600 + 60 * i + rng.uniform(0, jitter_s), i % 3) for i in range(N))
    file = tmp_path / "metrics.jsonl"
    file.write_text(
        "".join(
            json.dumps({"ts": time_s, "host": f"host-{host}", "cpu": rng.gauss(50, 5), "load": rng.random()}) + "\n"
            for time_s, host in times_s
        )
    )
    assert init("--file", file).code == 0
    (stream,) = load(target, {}).streams.values()
    assert stream.event.key == "host"
    assert stream.event.derive == ("auto" if derives else "none")
