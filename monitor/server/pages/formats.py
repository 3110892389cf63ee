"""Text of numbers, times and names on the pages. Pure."""

import math
import re
from datetime import UTC, datetime, timedelta

from markupsafe import Markup, escape

from config.time_format import DAY_US, HOUR_US, MINUTE_US, SECOND_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST_SHOWN_P = 1e-300
_LEAST_DECIMAL_P = 0.001
_RFC_3339 = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
ABSENT = "–"
"""A value that is not known or does not exist."""


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with thousands separators and a typographic minus sign."""
    if value is None or not math.isfinite(value):
        return ABSENT
    text = f"{value:,.{digits}f}"
    is_zero = not text.strip("-0.,")
    return text.removeprefix("-") if is_zero else text.replace("-", "−")


def significant(value: float | None, digits: int = 3) -> str:
    """Return a number with a number of significant digits, without an exponent from 0.0001 to 10 million."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if not -5 < size < 7:
        return f"{value:.{digits}g}".replace("-", "−")
    return number(value, max(digits - 1 - size, 0))


def together(values: list[float | None], digits: int = 3) -> list[str]:
    """Return numbers of one quantity with equal decimals: as many as the smallest spread or value needs."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    largest = max((abs(value) for value in finite), default=0.0)
    if not largest:
        return [number(value) for value in values]
    size = math.floor(math.log10(largest))
    if not -5 < size < 9:
        return [significant(value, digits) for value in values]
    spread = max(finite) - min(finite)
    fine = size if spread <= 0 else max(min(size, math.floor(math.log10(spread))), size - 9)
    return [number(value, max(digits - 1 - size, 1 - fine, 0)) for value in values]


def share(value: float | None) -> str:
    """Return a share in percent."""
    if value is None or not math.isfinite(value):
        return ABSENT
    percent = 100 * value
    return f"{number(percent, 0 if abs(percent) >= 10 or percent == 0 else 1)}%"


def probability(p: float | None) -> Markup:
    """Return a probability, small ones as a power of ten."""
    if p is None or not math.isfinite(p):
        return escape(ABSENT)
    if p >= _LEAST_DECIMAL_P:
        return escape(f"{p:.2g}")
    shown = max(p, _LEAST_SHOWN_P)
    exponent = math.floor(math.log10(shown))
    factor = "< " if p < _LEAST_SHOWN_P else f"{shown / 10.0**exponent:.1f} × "
    return Markup('<span class="nowrap">{}10<sup>−{}</sup></span>').format(factor, -exponent)


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def duration(us: float | None) -> str:
    """Return a duration in microseconds in one or two units: 40 s, 16 min, 8 h 51 min, 3 d 4 h."""
    if us is None:
        return ABSENT
    if us < 0:
        return f"−{duration(-us)}"
    if us < 2 * MINUTE_US:
        is_short = us < SECOND_US
        return f"{us / 1000:.0f} ms" if is_short and us >= 1000 else f"{us / SECOND_US:.0f} s"
    minutes, hours = round(us / MINUTE_US), round(us / HOUR_US)
    if minutes < 60:
        return f"{minutes} min"
    if hours < 48:
        whole, rest = divmod(minutes, 60)
        return f"{whole} h {rest} min" if rest and whole < 24 else f"{hours if whole >= 24 else whole} h"
    days, rest = divmod(hours, 24)
    return f"{days} d {rest} h" if rest and days < 10 else f"{days} d"


def age(us: float) -> str:
    """Return an age; a negative one is ahead of the clock."""
    return f"{duration(-us)} ahead of the clock" if us < 0 else f"{duration(us)} ago"


def iso(us: int) -> str:
    """Return a time as RFC 3339 in UTC, to the second, for `datetime` attributes."""
    return _at(us).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock(us: int, *, beside_us: int | None = None, seconds: bool = False) -> str:
    """Return a time of day in UTC, with its date if that is another than that of `beside_us`."""
    at = _at(us)
    text = at.strftime("%H:%M:%S" if seconds else "%H:%M")
    if beside_us is not None and _at(beside_us).date() != at.date():
        year = "" if _at(beside_us).year == at.year else f" {at.year}"
        text = f"{at.day} {at.strftime('%b')}{year} {text}"
    return text


def short_date(us: int) -> str:
    """Return a date in UTC without its year, such as 30 Nov."""
    return f"{_at(us).day} {_at(us).strftime('%b')}"


def time_tag(us: int | None, *, beside_us: int | None = None, seconds: bool = False) -> Markup:
    """Return a `time` element with the time of day, dated if the day is another than that of `beside_us`."""
    if us is None:
        return escape(ABSENT)
    return Markup('<time datetime="{}">{}</time>').format(iso(us), clock(us, beside_us=beside_us, seconds=seconds))


def interval(start_us: int, end_us: int, *, beside_us: int) -> str:
    """Return an interval of event time, such as 10:35 to 10:50."""
    return f"{clock(start_us, beside_us=beside_us)} to {clock(end_us, beside_us=start_us)}"


def shorten_times(text: str, *, beside_us: int) -> str:
    """Return a text with each RFC 3339 time as a time of day, dated if the day is another than that of `beside_us`."""
    return _RFC_3339.sub(lambda found: clock(parse_us(found[0]), beside_us=beside_us), text)


def sentence(text: str) -> str:
    """Return a text with a capital letter, unless it starts with the name of a feature, such as x0 or card_age."""
    return f"{text[:1].upper()}{text[1:]}" if text.partition(" ")[0].isalpha() else text


def words(name: str) -> str:
    """Return a name of the database as words: slow_rise as `slow rise`."""
    return name.replace("_", " ")


def join_words(parts: list[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def parse_us(text: str) -> int:
    """Return the time of an RFC 3339 text in microseconds since 1970."""
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


def days_between(start_us: int, end_us: int) -> float:
    """Return the days between two times."""
    return (end_us - start_us) / DAY_US


def _at(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)
