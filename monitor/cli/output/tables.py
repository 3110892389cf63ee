"""Output of rows as a table, CSV, JSON or JSON lines, and formatting of single values."""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click
import numpy as np

from config.time_format import format_short_time, format_times
from monitor.thresholds.bounds import UNBOUNDED
from storage.queries.history_views import Columns, ColumnValues

Row = Mapping[str, Any]
Command = TypeVar("Command", bound=Callable[..., Any])

FORMATS = ("table", "csv", "json", "jsonl")
TABLE_ROWS = 50
"""Maximum number of rows of a table without --limit."""

_NO_WRAP_WIDTH = 20
_FORMULA_START = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters of a formula in a spreadsheet; the last four are their full-width forms."""

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def format_option(command: Command) -> Command:
    """Add the option --format to a command, as parameter `form`."""
    option = click.option(
        "--format",
        "form",
        type=click.Choice(FORMATS),
        help="Output format (default: table on a terminal, csv elsewhere).",
    )
    return option(command)


def resolve_format(form: str | None) -> str:
    """Return the requested format; by default table on a terminal, csv elsewhere."""
    return form or ("table" if sys.stdout.isatty() else "csv")


def limit_option(command: Command) -> Command:
    """Add the option --limit to a command."""
    option = click.option(
        "--limit",
        type=click.IntRange(min=1),
        help=f"Number of newest rows (default: {TABLE_ROWS} in a table, otherwise all).",
    )
    return option(command)


def resolve_limit(limit: int | None, form: str) -> int | None:
    """Return the requested row limit; by default that of a table, otherwise None."""
    return limit or (TABLE_ROWS if form == "table" else None)


def iterate_rows(batches: Iterable[Columns]) -> Iterator[dict[str, Any]]:
    """Yield the rows of column batches as Python values: times as RFC 3339, missing values as None."""
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
    """Write rows to standard output, streamed except in a table.

    Args:
        rows: The rows.
        columns: Names of the values to write, in order.
        form: One of `FORMATS`.
        shown: Columns of a table, where a terminal is too narrow for all.
        nothing: Text in place of an empty table.
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


def write_csv_batches(batches: Iterable[Columns], columns: Sequence[str]) -> None:
    """Write batches of columns to standard output as CSV, a column at a time: a tenth of the work for each cell."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for batch in batches:
        writer.writerows(zip(*(_csv_cells(batch[name]) for name in columns), strict=True))


def format_value(value: Any) -> str:
    """Format a value for a table: floats with five digits, unprintable characters escaped."""
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
    """Escape unprintable characters: text from an event may hold terminal escape sequences."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode() for sign in text
    )


def _to_python_values(column: ColumnValues) -> list[Any]:
    if isinstance(column, list):
        return column
    if column.dtype.kind == "M":
        return format_times(column)
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
    values_by_row = [[row[name] for name in columns] for row in rows]
    if not values_by_row:
        click.echo(nothing)
        return
    cells = [
        [_table_cell(name, value) for name, value in zip(columns, values, strict=True)] for values in values_by_row
    ]
    needed = 0
    for place, name in enumerate(columns):
        numeric = all(isinstance(values[place], int | float | None) for values in values_by_row)
        title = name.replace("_", " ")
        # On a narrow terminal only long values wrap; numbers, times and names stay whole.
        width = max(len(title), *(len(texts[place]) for texts in cells))
        table.add_column(
            title, justify="right" if numeric else "left", overflow="fold", no_wrap=width <= _NO_WRAP_WIDTH
        )
        needed += min(width, _NO_WRAP_WIDTH) + 2
    for texts in cells:
        table.add_row(*map(Text, texts))
    # Outside of a terminal the table is as wide as needed; numbers are never cut.
    console = Console(file=sys.stdout)
    console.width = max(console.width, needed) if sys.stdout.isatty() else 10_000
    console.print(table)


def _table_cell(name: str, value: Any) -> str:
    if name == "upper" and isinstance(value, float) and value >= UNBOUNDED:
        return "open"
    is_time = name.endswith(("_at", "_time", "_from", "_delivered", "_pending"))
    return format_short_time(value) if is_time and value is not None else format_value(value)


def _write_csv(rows: Iterable[Row], columns: Sequence[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_csv_cell(row[name]) for name in columns])


def _csv_cells(column: ColumnValues) -> list[Any]:
    values = _to_python_values(column)
    if isinstance(column, list):
        return [None if value is None else _csv_cell(value) for value in values]
    return ["true" if value else "false" for value in values] if column.dtype.kind == "b" else values


def _csv_cell(value: Any) -> Any:
    """Return the value of a CSV cell: nested values as JSON, texts without control characters and formulas."""
    if isinstance(value, bool | Mapping | list | tuple):
        return _format_json(value)
    if not isinstance(value, str):
        return value
    text = escape_unprintable(value)
    # A spreadsheet evaluates a text with such a beginning. The apostrophe marks it as text.
    return f"'{text}" if text.startswith(_FORMULA_START) and not _NUMBER.fullmatch(text) else text


def _json_row(row: Row, columns: Sequence[str]) -> str:
    return _format_json({name: row[name] for name in columns})


def _format_json(value: Any) -> str:
    r"""Format a value as JSON; unprintable characters, which may be terminal escape sequences, as \u escapes."""
    text = json.dumps(value, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in text)
