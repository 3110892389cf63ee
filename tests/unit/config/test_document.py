"""Reading of YAML without the pitfalls of YAML 1.1, and errors with line numbers."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from config.document import format_path, parse_document
from config.errors import ConfigError
from config.loading import load


def values(text: str) -> object:
    return parse_document(text, "outrider.yaml").values


def refused(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as error:
        parse_document(text, "outrider.yaml")
    return error.value.problems


def test_words_and_times_are_texts() -> None:
    text = "{a: on, b: no, c: 1:30, d: 2026-01-31T08:00:00Z, e: 2026-01-31, f: 010, g: y, h: 1_000}"
    assert values(text) == {
        "a": "on",
        "b": "no",
        "c": "1:30",
        "d": "2026-01-31T08:00:00Z",
        "e": "2026-01-31",
        "f": "010",
        "g": "y",
        "h": "1_000",
    }


def test_numbers_booleans_and_null_are_parsed() -> None:
    assert values("{a: 1, b: -1.5, c: true, d: False, e: ~, f: null, g: , h: 1.0e3}") == {
        "a": 1,
        "b": -1.5,
        "c": True,
        "d": False,
        "e": None,
        "f": None,
        "g": None,
        "h": 1000.0,
    }


def test_empty_file_has_no_values() -> None:
    assert values("# nothing yet\n") == {}


def test_each_key_has_its_line() -> None:
    document = parse_document("a:\n  b: 1\n  c: [x,\n    y]\n", "f.yaml")
    assert document.places["a", "b"] == "f.yaml:2"
    assert document.places["a", "c", 1] == "f.yaml:4"


def test_merge_keys_are_applied_and_own_keys_take_precedence() -> None:
    text = "base: &base {a: 1, b: 2}\nmine: {<<: *base, b: 3}\n"
    assert values(text) == {"base": {"a": 1, "b": 2}, "mine": {"a": 1, "b": 3}}


def test_duplicate_key_is_an_error_with_both_lines() -> None:
    assert refused("a:\n  b: 1\n  b: 2\n") == (
        "outrider.yaml:3: a.b: is a duplicate key, first on line 2; leave one out",
    )


def test_every_duplicate_key_is_reported() -> None:
    assert len(refused("a: 1\na: 2\nb: {c: 1, c: 2}\n")) == 2


def test_number_as_a_key_is_an_error() -> None:
    assert refused("1: x\n") == ("outrider.yaml:1: 1: a key must be a text; put it between quotes",)


def test_list_as_a_key_is_an_error() -> None:
    assert "a key must be a text" in refused("? [a, b]\n: x\n")[0]


def test_recursive_anchor_is_an_error() -> None:
    assert "refers to itself" in refused("a: &a {b: *a}\n")[0]


def test_syntax_error_has_line_and_column() -> None:
    (line,) = refused("a: 1\nb: [1, 2\nc: 3\n")
    assert line.startswith("outrider.yaml:3:2: is not YAML: ")


def test_tab_error_has_line_and_column() -> None:
    assert refused("a:\n\tb: 1\n")[0].startswith("outrider.yaml:2:1: is not YAML: ")


def test_control_character_error_has_one_line() -> None:
    (line,) = refused("a: \x00\n")
    assert line.startswith("outrider.yaml: is not YAML: ")
    assert "\n" not in line


def test_second_document_is_an_error() -> None:
    assert "is not YAML" in refused("a: 1\n---\nb: 2\n")[0]


def test_tags_cannot_create_objects() -> None:
    assert "is not YAML" in refused("a: !!python/name:os.system\n")[0]


@pytest.mark.parametrize("text", ["[a, b]", "just words", "7"])
def test_file_without_a_mapping_is_an_error(text: str) -> None:
    assert refused(text) == ("outrider.yaml: must contain keys and values, such as streams: ...",)


def test_missing_file_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"nowhere\.yaml: there is no such file; name one with --config, or let `outrider init`"
    ):
        load(tmp_path / "nowhere.yaml", {})


def test_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, {})


def test_file_that_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"device: \xff\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load(path, {})


def test_key_path_is_formatted_with_dots_and_brackets() -> None:
    assert format_path(("notify", "routes", 0, "match")) == "notify.routes[0].match"


def test_empty_file_is_an_error_about_the_missing_stream(problem_of: Callable[..., str]) -> None:
    assert problem_of("").startswith("outrider.yaml: streams: there is no stream; add one")


@pytest.mark.parametrize("text", ["streams:\n", "streams: {}\n"])
def test_empty_streams_section_is_an_error(problem_of: Callable[..., str], text: str) -> None:
    assert problem_of(text).startswith("outrider.yaml:1: streams: there is no stream; add one")


def _anchors(levels: int, entry: str, *, width: int = 9) -> str:
    """Return lists of aliases, each of the list before: the last has width ** levels values."""
    lines = [f"a0: &a0 {entry}"]
    for level in range(1, levels + 1):
        aliases = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} [{aliases}]")
    return "\n".join(lines)


def _merges(levels: int, *, width: int = 9) -> str:
    """Return mappings that merge the one before several times: the last has width ** levels pairs."""
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, levels + 1):
        aliases = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} {{<<: [{aliases}], k{level}: 1}}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [_anchors(9, "[x, x, x]"), _merges(9), _merges(3, width=1_000)],
    ids=["lists", "merges", "wide merges"],
)
@pytest.mark.slow
@pytest.mark.timeout(10)
def test_anchors_that_expand_without_bound_are_refused(text: str) -> None:
    (line,) = refused(text)
    assert re.match(r"outrider\.yaml:[0-9]+:[0-9]+: ", line)
    assert line.endswith("has more than 100,000 values with its anchors written out; write fewer or no anchors")


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 5_000,
        "a: " + "[" * 5_000 + "]" * 5_000,
        "a: " + "{b: " * 5_000,
        "\n".join(" " * depth + "b:" for depth in range(1_000)),
        "- " * 5_000 + "x",
        "a: " + "[" * 33 + "]" * 33,
        _anchors(500, "[x]", width=1),
    ],
    ids=["open", "closed", "mappings", "block", "dashes", "one too many", "anchors"],
)
@pytest.mark.slow
@pytest.mark.timeout(10)
def test_deep_nesting_is_refused_with_its_line(text: str) -> None:
    (line,) = refused(text)
    assert re.match(r"outrider\.yaml:[0-9]+", line)
    assert line.endswith("is nested deeper than 32 levels; the settings need fewer than ten")


def test_nesting_and_anchors_below_the_bounds_are_read() -> None:
    assert values("a: " + "[" * 30 + "]" * 30)
    assert values(_anchors(3, "[x]"))
    assert values(_merges(3))["a3"] == {"x": 1, "k1": 1, "k2": 1, "k3": 1}  # type: ignore[index]


def test_mapping_that_merges_itself_has_its_own_keys_only() -> None:
    assert values("a: &a\n  <<: *a\n  b: 1\n") == {"a": {"b": 1}}


@pytest.mark.parametrize("value", ["9" * 5_000, "!!timestamp x", "!!float x", "!!int x", "!!bool x", "!!binary \u00e9"])
def test_scalar_that_cannot_be_read_is_named(value: str) -> None:
    (line,) = refused(f"a:\n  b: {value}\n")
    assert line.startswith("outrider.yaml:2")
    assert "a.b" in line or "is not YAML" in line
