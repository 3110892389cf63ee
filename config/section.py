"""The base class of the settings' sections, and their common value types."""

import json
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A section of the configuration. It is immutable and rejects unknown keys."""

    # Validators are built on first use, so that a command that prints its help does not need them.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, defer_build=True
    )


def raise_problems(problems: Iterable[tuple[str, str]]) -> None:
    """Raise one error for all problems of a section, if there are any. Each is a (dotted) key and a message.

    Raises:
        PydanticCustomError: `problems` is not empty.
    """
    listed = list(problems)
    if listed:
        message = "; ".join(f"{key}: {text}" for key, text in listed)
        raise PydanticCustomError("outrider", "{message}", {"message": message, "problems": listed})


def _reject_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")
    return value


Int = Annotated[int, BeforeValidator(_reject_bool)]
Number = Annotated[float, BeforeValidator(_reject_bool)]
Text = Annotated[str, Field(min_length=1)]


def split_list(value: object) -> tuple[str, ...]:
    """Parse a list of texts, given as a list, as comma-separated text, or as JSON text.

    Raises:
        ValueError: The value is not a list, is empty, or has an entry twice or of another type.
    """
    if isinstance(value, str):
        if value.startswith("["):
            try:
                value = json.loads(value)
            except json.JSONDecodeError as error:
                raise ValueError(f"must be a list; as JSON it breaks at column {error.colno}: {error.msg}") from error
            except RecursionError as error:
                raise ValueError("must be a list of texts; it is nested too deep") from error
        else:
            value = [part.strip() for part in value.split(",")]
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("must be a list with at least one entry, such as [a, b]")
    for entry in value:
        if not isinstance(entry, str) or not entry:
            raise ValueError("every entry of the list must be a text; put a number between quotes")
    duplicates = sorted({entry for entry in value if value.count(entry) > 1})
    if duplicates:
        raise ValueError(f"contains {duplicates[0]!r} twice; leave one out")
    return tuple(value)


def _parse_auto_or_names(value: object) -> "tuple[str, ...] | Literal['auto']":
    return "auto" if value == "auto" else split_list(value)


def _parse_none_auto_or_names(value: object) -> "tuple[str, ...] | Literal['none', 'auto']":
    return "none" if value is None or value == "none" else _parse_auto_or_names(value)


def _parse_auto_or_count(value: object) -> "int | Literal['auto']":
    if value == "auto":
        return "auto"
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or not 1 <= int(text[:9]) <= 10_000:
        raise ValueError("must be auto or a whole number from 1 to 10000")
    return int(text)


_LIST_SCHEMA: dict[str, object] = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_LIST_OR_TEXT: dict[str, object] = {"anyOf": [_LIST_SCHEMA, {"type": "string"}]}

# Without it pydantic compares the value with the replaced type, and warns.
_UnchangedSerializer = PlainSerializer(lambda value: value)

Names = Annotated[tuple[str, ...], BeforeValidator(split_list), WithJsonSchema(_LIST_OR_TEXT)]
AutoOrNames = Annotated[
    tuple[str, ...] | Literal["auto"],
    PlainValidator(_parse_auto_or_names),
    _UnchangedSerializer,
    WithJsonSchema(_LIST_OR_TEXT),
]
NoneAutoOrNames = Annotated[
    tuple[str, ...] | Literal["none", "auto"],
    PlainValidator(_parse_none_auto_or_names),
    _UnchangedSerializer,
    WithJsonSchema(_LIST_OR_TEXT),
]
AutoOrCount = Annotated[
    int | Literal["auto"],
    PlainValidator(_parse_auto_or_count),
    _UnchangedSerializer,
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]}),
]
