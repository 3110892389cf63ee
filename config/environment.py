"""Overrides by environment variables, and substitution of ${VARIABLES} in texts."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from config.document import Document, KeyPath
from config.schema_keys import takes_structure

PREFIX = "OUTRIDER_"
_IGNORED_VARIABLES = frozenset({"OUTRIDER_CONFIG"})
# Kubernetes sets such variables in every pod for each service, and a service may be named outrider.
_SERVICE_VARIABLE = re.compile(
    r"^OUTRIDER_(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|"
    r"PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)$"
)
_REFERENCE = re.compile(r"\$?\$\{([^}]*)\}")
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")

Problems = list[tuple[KeyPath, str]]


def apply_environment(document: Document, env: Mapping[str, str], named: frozenset[str]) -> tuple[Document, Problems]:
    """Apply the OUTRIDER_* variables to a document.

    Args:
        document: The configuration file.
        env: The environment.
        named: Variables referenced by texts of the document, which are not settings themselves.

    Returns:
        The document with the overrides, and the problems.
    """
    values = _copy_value(document.values)
    places = dict(document.places)
    problems: Problems = []
    variables = [name for name in env if name.startswith(PREFIX) and name not in _IGNORED_VARIABLES | named]
    for name in sorted(variables, key=lambda name: (name.count("__"), name)):
        if "__" not in name and _SERVICE_VARIABLE.match(name):
            continue
        path = _variable_path(name, values)
        places = {key: place for key, place in places.items() if key[: len(path)] != path}
        places[path] = f"environment variable {name}"
        value: Any = env[name]
        if value.lstrip()[:1] in {"{", "["} and takes_structure(path, values):
            try:
                value = json.loads(value)
            except json.JSONDecodeError as error:
                problems.append((path, f"is not JSON: {error.msg} at column {error.colno}"))
                continue
            except (RecursionError, ValueError):
                problems.append((path, "is nested too deep or has a number with too many digits; write fewer"))
                continue
        _set_value(values, path, value)
    return Document(values=values, places=places), problems


def _variable_path(name: str, values: dict[str, Any]) -> tuple[str, ...]:
    path: list[str] = []
    node: Any = values
    for part in name.removeprefix(PREFIX).split("__"):
        keys = list(node) if isinstance(node, dict) else []
        # A name in the file may have upper-case letters, which are not distinguished in variable names.
        key = next((key for key in keys if key.lower() == part.lower()), part.lower())
        path.append(key)
        node = node.get(key) if isinstance(node, dict) else None
    return tuple(path)


def _set_value(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    node = values
    for part in path[:-1]:
        if not isinstance(node.get(part), dict):
            node[part] = {}
        node = node[part]
    node[path[-1]] = value


def _copy_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy_value(entry) for key, entry in value.items()}
    return [_copy_value(entry) for entry in value] if isinstance(value, list) else value


def referenced_variables(value: Any) -> Iterator[str]:
    """Yield the names of the variables referenced by texts as ${NAME}."""
    if isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from referenced_variables(entry)
    elif isinstance(value, str):
        yield from (match[1] for match in _REFERENCE.finditer(value) if not match[0].startswith("$$"))


def substitute_variables(document: Document, env: Mapping[str, str]) -> tuple[Document, Problems]:
    """Replace each ${NAME} in the document's texts. $${ is a literal ${.

    Returns:
        The document with the values of the variables, and the problems.
    """
    problems: Problems = []

    def walk(value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: walk(entry, (*path, key)) for key, entry in value.items()}
        if isinstance(value, list):
            return [walk(entry, (*path, index)) for index, entry in enumerate(value)]
        return fill(value, path) if isinstance(value, str) else value

    def fill(text: str, path: KeyPath) -> str:
        def replace(match: re.Match[str]) -> str:
            if match[0].startswith("$$"):
                return match[0][1:]
            if not _NAME.fullmatch(match[1]):
                problems.append(
                    (path, f"{match[0]} is not a variable reference; write ${{NAME}}, or $${{ for a literal ${{")
                )
            elif match[1] not in env:
                problems.append((path, f"the environment variable {match[1]} is not set; set it, or write the value"))
            return env.get(match[1], "")

        return _REFERENCE.sub(replace, text)

    return Document(values=walk(document.values, ()), places=document.places), problems
