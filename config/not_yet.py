"""Configuration: keys whose part is not built: one line each, removed when the part is there."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from config.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class NotYet:
    """A key, as a pattern of its path, the values that work, and what to do meanwhile."""

    key: str
    works: tuple[object, ...]
    meanwhile: str


NOT_YET: tuple[NotYet, ...] = ()


def find_not_yet(settings: Settings, table: tuple[NotYet, ...] = NOT_YET) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the path of each key that is set to something not built, with what to say about it."""
    values = dict(_leaves(settings.public(), ()))
    for entry in table:
        pattern = re.compile("^" + re.escape(entry.key).replace(r"\*", "[^.]+") + "$")
        for path, value in values.items():
            if pattern.match(".".join(path)) and value not in entry.works:
                yield path, f"not yet: {_shown(value)} is not built; {entry.meanwhile}"


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _leaves(tree: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value
