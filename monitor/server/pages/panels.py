"""Panels of a page: one question, one query, one error; and the tables behind them."""

import csv
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from config.errors import OutriderError

log = logging.getLogger(__name__)

Content = TypeVar("Content")
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelTable:
    """The numbers of a panel as a table, for `As a table` and CSV.

    Attributes:
        columns: Column names with units, such as `energy (nats)`.
        rows: Values; None is an empty cell.
        caption: A sentence below the title.
        names: Names of the columns as series of a chart, which is drawn from the table; empty without a chart.
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel(Generic[Content]):
    """A panel that was read, or could not be read.

    Attributes:
        name: The name in addresses; the heading has the id `h-NAME`.
        content: The values of the template; None if `error` is set.
        error: The reason for which the panel could not be read.
        sql: A query that returns the same numbers, or None.
        table: The numbers as a table; None if the panel has none.
    """

    name: str
    content: Content | None = None
    error: str | None = None
    sql: str | None = None
    table: PanelTable | None = None


def read_panel(
    name: str,
    read: Callable[[], Content],
    *,
    sql: str | None = None,
    table: Callable[[Content], PanelTable | None] | None = None,
) -> Panel[Content]:
    """Return a panel; an error in it does not hold back the others.

    Args:
        name: The name of the panel.
        read: Reads and prepares the content.
        sql: A query that returns the same numbers.
        table: Returns the content as a table.
    """
    try:
        content = read()
        return Panel(name=name, content=content, sql=sql, table=None if table is None else table(content))
    except OutriderError as error:
        return Panel(name=name, error=str(error), sql=sql)
    except Exception:
        log.exception("The panel %s could not be read.", name, extra={"action": "page"})
        return Panel(name=name, error="an unexpected error; the log of the server has it", sql=sql)


def write_csv(table: PanelTable) -> str:
    """Return a table as CSV (RFC 4180).

    A text that a spreadsheet would take for a formula gets a leading apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(table.columns)
    writer.writerows([_escape_formula(value) for value in row] for row in table.rows)
    return out.getvalue()


def _escape_formula(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA_SIGNS):
        return f"'{value}"
    return "" if value is None else value
