"""The YAML file is read without YAML 1.1's traps, and every problem names its line."""

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


def test_words_and_times_stay_texts() -> None:
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


def test_numbers_truth_and_nothing_are_what_they_look_like() -> None:
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


def test_an_empty_file_sets_nothing() -> None:
    assert values("# nothing yet\n") == {}


def test_each_key_knows_its_line() -> None:
    document = parse_document("a:\n  b: 1\n  c: [x,\n    y]\n", "f.yaml")
    assert document.places["a", "b"] == "f.yaml:2"
    assert document.places["a", "c", 1] == "f.yaml:4"


def test_anchors_and_merges_work_and_own_keys_win() -> None:
    text = "base: &base {a: 1, b: 2}\nmine: {<<: *base, b: 3}\n"
    assert values(text) == {"base": {"a": 1, "b": 2}, "mine": {"a": 1, "b": 3}}


def test_a_key_that_stands_twice_is_an_error_with_both_lines() -> None:
    assert refused("a:\n  b: 1\n  b: 2\n") == ("outrider.yaml:3: a.b: stands twice, first on line 2; leave one out",)


def test_every_repeated_key_is_reported() -> None:
    assert len(refused("a: 1\na: 2\nb: {c: 1, c: 2}\n")) == 2


def test_a_key_that_is_a_number_is_an_error() -> None:
    assert refused("1: x\n") == ("outrider.yaml:1: 1: a key must be a text; put it between quotes",)


def test_a_key_that_is_a_list_is_an_error() -> None:
    assert "a key must be a text" in refused("? [a, b]\n: x\n")[0]


def test_an_anchor_that_holds_itself_is_an_error() -> None:
    assert "holds itself" in refused("a: &a {b: *a}\n")[0]


def test_a_slip_of_syntax_names_line_and_column() -> None:
    (line,) = refused("a: 1\nb: [1, 2\nc: 3\n")
    assert line.startswith("outrider.yaml:3:2: is not YAML: ")


def test_a_tab_names_line_and_column() -> None:
    assert refused("a:\n\tb: 1\n")[0].startswith("outrider.yaml:2:1: is not YAML: ")


def test_a_control_character_is_one_line() -> None:
    (line,) = refused("a: \x00\n")
    assert line.startswith("outrider.yaml: is not YAML: ")
    assert "\n" not in line


def test_a_second_document_is_an_error() -> None:
    assert "is not YAML" in refused("a: 1\n---\nb: 2\n")[0]


def test_tags_cannot_make_objects() -> None:
    assert "is not YAML" in refused("a: !!python/name:os.system\n")[0]


@pytest.mark.parametrize("text", ["[a, b]", "just words", "7"])
def test_a_file_that_is_no_mapping_is_an_error(text: str) -> None:
    assert refused(text) == ("outrider.yaml: must hold keys and values, such as streams: ...",)


def test_a_missing_file_is_named_with_what_to_try(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"nowhere\.yaml: there is no such file; name one with --config, or let `outrider init`"
    ):
        load(tmp_path / "nowhere.yaml", {})


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, {})


def test_a_file_that_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"device: \xff\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load(path, {})


def test_a_path_is_written_as_people_write_it() -> None:
    assert format_path(("notify", "routes", 0, "match")) == "notify.routes[0].match"


def test_a_file_with_nothing_in_it_lacks_a_stream(problem_of: Callable[..., str]) -> None:
    assert problem_of("").startswith("outrider.yaml: streams: there is no stream; add one")


@pytest.mark.parametrize("text", ["streams:\n", "streams: {}\n"])
def test_streams_without_a_stream_are_an_error(problem_of: Callable[..., str], text: str) -> None:
    assert problem_of(text).startswith("outrider.yaml:1: streams: there is no stream; add one")
