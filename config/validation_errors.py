"""Configuration: what pydantic found wrong, one line each: place, key, problem, way out."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from config.document import Document, KeyPath, format_path
from config.masking import Secret
from config.schema_keys import suggest_key

_TYPE_MESSAGES = {
    "string_type": "must be a text; put a number between quotes",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "tuple_type": "must be a list, such as [a, b]",
    "dict_type": "must hold keys and values",
    "model_type": "must hold keys and values",
    "model_attributes_type": "must hold keys and values",
    "path_type": "must be a path",
    "string_too_short": "must not be empty",
    "missing": "is missing",
    "too_short": "must have at least one entry",
}
_ALIASES = {"gpu": "cuda", "gmm": "gaussian_mixture", "gaussian": "gaussian_mixture"}
_BOUND_MESSAGES = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_NO_STREAM_MESSAGE = (
    "there is no stream; add one, such as streams: {payments: {source: {type: kafka, topics: [payments]}}}"
)


def describe_errors(error: ValidationError, document: Document) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path and the sentence of each thing that is wrong."""
    for detail in error.errors(include_url=False):
        path = _file_path(detail["loc"], document.values)
        context = detail.get("ctx", {})
        if detail["type"] == "default_factory_not_called":
            continue
        if detail["type"] == "outrider":
            for key, message in context["problems"]:
                yield (
                    path + tuple(int(part) if part.isdigit() else part for part in key.split(".") if part),
                    message,
                )
        else:
            yield path, _describe(detail, context, path, document.values)


def _file_path(location: tuple[str | int, ...], values: Any) -> KeyPath:
    """Return the path in the file; pydantic adds the chosen `type` to it, which is no key."""
    path: list[str | int] = []
    here = values
    for part in location:
        if isinstance(here, dict) and part not in here and here.get("type") == part:
            continue
        path.append(part)
        if isinstance(here, dict):
            here = here.get(part)
        else:
            here = here[part] if isinstance(here, list) and isinstance(part, int) and part < len(here) else None
    return tuple(path)


def _describe(detail: ErrorDetails, context: Mapping[str, Any], path: KeyPath, values: Any) -> str:
    match detail["type"]:
        case "value_error":
            sentence = str(context["error"])
        case "extra_forbidden":
            sentence = f"unknown key; {suggest_key(path, values)}"
        case "literal_error":
            sentence = _describe_choice(detail["input"], context["expected"])
        case "union_tag_invalid":
            sentence = _describe_choice(context["tag"], context["expected_tags"])
        case "union_tag_not_found":
            sentence = f"needs a type: {_known_types(path)}"
        case "missing" | "too_short" | "dict_type" if path == ("streams",):
            sentence = _NO_STREAM_MESSAGE
        case _:
            sentence = _describe_plain(detail, context)
    return sentence


def _describe_plain(detail: ErrorDetails, context: Mapping[str, Any]) -> str:
    kind = detail["type"]
    if kind in _BOUND_MESSAGES:
        key, words = _BOUND_MESSAGES[kind]
        return f"must be {words} {context[key]:g}"
    if detail["input"] is None and kind != "missing":
        return "has no value; write one, or leave the key out"
    return _TYPE_MESSAGES.get(kind, detail["msg"][:1].lower() + detail["msg"][1:])


def _known_types(path: KeyPath) -> str:
    return "kafka, file or synthetic" if path[-1] == "source" else "log or webhook"


def _describe_choice(value: object, listed: str) -> str:
    expected = re.findall(r"'([^']*)'", listed)
    choices = f"choose {' or '.join(filter(None, (', '.join(expected[:-1]), expected[-1])))}"
    if not isinstance(value, str) or isinstance(value, Secret):
        return f"must be a text; {choices}"
    meant = _ALIASES.get(value.lower(), value.lower())
    near = get_close_matches(meant, expected, n=1, cutoff=0.6)
    return f"{value!r} is not known; " + (f"did you mean {near[0]}? ({choices})" if near else choices)


def format_problem(path: KeyPath, message: str, document: Document) -> str:
    """Return the line that a person reads: where the key was set, the key, what is wrong with it."""
    return f"{_find_place(path, document)}: {format_path(path)}: {message}"


def _find_place(path: KeyPath, document: Document) -> str:
    """Return where a key was set; else where something in it was, as a variable does; else what holds it."""
    inside = (place for key, place in document.places.items() if key[: len(path)] == path)
    around = (document.places.get(path[:length]) for length in range(len(path), -1, -1))
    return document.places.get(path) or next(inside, None) or next(filter(None, around), "settings")
