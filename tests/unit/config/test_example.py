"""The annotated example equals the defaults and describes every key."""

from collections.abc import Callable
from typing import Any

from config.loading import example_text
from config.settings import Settings, config_schema

from .conftest import ONE_STREAM

Load = Callable[..., Settings]


def test_example_equals_the_defaults(load_text: Load) -> None:
    assert load_text(example_text()) == load_text(ONE_STREAM)


def test_example_contains_every_key(load_text: Load) -> None:
    written = _keys(load_text(example_text()).masked())
    lines = [line.strip() for line in example_text().splitlines()]
    assert [key for key in written if not any(line.startswith(f"{key}:") for line in lines)] == ["security_protocol"]


def test_comment_above_each_key_of_the_example_has_the_default() -> None:
    bare, comment = [], ""
    for line in map(str.strip, example_text().splitlines()):
        if line.startswith("#"):
            comment += line
            continue
        if line and not line.endswith(":") and "efault" not in comment:
            bare.append(line)
        comment = ""
    assert bare == []


def test_example_contains_every_key_of_the_other_sources() -> None:
    definitions = config_schema()["$defs"]
    for name in ("FileSourceSettings", "SyntheticSourceSettings"):
        for key in definitions[name]["properties"]:
            assert f"#   {key}: " in example_text()


def _keys(tree: dict[str, Any]) -> list[str]:
    found = []
    for key, value in tree.items():
        found.append(key)
        if isinstance(value, dict):
            found += _keys(value)
    return found
