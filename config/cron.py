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
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ITEM_PATTERN = re.compile(r"^(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[0-9]+))?$", re.ASCII)


def check_cron(text: str) -> str:
    """Return the expression with single spaces if its five fields are well formed.

    Raises:
        ValueError: Another number of fields, a field that is no list, range or step of its values, or days that
            none of the months has.
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
    _check_dates(fields[2], fields[3])
    return " ".join(fields)


def _check_dates(days: str, months: str) -> None:
    """Refuse dates that no calendar has, such as 30 February: such a tick would be waited for in vain."""
    first_day = min(_first_value(item, 1, []) for item in days.split(","))
    chosen = {month for item in months.split(",") for month in _month_range(item)}
    longest = max(_MONTH_DAYS[month - 1] for month in chosen)
    if first_day > longest:
        raise ValueError(
            f"{days} {months} as day of month and month of a cron expression is a date that never comes: the longest "
            f"month in it has {longest} days; try 0 0 1 * *"
        )


def _first_value(item: str, lowest: int, names: list[str]) -> int:
    match = _ITEM_PATTERN.fullmatch(item)
    assert match is not None, "the item was checked"
    return lowest if match["first"] is None else _parse_value(match["first"], "", 0, 99, names)


def _month_range(item: str) -> range:
    """Return the months of an item: `first/step` goes on to the year's end."""
    match = _ITEM_PATTERN.fullmatch(item)
    assert match is not None, "the item was checked"
    first, last, step = match["first"], match["last"], match["step"]
    begin = _first_value(item, 1, _MONTHS)
    end = 12 if first is None or (step and not last) else _parse_value(last or first, "", 0, 99, _MONTHS)
    return range(begin, end + 1, int(step or 1))


def _check_item(item: str, name: str, lowest: int, highest: int, names: list[str]) -> None:
    match = _ITEM_PATTERN.fullmatch(item)
    if match is None:
        raise ValueError(f"{item!r} is no {name} of a cron expression; write *, */5, 3, 1-5 or 1,15")
    first, last, step = match["first"], match["last"], match["step"]
    begin = lowest if first is None else _parse_value(first, name, lowest, highest, names)
    end = highest if last is None else _parse_value(last, name, lowest, highest, names)
    if begin > end:
        raise ValueError(f"{item!r} runs backwards as a {name} of a cron expression; swap its ends")
    if step is not None and not 1 <= int(step[:9]) <= highest:
        raise ValueError(f"{item!r} has a step outside 1 to {highest} as a {name} of a cron expression")


def _parse_value(text: str, name: str, lowest: int, highest: int, names: list[str]) -> int:
    if text.lower() in names:
        return names.index(text.lower()) + (1 if names is _MONTHS else 0)
    value = int(text) if text.isdigit() and len(text) < 5 else -1
    if not lowest <= value <= highest:
        known = f" or {names[0]} to {names[-1]}" if names else ""
        raise ValueError(f"{text!r} is no {name} of a cron expression; it goes from {lowest} to {highest}{known}")
    return value
