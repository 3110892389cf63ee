"""Configuration: the syntax of cron expressions, five fields, checked without a scheduler."""

import re

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS: tuple[tuple[str, int, int, list[str]], ...] = (
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of month", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _WEEKDAYS),
)
_ITEM = re.compile(r"^(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[0-9]+))?$", re.ASCII)


def check_cron(text: str) -> str:
    """Return the expression with single spaces if its five fields are well formed.

    Raises:
        ValueError: Another number of fields, or a field that is no list, range or step of its values.
    """
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"{text!r} has {len(fields)} fields; a cron expression has five: minute hour day month weekday, "
            "such as */5 * * * *"
        )
    for field, (name, lowest, highest, names) in zip(fields, _FIELDS, strict=True):
        for item in field.split(","):
            _check_item(item, name, lowest, highest, names)
    return " ".join(fields)


def _check_item(item: str, name: str, lowest: int, highest: int, names: list[str]) -> None:
    match = _ITEM.fullmatch(item)
    if match is None:
        raise ValueError(f"{item!r} is no {name} of a cron expression; write *, */5, 3, 1-5 or 1,15")
    first, last, step = match["first"], match["last"], match["step"]
    begin = lowest if first is None else _number(first, name, lowest, highest, names)
    end = highest if last is None else _number(last, name, lowest, highest, names)
    if begin > end:
        raise ValueError(f"{item!r} runs backwards as a {name} of a cron expression; swap its ends")
    if step is not None and not 1 <= int(step[:9]) <= highest:
        raise ValueError(f"{item!r} has a step outside 1 to {highest} as a {name} of a cron expression")


def _number(text: str, name: str, lowest: int, highest: int, names: list[str]) -> int:
    if text.lower() in names:
        return names.index(text.lower()) + (1 if names is _MONTHS else 0)
    value = int(text) if text.isdigit() and len(text) < 5 else -1
    if not lowest <= value <= highest:
        known = f" or {names[0]} to {names[-1]}" if names else ""
        raise ValueError(f"{text!r} is no {name} of a cron expression; it goes from {lowest} to {highest}{known}")
    return value
