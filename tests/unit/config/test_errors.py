"""Errors carry the exit code that a command ends with."""

import pytest

from config.errors import (
    BrokerUnavailable,
    ConfigError,
    ModelError,
    OutriderError,
    SchemaMismatch,
    StorageUnavailable,
)


def test_a_wrong_configuration_ends_with_2() -> None:
    assert ConfigError("outrider.yaml:1: device: ...").exit_code == 2


@pytest.mark.parametrize("kind", [SchemaMismatch, ModelError, BrokerUnavailable, StorageUnavailable])
def test_what_goes_wrong_while_running_ends_with_1(kind: type[OutriderError]) -> None:
    assert kind("the broker is away").exit_code == 1


def test_several_problems_are_several_lines() -> None:
    error = ConfigError("one", "two")
    assert str(error) == "one\ntwo"
    assert error.problems == ("one", "two")


def test_a_model_error_is_a_value_error_for_users_of_the_library() -> None:
    assert issubclass(ModelError, ValueError)
