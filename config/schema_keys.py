"""Lookup of the keys at a path of the settings, by walking the settings classes."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from config.document import KeyPath, format_path
from config.section import Section
from config.settings import Settings


def find_sections(path: Sequence[str | int], values: Any) -> list[type[Section]]:
    """Return the section classes at a path. There are several if a missing `type` leaves the choice open."""
    return [kind for kind in _find_types(path, values) if _is_section(kind)]


def takes_structure(path: Sequence[str | int], values: Any) -> bool:
    """Return True if the value at a path is a mapping or a list of sections, so that a text there is JSON."""
    for kind in _find_types(path, values):
        origin = get_origin(kind)
        if _is_section(kind) or origin is dict:
            return True
        if origin is tuple and any(_is_section(part) for part in _union_members(get_args(kind)[0])):
            return True
    return False


def known_keys(path: Sequence[str | int], values: Any) -> list[str]:
    """Return the keys of the section at a path."""
    return [name for section in find_sections(path, values) for name in section.model_fields]


def suggest_key(path: KeyPath, values: Any) -> str:
    """Return a hint for an unknown key: a similar key here, the same key elsewhere, or the known keys."""
    unknown = str(path[-1])
    known = list(dict.fromkeys(known_keys(path[:-1], values)))
    joined = next((key for key in _iter_paths(Settings, ()) if len(path) == 1 and "_".join(key) == unknown), None)
    if joined is not None:
        return f"did you mean {'__'.join(joined)} (two underscores), or {format_path(joined)} in the file?"
    matches = get_close_matches(unknown.lower(), known, n=1, cutoff=0.6)
    if matches:
        return f"did you mean {format_path((*path[:-1], matches[0]))}?"
    # The same word means something else in another section, so only a top-level key is searched everywhere.
    related = (key for key in _iter_paths(Settings, ()) if len(path) == 1 or key[0] == path[0])
    elsewhere = next((key for key in related if key[-1] == unknown), None)
    if elsewhere is not None:
        name = path[1] if len(path) > 1 and path[0] == "streams" else "<name>"
        return f"it belongs at {format_path(elsewhere).replace('*', str(name))}"
    return f"known keys here: {', '.join(sorted(known))}" if known else "no keys are known here"


def _find_types(path: Sequence[str | int], values: Any) -> list[Any]:
    kinds: list[Any] = [Settings]
    for part in path:
        kinds = [option for kind in kinds for option in _step_into(kind, part, values)]
        values = _get_child(values, part)
    chosen = [kind for kind in kinds if _is_section(kind) and _tag(kind) == _get_child(values, "type") is not None]
    return chosen or kinds


def _step_into(kind: Any, part: str | int, values: Any) -> list[Any]:
    if _is_section(kind):
        tag = _tag(kind)
        given = _get_child(values, "type")
        if part not in kind.model_fields or (tag is not None and given is not None and given != tag):
            return []
        return _union_members(kind.model_fields[str(part)].annotation)
    origin = get_origin(kind)
    if origin is dict:
        return _union_members(get_args(kind)[1])
    if origin is tuple and isinstance(part, int):
        return _union_members(get_args(kind)[0])
    return []


def _union_members(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _union_members(get_args(annotation)[0])
    if origin is Union or origin is UnionType:
        return [option for part in get_args(annotation) for option in _union_members(part)]
    return [annotation]


def _tag(section: type[Section]) -> str | None:
    tag = section.model_fields.get("type")
    return None if tag is None else str(get_args(tag.annotation)[0])


def _get_child(values: Any, part: str | int) -> Any:
    if isinstance(values, dict):
        return values.get(part)
    return values[part] if isinstance(values, list) and isinstance(part, int) and part < len(values) else None


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _iter_paths(kind: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if _is_section(kind):
        for field, info in kind.model_fields.items():
            yield (*path, field)
            for option in _union_members(info.annotation):
                yield from _iter_paths(option, (*path, field))
    elif get_origin(kind) is dict:
        for option in _union_members(get_args(kind)[1]):
            yield from _iter_paths(option, (*path, "*"))
