"""The environment goes over the file, which goes over the defaults; texts may name variables."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from config.loading import load
from config.settings import FileSourceSettings, KafkaSourceSettings, Settings

from .conftest import ONE_STREAM

Load = Callable[..., Settings]


def test_a_default_holds_where_nothing_is_set(load_text: Load) -> None:
    assert load_text(ONE_STREAM).database.url == "sqlite:///outrider.db"


def test_the_file_goes_over_the_default(load_text: Load) -> None:
    assert load_text("database: {url: 'sqlite:///file.db'}\n" + ONE_STREAM).database.url == "sqlite:///file.db"


def test_the_environment_goes_over_the_file(load_text: Load) -> None:
    settings = load_text(
        "database: {url: 'sqlite:///file.db'}\n" + ONE_STREAM, {"OUTRIDER_DATABASE__URL": "sqlite:///env.db"}
    )
    assert settings.database.url == "sqlite:///env.db"


def test_a_variable_reaches_deep_into_a_stream(load_text: Load) -> None:
    settings = load_text(ONE_STREAM, {"OUTRIDER_STREAMS__PAYMENTS__WINDOW__SIZE": "10s"})
    assert settings.streams["payments"].window.size == timedelta(seconds=10)
    assert settings.streams["payments"].window.grace == timedelta(seconds=10)


def test_a_variable_reaches_into_a_section_that_the_file_left_empty(load_text: Load) -> None:
    settings = load_text("database:\n" + ONE_STREAM, {"OUTRIDER_DATABASE__URL": "sqlite:///env.db"})
    assert settings.database.url == "sqlite:///env.db"


def test_numbers_and_truths_are_read_from_variables(load_text: Load) -> None:
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
def test_a_list_is_read_from_a_variable_with_commas_or_as_json(load_text: Load, text: str) -> None:
    assert load_text(ONE_STREAM, {"OUTRIDER_KAFKA__BOOTSTRAP_SERVERS": text}).kafka.bootstrap_servers == (
        "a:1",
        "b:2",
    )


def test_a_whole_section_is_read_from_a_variable_as_json() -> None:
    settings = load(None, {"OUTRIDER_STREAMS": '{"s": {"source": {"type": "file", "path": "e.csv"}}}'})
    assert isinstance(settings.streams["s"].source, FileSourceSettings)


def test_a_stream_can_be_set_by_variables_alone() -> None:
    settings = load(
        None,
        {"OUTRIDER_STREAMS__S__SOURCE__TYPE": "kafka", "OUTRIDER_STREAMS__S__SOURCE__TOPICS": "a,b"},
    )
    source = settings.streams["s"].source
    assert isinstance(source, KafkaSourceSettings)
    assert source.topics == ("a", "b")


def test_json_that_breaks_is_named_with_its_variable(problem_of: Callable[..., str]) -> None:
    line = problem_of(ONE_STREAM, {"OUTRIDER_NOTIFY__ROUTES": "[{"})
    assert line.startswith("environment variable OUTRIDER_NOTIFY__ROUTES: notify.routes: is not JSON: ")


def test_a_value_that_looks_like_json_stays_a_text_where_a_text_is_wanted(load_text: Load) -> None:
    settings = load_text(ONE_STREAM, {"OUTRIDER_KAFKA__CLIENT__SASL_PLAIN_PASSWORD": "{curly"})
    assert settings.kafka.client["sasl_plain_password"] == "{curly"


def test_a_name_with_capitals_is_found_by_its_variable(load_text: Load) -> None:
    text = ONE_STREAM + "notify: {channels: {Ops: {type: log}}}\n"
    settings = load_text(text, {"OUTRIDER_NOTIFY__CHANNELS__OPS__TYPE": "log"})
    assert list(settings.notify.channels) == ["Ops"]


def test_a_wrong_value_is_named_with_its_variable(problem_of: Callable[..., str]) -> None:
    line = problem_of(ONE_STREAM, {"OUTRIDER_STREAMS__PAYMENTS__WINDOW__SIZE": "10"})
    name = "OUTRIDER_STREAMS__PAYMENTS__WINDOW__SIZE"
    assert line.startswith(f"environment variable {name}: streams.payments.window.size: '10' has no unit")


def test_a_variable_over_a_line_of_the_file_is_blamed(problem_of: Callable[..., str]) -> None:
    line = problem_of("retention: {scores: 7d}\n" + ONE_STREAM, {"OUTRIDER_RETENTION": '{"scores": "7"}'})
    assert line.startswith("environment variable OUTRIDER_RETENTION: retention.scores: ")


def test_an_unknown_key_in_a_variable_gets_the_nearest_known(problem_of: Callable[..., str]) -> None:
    line = problem_of(ONE_STREAM, {"OUTRIDER_DATABSE__URL": "sqlite:///x.db"})
    assert line == "environment variable OUTRIDER_DATABSE__URL: databse: unknown key; did you mean database?"


def test_one_underscore_for_two_is_recognised(problem_of: Callable[..., str]) -> None:
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
def test_variables_of_the_command_and_of_kubernetes_are_no_settings(load_text: Load, name: str) -> None:
    assert load_text(ONE_STREAM, {name: "x"}) == load_text(ONE_STREAM)


def test_a_text_may_name_variables(load_text: Load) -> None:
    text = "database: {url: 'postgresql://${USER}:${PASSWORD}@db/outrider'}\n" + ONE_STREAM
    settings = load_text(text, {"USER": "ann", "PASSWORD": "s3cret"})
    assert settings.database.url == "postgresql://ann:s3cret@db/outrider"


def test_a_variable_inside_a_list_is_replaced(load_text: Load) -> None:
    settings = load_text("kafka: {bootstrap_servers: ['${HOST}:9092']}\n" + ONE_STREAM, {"HOST": "broker"})
    assert settings.kafka.bootstrap_servers == ("broker:9092",)


def test_a_doubled_dollar_keeps_the_braces(load_text: Load) -> None:
    settings = load_text("kafka: {client: {client_id: '$${HOST}'}}\n" + ONE_STREAM)
    assert settings.kafka.client["client_id"] == "${HOST}"


def test_what_a_variable_holds_is_not_looked_through_again(load_text: Load) -> None:
    settings = load_text("kafka: {client: {client_id: '${A}'}}\n" + ONE_STREAM, {"A": "${B}"})
    assert settings.kafka.client["client_id"] == "${B}"


def test_a_variable_that_a_text_names_is_no_setting_itself(load_text: Load) -> None:
    text = "database: {url: 'postgresql://u:${OUTRIDER_DB_PASSWORD}@db/o'}\n" + ONE_STREAM
    assert load_text(text, {"OUTRIDER_DB_PASSWORD": "pw"}).database.url == "postgresql://u:pw@db/o"


def test_a_missing_variable_is_named_with_its_key(problem_of: Callable[..., str]) -> None:
    line = problem_of("database: {url: '${NOWHERE}'}\n" + ONE_STREAM)
    assert line.startswith("outrider.yaml:1: database.url: the environment variable NOWHERE is not set; set it")


def test_a_form_that_is_no_variable_name_is_an_error(problem_of: Callable[..., str]) -> None:
    assert "names no variable" in problem_of("database: {url: '${A:-b}'}\n" + ONE_STREAM)


def test_what_a_variable_holds_is_not_repeated_in_an_error(problem_of: Callable[..., str]) -> None:
    line = problem_of("device: ${PASSWORD}\n" + ONE_STREAM, {"PASSWORD": "hunter2'\\x"})
    assert "hunter2" not in line
    assert "${PASSWORD}" in line
