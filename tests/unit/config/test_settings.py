"""All settings: the database, checks across streams, the masked form and the JSON Schema."""

import json
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from config.loading import load
from config.settings import Settings, config_schema

from .conftest import ONE_STREAM

Load = Callable[..., Settings]
Problem = Callable[..., str]
Problems = Callable[..., tuple[str, ...]]


@pytest.mark.parametrize(
    ("url", "sqlalchemy_url"),
    [
        ("sqlite:///outrider.db", "sqlite:///outrider.db"),
        ("sqlite:////var/lib/outrider.db", "sqlite:////var/lib/outrider.db"),
        ("postgresql://ann:p%40w@db:5432/o", "postgresql+psycopg://ann:p%40w@db:5432/o"),
        ("postgres://ann@db/o", "postgresql+psycopg://ann@db/o"),
        ("postgresql+psycopg://db/o", "postgresql+psycopg://db/o"),
        ("postgresql:///o?host=/run/postgresql", "postgresql+psycopg:///o?host=/run/postgresql"),
    ],
)
def test_database_address_is_converted_to_a_sqlalchemy_url(load_text: Load, url: str, sqlalchemy_url: str) -> None:
    assert load_text(f"database: {{url: '{url}'}}\n" + ONE_STREAM).database.sqlalchemy_url == sqlalchemy_url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgrs://db/o", "postgrs://; did you mean postgres://?"),
        ("postgresq://db/o", "did you mean postgresql://?"),
        ("sqllite:///x.db", "did you mean sqlite://?"),
        ("postgresql+psycopg2://db/o", "did you mean postgresql://?"),
        ("mysql://db/o", "mysql://; write sqlite:///outrider.db or postgresql://user@host/database"),
        ("outrider.db", "is not a database address; write sqlite:///outrider.db"),
        ("sqlite://outrider.db", "two slashes where sqlite has three"),
        ("sqlite://", "two slashes where sqlite has three"),
        ("sqlite:///:memory:", "in-memory database, which is lost when the process ends"),
        ("postgresql://db", "has no database name after the host"),
    ],
)
def test_invalid_database_address_is_an_error_with_a_remedy(problem_of: Problem, url: str, message: str) -> None:
    line = problem_of(f"database: {{url: '{url}'}}\n" + ONE_STREAM)
    assert line.startswith("outrider.yaml:1: database.url: ")
    assert message in line


def test_alias_of_a_device_suggests_its_name(problem_of: Problem) -> None:
    assert problem_of("device: gpu\n" + ONE_STREAM).startswith("outrider.yaml:1: device: 'gpu' is not known; did you")
    assert "did you mean cuda?" in problem_of("device: gpu\n" + ONE_STREAM)


def test_unknown_key_is_an_error_with_its_line_and_the_nearest_key(problem_of: Problem) -> None:
    line = problem_of("databse: {}\n" + ONE_STREAM)
    assert line == "outrider.yaml:1: databse: unknown key; did you mean database?"


def test_unknown_key_without_a_near_match_lists_the_known_keys(problem_of: Problem) -> None:
    line = problem_of("zzz: 1\n" + ONE_STREAM)
    assert line.endswith(
        "zzz: unknown key; known keys here: database, device, kafka, logging, metrics, notify, retention, server, "
        "streams"
    )


def test_misplaced_key_suggests_its_section(problem_of: Problem) -> None:
    line = problem_of("bootstrap_servers: ['a:1']\n" + ONE_STREAM)
    assert line.endswith("bootstrap_servers: unknown key; it belongs at kafka.bootstrap_servers")


def test_key_of_another_section_is_not_suggested_for_a_nested_key(problem_of: Problem) -> None:
    line = problem_of("notify: {channels: {l: {type: log, path: x}}}\n" + ONE_STREAM)
    assert line.endswith("notify.channels.l.path: unknown key; known keys here: type")


@pytest.mark.parametrize("name", ["Payments", "1st", "a-b", "_a", "ä", ""])
def test_invalid_stream_name_is_an_error(problem_of: Problem, name: str) -> None:
    line = problem_of(f"streams: {{'{name}': {{source: {{type: kafka, topics: [t]}}}}}}\n")
    assert "is not a stream name; use a-z, 0-9 and _, a letter first" in line


def test_two_streams_of_one_group_cannot_share_a_topic(problem_of: Problem) -> None:
    source = "{source: {type: kafka, topics: [t], group_id: g}}"
    line = problem_of(f"streams:\n  a: {source}\n  b: {source}\n")
    assert line.startswith("outrider.yaml:3: streams.b.source.group_id: streams a and b read topic 't' in one group")


def test_two_streams_can_read_one_topic_in_separate_groups(load_text: Load) -> None:
    source = "{source: {type: kafka, topics: [t]}}"
    settings = load_text(f"streams:\n  a: {source}\n  b: {source}\n")
    assert [stream.group_id for stream in settings.streams.values()] == ["outrider-a", "outrider-b"]


def test_window_retention_covers_the_look_back(problem_of: Problem) -> None:
    line = problem_of("retention: {windows: 1h}\n" + ONE_STREAM)
    assert line.startswith("outrider.yaml:1: retention.windows: must be at least streams.payments.threshold.look_back")


def test_retention_must_be_positive(problem_of: Problem) -> None:
    assert "retention.scores: must be longer than zero" in problem_of("retention: {scores: 0s}\n" + ONE_STREAM)


def test_all_problems_are_reported_at_once(problems_of: Problems) -> None:
    text = (
        "databse: {}\ndevice: gpu\nkafka: {bootstrap_servers: here, client: {group_id: x}}\n"
        "streams:\n  s:\n    source: {type: kafka, topics: [t]}\n    window: {size: 10}\n"
        "retention: {scores: '${NOWHERE}'}\n"
    )
    lines = problems_of(text, {"OUTRIDER_FOO__BAR": "1"})
    assert {line.split(": ")[1] for line in lines} == {
        "databse",
        "device",
        "kafka.bootstrap_servers",
        "kafka.client.group_id",
        "streams.s.window.size",
        "retention.scores",
        "foo",
    }
    assert all("\n" not in line for line in lines)


def test_all_inconsistencies_are_reported_at_once(problems_of: Problems) -> None:
    text = (
        "streams:\n  A: {source: {type: kafka, topics: [t]}}\nretention: {windows: 1h}\n"
        "notify: {channels: {log: {type: log}}, routes: [{match: {stream: b}, channels: [log]}]}\n"
    )
    assert len(problems_of(text)) == 3


def test_settings_are_immutable(load_text: Load) -> None:
    settings = load_text(ONE_STREAM)
    with pytest.raises(ValidationError, match="frozen"):
        settings.device = "cpu"  # type: ignore[misc]


def test_masked_settings_are_a_valid_configuration(load_text: Load) -> None:
    text = (
        "streams:\n  a:\n    source: {type: kafka, topics: [t], start: 24h ago}\n"
        "    event: {features: [x, y], time: {field: ts, unit: ms}}\n"
        "    threshold: {refresh: '0 * * * *'}\n    alerts: {false_alarms: 0.5/week}\n"
        "  b: {source: {type: synthetic, start: 2026-01-31T08:00:00Z}}\n"
        "  c: {source: {type: file, path: x.csv}}\n"
        "notify: {channels: {x: {type: log}}, routes: [{match: {kind: spike}, channels: x}]}\n"
    )
    settings = load_text(text)
    assert load_text(json.dumps(settings.masked())) == settings


def test_settings_can_be_built_from_a_mapping() -> None:
    settings = Settings.model_validate({"streams": {"s": {"source": {"type": "file", "path": "e.csv"}}}})
    assert settings == load(None, {"OUTRIDER_STREAMS__S__SOURCE": '{"type": "file", "path": "e.csv"}'})


def test_schema_contains_every_key_and_requires_streams() -> None:
    schema = config_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["streams"]
    sections = {"database", "device", "kafka", "streams", "notify", "retention", "logging", "metrics", "server"}
    assert set(schema["properties"]) == sections
    window = schema["$defs"]["WindowSettings"]
    assert set(window["properties"]) == {"size", "grace", "idle_timeout", "ahead", "max_future"}
    assert window["additionalProperties"] is False
    assert [each.get("type", each.get("const")) for each in window["properties"]["size"]["anyOf"]] == ["auto", "string"]
    assert window["properties"]["size"]["default"] == "1m"


def test_schema_defaults_are_in_the_form_of_the_file() -> None:
    definitions = config_schema()["$defs"]
    assert definitions["DriftSettings"]["properties"]["horizons"]["default"] == ["10m", "1h", "1d"]
    assert definitions["AlertSettings"]["properties"]["false_alarms"]["default"] == "1/week"
    assert "default" not in definitions["KafkaSourceSettings"]["properties"]["group_id"]
    assert '"PT' not in json.dumps(config_schema())


def test_schema_is_json() -> None:
    assert json.loads(json.dumps(config_schema())) == config_schema()


def test_every_key_of_the_schema_has_a_description() -> None:
    bare = [
        f"{name}.{key}"
        for name, section in config_schema()["$defs"].items()
        for key, described in section["properties"].items()
        if key != "type" and "description" not in described
    ]
    assert bare == []
