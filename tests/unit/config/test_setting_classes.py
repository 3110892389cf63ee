"""Every setting has a class, and the shared settings of a stream survive being stored."""

from collections.abc import Iterator
from typing import Any

import pytest

from config.errors import ConfigError
from config.setting_classes import SETTING_CLASSES, apply_shared, changed_keys, hash_shared, select_shared
from config.settings import StreamSettings, config_schema

SCHEMA = config_schema()


def stream(**sections: Any) -> StreamSettings:
    return StreamSettings.model_validate({"source": {"type": "synthetic"}} | sections)


def leaf_keys(node: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield the dotted keys of all settings; `*` stands for a name or a number."""
    variants = [each for name in ("anyOf", "oneOf") for each in node.get(name, []) if "$ref" in each]
    named = node.get("additionalProperties")
    items = node.get("items", {})
    if "$ref" in node:
        yield from leaf_keys(SCHEMA["$defs"][node["$ref"].split("/")[-1]], path)
    elif variants:
        for each in variants:
            yield from leaf_keys(each, path)
    elif "properties" in node:
        for name, value in node["properties"].items():
            yield from leaf_keys(value, f"{path}.{name}".lstrip("."))
    elif isinstance(named, dict) and ("$ref" in named or "oneOf" in named):
        yield from leaf_keys(named, f"{path}.*")
    elif "$ref" in items:
        yield from leaf_keys(items, f"{path}.*")
    else:
        yield path


def test_each_setting_has_a_class() -> None:
    assert set(leaf_keys(SCHEMA)) == set(SETTING_CLASSES), "a new setting needs an entry in config/setting_classes.py"


def test_stored_settings_replace_those_of_another_file() -> None:
    own = stream(window={"size": "1m"}, event={"features": ["a"]}, model={"random_state": 3})
    other = stream(
        window={"size": "7m", "grace": "5s"},
        event={"time": {"field": "at"}, "key": "card", "max_size": "2MiB"},
        threshold={"percentile": 99, "refresh": "0 * * * *"},
        alerts={"false_alarms": "2/day", "silence_after": "30m", "drift": {"horizons": ["20m", "3h"]}},
        timezone="Europe/Berlin",
    )
    assert apply_shared(own, select_shared(other)) == other
    assert apply_shared(other, select_shared(own)) == own


def test_local_settings_have_no_influence_on_the_hash() -> None:
    own = stream()
    other = StreamSettings.model_validate({"source": {"type": "synthetic", "seed": 7}})
    assert hash_shared(select_shared(own)) == hash_shared(select_shared(other))
    assert hash_shared(select_shared(own)) != hash_shared(select_shared(stream(window={"size": "2m"})))


def test_keys_of_a_newer_version_are_ignored_and_missing_ones_are_those_of_the_file() -> None:
    own = stream(window={"size": "2m"})
    stored = {"fold": {"window.size": "3m", "window.shape": "round"}}
    applied = apply_shared(own, stored)
    assert (applied.window.size, applied.window.grace) == (stream(window={"size": "3m"}).window.size, own.window.grace)


def test_a_stored_value_that_is_not_valid_is_named() -> None:
    with pytest.raises(ConfigError, match=r"stored setting event\.format is not valid in this version"):
        apply_shared(stream(), {"fold": {"event.format": "cbor"}})


def test_changed_keys_are_those_with_different_values() -> None:
    assert changed_keys({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": None}) == ["b"]
