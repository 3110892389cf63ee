"""Exit codes and messages of errors."""

import pytest

from config.errors import (
    BrokerUnavailable,
    ConfigError,
    ModelError,
    OutriderError,
    SchemaMismatch,
    StorageUnavailable,
)


def test_config_error_has_exit_code_2() -> None:
    assert ConfigError("outrider.yaml:1: device: ...").exit_code == 2


@pytest.mark.parametrize("kind", [SchemaMismatch, ModelError, BrokerUnavailable, StorageUnavailable])
def test_run_time_error_has_exit_code_1(kind: type[OutriderError]) -> None:
    assert kind("the broker is away").exit_code == 1


def test_config_error_has_one_line_per_problem() -> None:
    error = ConfigError("one", "two")
    assert str(error) == "one\ntwo"
    assert error.problems == ("one", "two")


def test_model_error_is_a_value_error() -> None:
    assert issubclass(ModelError, ValueError)
