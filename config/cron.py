"""Parsing of cron expressions with five fields: minute, hour, day of month, month and day of week."""

import re
from dataclasses import dataclass

MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAY_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ITEM_PATTERN = re.compile(r"^(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[0-9]+))?$", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """The accepted values of one field. `end` is the last value of `*` and of ranges without an end."""

    name: str
    lowest: int
    highest: int
    end: int
    value_names: tuple[str, ...] = ()
    first_named: int = 0


_FIELDS = (
    _Field(name="minute", lowest=0, highest=59, end=59),
    _Field(name="hour", lowest=0, highest=23, end=23),
    _Field(name="day of month", lowest=1, highest=31, end=31),
    _Field(name="month", lowest=1, highest=12, end=12, value_names=MONTH_NAMES, first_named=1),
    # Both 0 and 7 are Sunday.
    _Field(name="day of week", lowest=0, highest=7, end=6, value_names=WEEKDAY_NAMES),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CronExpression:
    """A parsed cron expression: the values of each field in ascending order.

    `text` is the expression with single spaces. Weekdays are 0 (Sunday) to 6. `either_day` is True if neither the day
    of month nor the day of week starts with `*`: then a day matches if one of the two fields does, as in crontab(5).
    """

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either_day: bool


def parse_cron(text: str) -> CronExpression:
    """Parse a cron expression.

    Raises:
        ValueError: The number of fields is not five, a field is not a list of values, ranges and steps within
            its bounds, or the days do not exist in any of the months.
    """
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"{text!r} has {len(fields)} fields; a cron expression has five: minute hour day month weekday, "
            "such as */5 * * * *"
        )
    minutes, hours, days, months, weekdays = (
        {value for item in field.split(",") for value in _parse_item(item, kind)}
        for field, kind in zip(fields, _FIELDS, strict=True)
    )
    either_day = not fields[2].startswith("*") and not fields[4].startswith("*")
    longest = max(_MONTH_DAYS[month - 1] for month in months)
    if min(days) > longest:
        raise ValueError(
            f"{fields[2]} {fields[3]} as day of month and month of a cron expression is a date that does not exist: "
            f"the longest month in it has {longest} days; try 0 0 1 * *"
        )
    return CronExpression(
        text=" ".join(fields),
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=tuple(sorted(days)),
        months=tuple(sorted(months)),
        weekdays=tuple(sorted({weekday % 7 for weekday in weekdays})),
        either_day=either_day,
    )


def check_cron(text: str) -> str:
    """Return a valid cron expression with single spaces.

    Raises:
        ValueError: As `parse_cron`.
    """
    return parse_cron(text).text


def _parse_item(item: str, field: _Field) -> range:
    """Return the values of one item of a field: `*`, a value or a range, each with an optional step."""
    match = _ITEM_PATTERN.fullmatch(item)
    if match is None:
        raise ValueError(f"{item!r} is not a valid {field.name} of a cron expression; write *, */5, 3, 1-5 or 1,15")
    first, last, step = match["first"], match["last"], match["step"]
    begin = field.lowest if first is None else _parse_value(first, field)
    end = field.highest if last is None else _parse_value(last, field)
    if begin > end:
        raise ValueError(f"{item!r} is a reversed range as a {field.name} of a cron expression; swap its ends")
    if step is not None and not 1 <= int(step[:9]) <= field.highest:
        raise ValueError(f"{item!r} has a step outside 1 to {field.highest} as a {field.name} of a cron expression")
    if last is None:
        # A value with a step and without an end continues to the end of the field, such as 10/5.
        end = max(begin, field.end) if first is None or step else begin
    return range(begin, end + 1, int(step or 1))


def _parse_value(text: str, field: _Field) -> int:
    if text.lower() in field.value_names:
        return field.value_names.index(text.lower()) + field.first_named
    value = int(text) if text.isdigit() and len(text) < 5 else -1
    if not field.lowest <= value <= field.highest:
        names = f" or {field.value_names[0]} to {field.value_names[-1]}" if field.value_names else ""
        raise ValueError(
            f"{text!r} is not a valid {field.name} of a cron expression; the values are {field.lowest} to "
            f"{field.highest}{names}"
        )
    return value
