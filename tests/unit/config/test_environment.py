"""Overrides by the environment and the file, and substitution of variables in texts."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from config.errors import ConfigError
from config.loading import load
from config.settings import FileSourceSettings, KafkaSourceSettings, Settings

from .conftest import ONE_STREAM

Load = Callable[..., Settings]


def test_default_applies_without_a_setting(load_text: Load) -> None:
    assert load_text(ONE_STREAM).database.url == "sqlite:///outrider.db"


def test_file_overrides_the_default(load_text: Load) -> None:
    assert load_text("database: {url: 'sqlite:///file.db'}\n" + ONE_STREAM).database.url == "sqlite:///file.db"


def test_environment_overrides_the_file(load_text: Load) -> None:
    settings = load_text(
        "database: {url: 'sqlite:///file.db'}\n" + ONE_STREAM, {"OUTRIDER_DATABASE__URL": "sqlite:///env.db"}
    )
    assert settings.database.url == "sqlite:///env.db"


def test_variable_sets_a_nested_key_of_a_stream(load_text: Load) -> None:
    settings = load_text(ONE_STREAM, {"OUTRIDER_STREAMS__PAYMENTS__WINDOW__SIZE": "10s"})
    assert settings.streams["payments"].window.size == timedelta(seconds=10)
    assert settings.streams["payments"].window.grace == timedelta(seconds=10)


def test_variable_sets_a_key_of_an_empty_section(load_text: Load) -> None:
    settings = load_text("database:\n" + ONE_STREAM, {"OUTRIDER_DATABASE__URL": "sqlite:///env.db"})
    assert settings.database.url == "sqlite:///env.db"


def test_numbers_and_booleans_are_parsed_from_variables(load_text: Load) -> None:
    settings = load_text(
        ONE_STREAM,
        {
            "OUTRIDER_STREAMS__PAYMENTS__MODEL__WARM_UP": "500",
            "OUTRIDER_STREAMS__PAYMENTS__MODEL__N_COMPONENTS": "3",
            "OUTRIDER_STREAMS__PAYMENTS__THRESHOLD__PERCENTILE": "99.9",
            "OUTRIDER_KAFKA__CLIENT__SESSION_TIMEOUT_MS": "6000",
            "OUTRIDER_KAFKA__CLIENT__CHECK_CRCS": "false",
        },
    )
    stream = settings.streams["payments"]
    assert (stream.model.warm_up, stream.model.n_components, stream.threshold.percentile) == (500, 3, 99.9)
    assert settings.kafka.client["session_timeout_ms"] == 6000
    assert settings.kafka.client["check_crcs"] is False


@pytest.mark.parametrize("text", ["a:1, b:2", '["a:1", "b:2"]'])
def test_list_is_parsed_from_a_variable_with_commas_or_json(load_text: Load, text: str) -> None:
    assert load_text(ONE_STREAM, {"OUTRIDER_KAFKA__BOOTSTRAP_SERVERS": text}).kafka.bootstrap_servers == (
        "a:1",
        "b:2",
    )


def test_section_is_parsed_from_a_variable_as_json() -> None:
    settings = load(None, {"OUTRIDER_STREAMS": '{"s": {"source": {"type": "file", "path": "e.csv"}}}'})
    assert isinstance(settings.streams["s"].source, FileSourceSettings)


def test_stream_can_be_configured_by_variables_alone() -> None:
    settings = load(
        None,
        {"OUTRIDER_STREAMS__S__SOURCE__TYPE": "kafka", "OUTRIDER_STREAMS__S__SOURCE__TOPICS": "a,b"},
    )
    source = settings.streams["s"].source
    assert isinstance(source, KafkaSourceSettings)
    assert source.topics == ("a", "b")


def test_invalid_json_is_an_error_that_names_the_variable(problem_of: Callable[..., str]) -> None:
    line = problem_of(ONE_STREAM, {"OUTRIDER_NOTIFY__ROUTES": "[{"})
    assert line.startswith("environment variable OUTRIDER_NOTIFY__ROUTES: notify.routes: is not JSON: ")


def test_json_like_value_of_a_text_key_stays_a_text(load_text: Load) -> None:
    settings = load_text(ONE_STREAM, {"OUTRIDER_KAFKA__CLIENT__SASL_PLAIN_PASSWORD": "{curly"})
    assert settings.kafka.client["sasl_plain_password"] == "{curly"


def test_name_with_upper_case_letters_is_matched_by_its_variable(load_text: Load) -> None:
    text = ONE_STREAM + "notify: {channels: {Ops: {type: log}}}\n"
    settings = load_text(text, {"OUTRIDER_NOTIFY__CHANNELS__OPS__TYPE": "log"})
    assert list(settings.notify.channels) == ["Ops"]


def test_invalid_value_is_an_error_that_names_the_variable(problem_of: Callable[..., str]) -> None:
    line = problem_of(ONE_STREAM, {"OUTRIDER_STREAMS__PAYMENTS__WINDOW__SIZE": "10"})
    name = "OUTRIDER_STREAMS__PAYMENTS__WINDOW__SIZE"
    assert line.startswith(f"environment variable {name}: streams.payments.window.size: '10' has no unit")


def test_error_names_the_variable_that_overrides_the_file(problem_of: Callable[..., str]) -> None:
    line = problem_of("retention: {scores: 7d}\n" + ONE_STREAM, {"OUTRIDER_RETENTION": '{"scores": "7"}'})
    assert line.startswith("environment variable OUTRIDER_RETENTION: retention.scores: ")


def test_unknown_key_in_a_variable_suggests_the_nearest(problem_of: Callable[..., str]) -> None:
    line = problem_of(ONE_STREAM, {"OUTRIDER_DATABSE__URL": "sqlite:///x.db"})
    assert line == "environment variable OUTRIDER_DATABSE__URL: databse: unknown key; did you mean database?"


def test_single_underscore_instead_of_two_is_recognised(problem_of: Callable[..., str]) -> None:
    line = problem_of(ONE_STREAM, {"OUTRIDER_DATABASE_URL": "sqlite:///x.db"})
    assert "did you mean database__url (two underscores)" in line


@pytest.mark.parametrize(
    "name",
    [
        "OUTRIDER_CONFIG",
        "OUTRIDER_SERVICE_HOST",
        "OUTRIDER_SERVICE_PORT",
        "OUTRIDER_SERVICE_PORT_HTTP",
        "OUTRIDER_PORT",
        "OUTRIDER_PORT_80_TCP_ADDR",
        "OUTRIDER_DB_SERVICE_HOST",
        "UNRELATED",
    ],
)
def test_variables_of_the_command_and_of_kubernetes_are_ignored(load_text: Load, name: str) -> None:
    assert load_text(ONE_STREAM, {name: "x"}) == load_text(ONE_STREAM)


def test_variables_in_a_text_are_substituted(load_text: Load) -> None:
    text = "database: {url: 'postgresql://${USER}:${PASSWORD}@db/outrider'}\n" + ONE_STREAM
    settings = load_text(text, {"USER": "ann", "PASSWORD": "s3cret"})
    assert settings.database.url == "postgresql://ann:s3cret@db/outrider"


def test_variable_inside_a_list_is_substituted(load_text: Load) -> None:
    settings = load_text("kafka: {bootstrap_servers: ['${HOST}:9092']}\n" + ONE_STREAM, {"HOST": "broker"})
    assert settings.kafka.bootstrap_servers == ("broker:9092",)


def test_doubled_dollar_is_a_literal_reference(load_text: Load) -> None:
    settings = load_text("kafka: {client: {client_id: '$${HOST}'}}\n" + ONE_STREAM)
    assert settings.kafka.client["client_id"] == "${HOST}"


def test_substituted_value_is_not_substituted_again(load_text: Load) -> None:
    settings = load_text("kafka: {client: {client_id: '${A}'}}\n" + ONE_STREAM, {"A": "${B}"})
    assert settings.kafka.client["client_id"] == "${B}"


def test_variable_referenced_by_a_text_is_not_a_setting(load_text: Load) -> None:
    text = "database: {url: 'postgresql://u:${OUTRIDER_DB_PASSWORD}@db/o'}\n" + ONE_STREAM
    assert load_text(text, {"OUTRIDER_DB_PASSWORD": "pw"}).database.url == "postgresql://u:pw@db/o"


def test_missing_variable_is_an_error_that_names_the_key(problem_of: Callable[..., str]) -> None:
    line = problem_of("database: {url: '${NOWHERE}'}\n" + ONE_STREAM)
    assert line.startswith("outrider.yaml:1: database.url: the environment variable NOWHERE is not set; set it")


def test_invalid_variable_reference_is_an_error(problem_of: Callable[..., str]) -> None:
    assert "is not a variable reference" in problem_of("database: {url: '${A:-b}'}\n" + ONE_STREAM)


def test_error_does_not_contain_the_value_of_a_variable(problem_of: Callable[..., str]) -> None:
    line = problem_of("device: ${PASSWORD}\n" + ONE_STREAM, {"PASSWORD": "hunter2'\\x"})
    assert "hunter2" not in line
    assert "${PASSWORD}" in line


@pytest.mark.parametrize("name", ["NOTIFY__ROUTES", "KAFKA__BOOTSTRAP_SERVERS"])
def test_json_of_a_variable_that_is_nested_too_deep_is_refused(load_text: Load, name: str) -> None:
    with pytest.raises(ConfigError, match="nested too deep") as error:
        load_text(ONE_STREAM, {f"OUTRIDER_{name}": "[" * 100_000})
    assert len(error.value.problems) == 1
