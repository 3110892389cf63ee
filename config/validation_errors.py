"""Conversion of pydantic's errors to one line each: place, key, problem and remedy."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from config.channels.registration import CHANNEL_TYPES
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
    "dict_type": "must contain keys and values",
    "model_type": "must contain keys and values",
    "model_attributes_type": "must contain keys and values",
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
    """Yield the key path and the message of each error."""
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
    """Return the key path in the file. Pydantic's location also contains the chosen `type`, which is not a key."""
    path: list[str | int] = []
    node = values
    for part in location:
        if isinstance(node, dict) and part not in node and node.get("type") == part:
            continue
        path.append(part)
        if isinstance(node, dict):
            node = node.get(part)
        else:
            node = node[part] if isinstance(node, list) and isinstance(part, int) and part < len(node) else None
    return tuple(path)


def _describe(detail: ErrorDetails, context: Mapping[str, Any], path: KeyPath, values: Any) -> str:
    match detail["type"]:
        case "value_error":
            message = str(context["error"])
        case "extra_forbidden":
            message = f"unknown key; {suggest_key(path, values)}"
        case "literal_error":
            message = _describe_choice(detail["input"], context["expected"])
        case "union_tag_invalid":
            message = _describe_choice(context["tag"], context["expected_tags"])
        case "union_tag_not_found":
            message = f"needs a type: {_known_types(path)}"
        case "missing" | "too_short" | "dict_type" if path == ("streams",):
            message = _NO_STREAM_MESSAGE
        case _:
            message = _describe_plain(detail, context)
    return message


def _describe_plain(detail: ErrorDetails, context: Mapping[str, Any]) -> str:
    kind = detail["type"]
    if kind in _BOUND_MESSAGES:
        key, words = _BOUND_MESSAGES[kind]
        return f"must be {words} {context[key]:g}"
    if detail["input"] is None and kind != "missing":
        return "has no value; write one, or leave the key out"
    return _TYPE_MESSAGES.get(kind, detail["msg"][:1].lower() + detail["msg"][1:])


def _known_types(path: KeyPath) -> str:
    if path[-1] == "source":
        return "kafka, file or synthetic"
    *others, last = CHANNEL_TYPES
    return f"{', '.join(others)} or {last}"


def _describe_choice(value: object, listed: str) -> str:
    expected = re.findall(r"'([^']*)'", listed)
    choices = f"choose {' or '.join(filter(None, (', '.join(expected[:-1]), expected[-1])))}"
    if not isinstance(value, str) or isinstance(value, Secret):
        return f"must be a text; {choices}"
    normalized = _ALIASES.get(value.lower(), value.lower())
    matches = get_close_matches(normalized, expected, n=1, cutoff=0.6)
    return f"{value!r} is not known; " + (f"did you mean {matches[0]}? ({choices})" if matches else choices)


def format_problem(path: KeyPath, message: str, document: Document) -> str:
    """Format a problem as one line: the place of the key, the key and the message."""
    return f"{_find_place(path, document)}: {format_path(path)}: {message}"


def _find_place(path: KeyPath, document: Document) -> str:
    """Return the place of a key, or of a key inside it (set by a variable), or of a key around it."""
    inner = (place for key, place in document.places.items() if key[: len(path)] == path)
    outer = (document.places.get(path[:length]) for length in range(len(path), -1, -1))
    return document.places.get(path) or next(inner, None) or next(filter(None, outer), "settings")
