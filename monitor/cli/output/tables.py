"""Output of rows as a table, CSV, JSON or JSON lines, and formatting of single values."""

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click
import numpy as np

from config.time_format import format_short_time, format_times
from monitor.cli.output.table_layout import TableColumn, format_table, wrap_line
from monitor.thresholds.bounds import UNBOUNDED
from storage.queries.history_views import Columns, ColumnValues

Row = Mapping[str, Any]
Command = TypeVar("Command", bound=Callable[..., Any])

FORMATS = ("table", "csv", "json", "jsonl")
TABLE_ROWS = 50
"""Maximum number of rows of a table without --limit."""

_WIDTH = 80
_FORMULA_START = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters of a formula in a spreadsheet; the last four are their full-width forms."""

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def format_option(command: Command) -> Command:
    """Add the option --format to a command, as parameter `form`."""
    option = click.option(
        "--format",
        "form",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="Output format.",
    )
    return option(command)


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
        shown: Columns of a table; the others are only in the other formats.
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
    if not rows:
        click.echo(nothing)
        return
    shown = [
        TableColumn(
            title=name.replace("_", " "),
            cells=[_table_cell(name, row[name]) for row in rows],
            is_numeric=all(isinstance(row[name], int | float | None) for row in rows),
        )
        for name in columns
    ]
    for line in format_table(shown, output_width()):
        click.echo(line)


def echo_note(line: str) -> None:
    """Print a line of text: wrapped on a terminal, whole into a pipe, so that it can be searched."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    for part in wrap_line(line, output_width(), indent) if sys.stdout.isatty() else [line]:
        click.echo(part)


def output_width() -> int:
    """Return the width of the terminal, or the number of the variable COLUMNS; 80 elsewhere."""
    return shutil.get_terminal_size(fallback=(_WIDTH, 24)).columns


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
