"""Settings and errors of each kind of source."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from config.settings import FileSourceSettings, KafkaSourceSettings, Settings, SyntheticSourceSettings
from config.sources import StartPosition, parse_start_position

HOUR_US = 3_600_000_000
Load = Callable[..., Settings]
Problem = Callable[..., str]


def stream(source: str) -> str:
    return f"streams:\n  s:\n    source: {{{source}}}\n"


def synthetic(load_text: Load, keys: str = "") -> SyntheticSourceSettings:
    source = load_text(stream(f"type: synthetic{keys}")).streams["s"].source
    assert isinstance(source, SyntheticSourceSettings)
    return source


def test_default_group_of_a_kafka_source_is_named_after_its_stream(load_text: Load) -> None:
    source = load_text(stream("type: kafka, topics: [a, b.c-d_e]")).streams["s"].source
    assert isinstance(source, KafkaSourceSettings)
    assert source.group_id == "outrider-s"
    assert source.topics == ("a", "b.c-d_e")
    assert source.initial_position == StartPosition(kind="earliest")


def test_group_can_be_configured(load_text: Load) -> None:
    assert load_text(stream("type: kafka, topics: [t], group_id: mine")).streams["s"].group_id == "mine"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("type: kafka", "s.source.topics: is missing"),
        ("type: kafka, topics: []", "at least one entry"),
        ("type: kafka, topics: [a, a]", "contains 'a' twice"),
        ("type: kafka, topics: [7]", "put a number between quotes"),
        ("type: kafka, topics: ['a b']", "'a b' is not a topic name"),
        ("type: kafka, topics: ['..']", "'..' is not a topic name"),
        ("type: kafka, topics: [t], group_id: ''", "s.source.group_id: must not be empty"),
        (
            "type: kafka, topics: [t], path: x.csv",
            "s.source.path: unknown key; it belongs at streams.s.source.path",
        ),
        (
            "type: kafka, topics: [t], topisc: [u]",
            "s.source.topisc: unknown key; did you mean streams.s.source.topics?",
        ),
        ("type: kafak, topics: [t]", "'kafak' is not known; did you mean kafka?"),
        ("topics: [t]", "s.source: needs a type: kafka, file or synthetic"),
        ("type: file", "s.source.path: is missing"),
        ("type: file, path: events.txt", "the suffix of 'events.txt' is not a known format"),
        ("type: file, path: ''", "is not a known format"),
        ("type: synthetic, rate: 0", "s.source.rate: must be greater than 0"),
        ("type: synthetic, rate: true", "must be a number, not true"),
        ("type: synthetic, speed: .inf", "s.source.speed: must be a number"),
        ("type: synthetic, burst_share: 1.5", "s.source.burst_share: must be at most 1"),
        ("type: synthetic, burst_length: 30m", "s.source.burst_length: must be shorter than burst_every"),
        ("type: synthetic, start: now", "s.source.start: 'now' is not a time"),
        ("type: synthetic, seed: 1.5", "s.source.seed: must be a whole number"),
    ],
)
def test_invalid_source_is_an_error_that_names_the_key(problem_of: Problem, source: str, message: str) -> None:
    line = problem_of(stream(source))
    assert line.startswith("outrider.yaml:3: streams.s.source")
    assert message in line


def test_source_that_is_not_a_mapping_is_an_error(problem_of: Problem) -> None:
    assert "streams.s.source: " in problem_of("streams: {s: {source: kafka}}\n")


@pytest.mark.parametrize(
    ("path", "file_format"),
    [
        ("e.jsonl", "jsonl"),
        ("e.ndjson", "jsonl"),
        ("e.json", "jsonl"),
        ("e.CSV", "csv"),
        ("dir/e.parquet", "parquet"),
        ("-", "jsonl"),
    ],
)
def test_suffix_determines_the_file_format(load_text: Load, path: str, file_format: str) -> None:
    source = load_text(stream(f"type: file, path: '{path}'")).streams["s"].source
    assert isinstance(source, FileSourceSettings)
    assert source.file_format == file_format
    assert source.is_stdin == (path == "-")
    assert source.path == Path(path)


def test_file_is_read_from_its_beginning(load_text: Load) -> None:
    settings = load_text(stream("type: file, path: e.csv"))
    assert settings.streams["s"].source.initial_position == StartPosition(kind="earliest")
    assert settings.streams["s"].group_id is None


@pytest.mark.parametrize("event_format", ["float32", "msgpack"])
def test_event_format_of_a_file_source_is_an_error(problem_of: Problem, event_format: str) -> None:
    text = stream("type: file, path: e.jsonl") + f"    event: {{format: {event_format}}}\n"
    assert problem_of(text).startswith(f"outrider.yaml:4: streams.s.event.format: {event_format} records come from")


def test_synthetic_source_has_defaults_for_all_keys(load_text: Load) -> None:
    source = synthetic(load_text)
    assert (source.seed, source.rate, source.events, source.speed) == (1, 500.0, None, 1.0)
    assert (source.start, source.features, source.partitions) == (None, 4, 1)
    assert (source.first_burst, source.burst_every) == (timedelta(minutes=10), timedelta(minutes=30))
    assert (source.burst_length, source.burst_share) == (timedelta(minutes=1), 0.1)
    assert (source.drift_after, source.drift_shift) == (None, 0.5)
    assert source.initial_position == StartPosition(kind="earliest")


def test_synthetic_source_can_start_at_a_time(load_text: Load) -> None:
    source = synthetic(load_text, ", start: 1970-01-01T00:00:01Z, speed: 0, drift_after: 2h")
    assert source.start == 1_000_000
    assert source.speed == 0
    assert source.drift_after == timedelta(hours=2)


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("earliest", "earliest"),
        ("latest", "latest"),
        ("24h ago", 76 * HOUR_US),
        ("24h", 76 * HOUR_US),
        ("200h ago", 0),
        ("1970-01-01T02:00:00Z", 2 * HOUR_US),
    ],
)
def test_start_resolves_to_an_end_of_the_log_or_a_time(text: str, resolved: object) -> None:
    assert parse_start_position(text).resolve(now_us=100 * HOUR_US) == resolved


@pytest.mark.parametrize("text", ["earliest", "latest", "1d ago", "1970-01-01T02:00:00.000000Z"])
def test_formatted_start_round_trips(text: str) -> None:
    assert str(parse_start_position(text)) == text


@pytest.mark.parametrize("start", ["soon", "24", "ago", "2026-01-31", "24h later", "true", "-1h"])
def test_invalid_start_is_an_error_with_the_accepted_forms(problem_of: Problem, start: str) -> None:
    line = problem_of(stream(f"type: kafka, topics: [t], start: {start}"))
    assert "is not a start position: write earliest, latest, a duration (24h ago) or a time" in line
