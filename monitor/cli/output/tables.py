"""The command line: rows as a table on a terminal, and as CSV, JSON or JSON lines for programs."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click
import numpy as np

from config.units import format_time
from storage.queries.history_views import Columns, ColumnValues

Row = Mapping[str, Any]
Command = TypeVar("Command", bound=Callable[..., Any])

FORMATS = ("table", "csv", "json", "jsonl")
TABLE_ROWS = 50
"""How many rows a table has where no limit is given."""

_NO_WRAP_WIDTH = 20


def format_option(command: Command) -> Command:
    """Give a command the option --format, under the name `form`."""
    option = click.option(
        "--format",
        "form",
        type=click.Choice(FORMATS),
        help="How to write the rows (default: table on a terminal, csv elsewhere).",
    )
    return option(command)


def resolve_format(form: str | None) -> str:
    """Return the format that was asked for, or the one that fits where the output goes."""
    return form or ("table" if sys.stdout.isatty() else "csv")


def limit_option(command: Command) -> Command:
    """Give a command the option --limit."""
    option = click.option(
        "--limit",
        type=click.IntRange(min=1),
        help=f"The newest so many (default: {TABLE_ROWS} in a table, all of them elsewhere).",
    )
    return option(command)


def resolve_limit(limit: int | None, form: str) -> int | None:
    """Return the limit that was asked for, or the one of a table."""
    return limit or (TABLE_ROWS if form == "table" else None)


def iterate_rows(batches: Iterable[Columns]) -> Iterator[dict[str, Any]]:
    """Give the rows of batches of columns as plain values: times as RFC 3339, what is missing as None."""
    for batch in batches:
        names = list(batch)
        for values in zip(*(_to_python_values(column) for column in batch.values()), strict=True):
            yield dict(zip(names, values, strict=True))


def write_rows(
    rows: Iterable[Row],
    columns: Sequence[str],
    form: str,
    *,
    shown: Sequence[str] | None = None,
    nothing: str = "Nothing.",
) -> None:
    """Write rows to standard output, as they come except in a table.

    Args:
        rows: The rows.
        columns: Which of their values, in which order.
        form: One of `FORMATS`.
        shown: The columns of a table, where a terminal is too narrow for all.
        nothing: What a table of no rows says.
    """
    if form == "table":
        _write_table(list(rows), shown or columns, nothing)
    elif form == "csv":
        _write_csv(rows, columns)
    elif form == "jsonl":
        for row in rows:
            sys.stdout.write(_json_row(row, columns) + "\n")
    else:
        separator = "[\n"
        for row in rows:
            sys.stdout.write(separator + _json_row(row, columns))
            separator = ",\n"
        sys.stdout.write("[]\n" if separator == "[\n" else "\n]\n")


def format_value(value: Any) -> str:
    """Return a value as a person reads it in a table: five digits, times to the second, nothing unprintable."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else ""
        case float():
            return f"{value:.5g}"
        case Mapping():
            return escape_unprintable(", ".join(f"{name}={format_value(each)}" for name, each in value.items()))
        case list() | tuple():
            return escape_unprintable(", ".join(format_value(each) for each in value))
        case _:
            return escape_unprintable(str(value))


def escape_unprintable(text: str) -> str:
    """Return text that cannot steer a terminal: what came with an event may hold escape sequences."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode() for sign in text
    )


def format_short_time(time: int | str | None) -> str:
    """Return a time, in microseconds or as RFC 3339, to the second, in UTC."""
    if time is None:
        return ""
    text = time if isinstance(time, str) else format_time(time)
    return text[:19] + "Z"


def format_age(age_s: float) -> str:
    """Return an age for reading; the clock of an event may be ahead of the database's."""
    if age_s < 0:
        return f"{-age_s:.0f} s ahead of the clock"
    for unit_s, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if age_s >= 2 * unit_s:
            return f"{age_s / unit_s:.0f} {name} ago"
    return f"{age_s:.0f} s ago"


def _to_python_values(column: ColumnValues) -> list[Any]:
    if isinstance(column, list):
        return column
    if column.dtype.kind == "M":
        texts = np.datetime_as_string(column.astype("datetime64[us]"), unit="us").tolist()
        return [None if text == "NaT" else text + "Z" for text in texts]
    if column.dtype == np.float32:
        # The shortest text that is the same float32: 0.1 instead of 0.10000000149011612.
        return [float(str(value)) if np.isfinite(value) else None for value in column]
    if column.dtype.kind == "f":
        return [value if np.isfinite(value) else None for value in column.tolist()]
    return list(column.tolist())


def _write_table(rows: Sequence[Row], columns: Sequence[str], nothing: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    kept = [[row[name] for name in columns] for row in rows]
    if not kept:
        click.echo(nothing)
        return
    cells = [[_table_cell(name, value) for name, value in zip(columns, values, strict=True)] for values in kept]
    needed = 0
    for place, name in enumerate(columns):
        numeric = all(isinstance(values[place], int | float | None) for values in kept)
        title = name.replace("_", " ")
        # On a narrow terminal what is long gives way; numbers, times and names stay whole.
        width = max(len(title), *(len(texts[place]) for texts in cells))
        table.add_column(
            title, justify="right" if numeric else "left", overflow="fold", no_wrap=width <= _NO_WRAP_WIDTH
        )
        needed += min(width, _NO_WRAP_WIDTH) + 2
    for texts in cells:
        table.add_row(*map(Text, texts))
    # Into a file or a pipe a table is as wide as it needs to be; nowhere is a number cut short.
    console = Console(file=sys.stdout)
    console.width = max(console.width, needed) if sys.stdout.isatty() else 10_000
    console.print(table)


_OPEN_BOUND = 3.4e38
"""From here on an upper bound is none: `monitor.thresholds.percentile.OPEN`, whose module takes long to import."""


def _table_cell(name: str, value: Any) -> str:
    if name == "upper" and isinstance(value, float) and value >= _OPEN_BOUND:
        return "open"
    is_time = name.endswith(("_at", "_time", "_from", "_delivered", "_pending"))
    return format_short_time(value) if is_time else format_value(value)


def _write_csv(rows: Iterable[Row], columns: Sequence[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_csv_cell(row[name]) for name in columns])


def _csv_cell(value: Any) -> Any:
    nested = isinstance(value, bool | Mapping | list | tuple)
    return json.dumps(value, ensure_ascii=False) if nested else value


def _json_row(row: Row, columns: Sequence[str]) -> str:
    return json.dumps({name: row[name] for name in columns}, ensure_ascii=False)
