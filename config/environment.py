"""Configuration: what the environment sets over the file, and the variables that texts name."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from config.document import Document, KeyPath
from config.schema_keys import takes_structure

PREFIX = "OUTRIDER_"
_IGNORED_VARIABLES = frozenset({"OUTRIDER_CONFIG"})
# Kubernetes gives every pod such variables for each service; a service may well be called outrider.
_SERVICE_VARIABLE = re.compile(
    r"^OUTRIDER_(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|"
    r"PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)$"
)
_REFERENCE = re.compile(r"\$?\$\{([^}]*)\}")
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")

Problems = list[tuple[KeyPath, str]]


def apply_environment(document: Document, env: Mapping[str, str], named: frozenset[str]) -> tuple[Document, Problems]:
    """Return the document with the environment's settings; `named` are variables that its texts refer to."""
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
        _set_value(values, path, value)
    return Document(values=values, places=places), problems


def _variable_path(name: str, values: dict[str, Any]) -> tuple[str, ...]:
    path: list[str] = []
    here: Any = values
    for part in name.removeprefix(PREFIX).split("__"):
        keys = list(here) if isinstance(here, dict) else []
        # The file may spell a name with capitals, which variables cannot tell apart.
        spelt = next((key for key in keys if key.lower() == part.lower()), part.lower())
        path.append(spelt)
        here = here.get(spelt) if isinstance(here, dict) else None
    return tuple(path)


def _set_value(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    here = values
    for part in path[:-1]:
        if not isinstance(here.get(part), dict):
            here[part] = {}
        here = here[part]
    here[path[-1]] = value


def _copy_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy_value(entry) for key, entry in value.items()}
    return [_copy_value(entry) for entry in value] if isinstance(value, list) else value


def referenced_variables(value: Any) -> Iterator[str]:
    """Yield the names of the variables that texts refer to as ${NAME}."""
    if isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from referenced_variables(entry)
    elif isinstance(value, str):
        yield from (match[1] for match in _REFERENCE.finditer(value) if not match[0].startswith("$$"))


def substitute_variables(document: Document, env: Mapping[str, str]) -> tuple[Document, Problems]:
    """Return the document with each ${NAME} in its texts replaced; $${ stands for a literal ${."""
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
                problems.append((path, f"{match[0]} names no variable; write ${{NAME}}, or $${{ for a literal ${{"))
            elif match[1] not in env:
                problems.append((path, f"the environment variable {match[1]} is not set; set it, or write the value"))
            return env.get(match[1], "")

        return _REFERENCE.sub(replace, text)

    return Document(values=walk(document.values, ()), places=document.places), problems
