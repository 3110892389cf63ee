"""The fields of a message: decoded at once by a generated type, or looked up individually."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

import msgspec

from consumers.codecs.dead_letters import DeadLetterReason, RejectedRecord
from consumers.codecs.schema import Schema
from consumers.codecs.text import describe_value

FLOAT32_LIMIT = 3.4028235677973366e38
"""Values of this magnitude or larger become infinite as float32."""

_NOT_GENERATED = re.compile(r'[\x00-\x1f\x7f"\\\ud800-\udfff]')

ABSENT: Any = object()

TimeValue = str | int | float | None
ScalarValue = str | int | float | bool | None
MustBeAbsent = Literal["\0 this key must not be there"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageType:
    """A generated struct type for messages, with getters for the columns."""

    struct: type[msgspec.Struct]
    features: attrgetter[Any]
    time: attrgetter[Any] | None
    key: attrgetter[Any] | None
    id: attrgetter[Any] | None


def build_message_types(schema: Schema) -> list[MessageType]:
    """Build the types that valid messages of the schema match. Return an empty list if no type can express it.

    A dotted name is a path into nested objects. A key that contains the dots takes precedence over the path.
    There are at most two types: one for paths, which rejects messages with such keys to keep the precedence,
    and one for dotted keys.
    """
    others = [name for name in (schema.time_field, schema.key_field, schema.id_field) if name is not None]
    names = [*schema.features, *others]
    parents = {name[:end] for name in names for end, mark in enumerate(name) if mark == "."}
    if len(set(names)) < len(names) or parents & set(names) or not all(map(_can_be_generated, names)):
        return []
    found = [_build_message_type(schema, nested=True)]
    dotted_features = any("." in name for name in schema.features)
    if dotted_features and not schema.mean_if_missing and not any("." in name for name in others):
        found.append(_build_message_type(schema, nested=False))
    return found


def _can_be_generated(name: str) -> bool:
    """Return True if msgspec accepts the name as a field of a struct: without quotes, backslashes and controls."""
    return not _NOT_GENERATED.search(name)


def _build_message_type(schema: Schema, *, nested: bool) -> MessageType:
    tree: dict[str, Any] = {}
    attributes: dict[str, str] = {}
    rejected_keys: list[str] = []
    feature = (float | None, None) if schema.mean_if_missing else (float,)
    typed: list[tuple[str, tuple[Any, ...]]] = [(name, feature) for name in schema.features]
    typed += [(schema.time_field, (TimeValue, None))] if schema.time_field else []
    typed += [(name, (ScalarValue, None)) for name in (schema.key_field, schema.id_field) if name]
    for name, declared in typed:
        parts = name.split(".") if nested else [name]
        branch = tree
        for part in parts[:-1]:
            branch = branch.setdefault(part, {})
        branch[parts[-1]] = declared
        if len(parts) > 1:
            rejected_keys.append(name)
    struct = _build_struct(tree, "", attributes, rejected_keys)

    def getter(*fields: str) -> attrgetter[Any]:
        return attrgetter(*(attributes[name] for name in fields))

    return MessageType(
        struct=struct,
        features=getter(*schema.features),
        time=getter(schema.time_field) if schema.time_field else None,
        key=getter(schema.key_field) if schema.key_field else None,
        id=getter(schema.id_field) if schema.id_field else None,
    )


def _build_struct(
    tree: Mapping[str, Any],
    prefix: str,
    attributes: dict[str, str],
    rejected_keys: list[str],
    path: str = "",
) -> type[msgspec.Struct]:
    """Build the struct for one level of nesting, and record the attribute path of each field in `attributes`."""
    required: list[tuple[Any, ...]] = []
    optional: list[tuple[Any, ...]] = []
    renamed: dict[str, str] = {}
    for i, (name, declared) in enumerate(tree.items()):
        attribute, full = f"f{i}", f"{path}{name}"
        renamed[attribute] = name
        if isinstance(declared, dict):
            inner = _build_struct(declared, f"{prefix}{attribute}.", attributes, [], f"{full}.")
            if any(field.required for field in msgspec.structs.fields(inner)):
                required.append((attribute, inner))
            else:
                optional.append((attribute, inner, msgspec.field(default_factory=inner)))
            continue
        attributes[full] = f"{prefix}{attribute}"
        (optional if len(declared) > 1 else required).append((attribute, *declared))
    for i, name in enumerate(rejected_keys):
        renamed[f"k{i}"] = name
        optional.append((f"k{i}", MustBeAbsent, msgspec.field(default="")))
    return msgspec.defstruct("Message", [*required, *optional], rename=renamed, gc=False)


def look_up_field(message: Mapping[Any, Any], name: str) -> Any:
    """Return the value of a field, or ABSENT. A key that contains dots takes precedence over a path."""
    if name in message:
        return message[name]
    value: Any = message if "." in name else ABSENT
    for part in name.split(".") if value is not ABSENT else ():
        if not isinstance(value, Mapping) or part not in value:
            return ABSENT
        value = value[part]
    return value


def parse_number(name: str, value: Any, *, mean_if_missing: bool) -> float:
    """Return a feature's value. With `mean_if_missing`, return NaN for a missing feature.

    Raises:
        RejectedRecord: The feature is missing, not a number, or not finite as float32.
    """
    if value is None or value is ABSENT:
        if mean_if_missing:
            return math.nan
        raise RejectedRecord(DeadLetterReason.MISSING_FEATURE, f"{name}: {'null' if value is None else 'absent'}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RejectedRecord(DeadLetterReason.NOT_A_NUMBER, f"{name}: {describe_value(value)}")
    if not abs(value) < FLOAT32_LIMIT:
        raise RejectedRecord(DeadLetterReason.NOT_FINITE, f"{name}: {describe_value(value)}")
    return float(value)
