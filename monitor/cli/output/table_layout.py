"""The layout of a table within a width: words stay whole, long columns have lines of their own."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

_GAP = "  "
_INDENT = "  "
_MIN_WRAP_WIDTH = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TableColumn:
    """A column of texts, one per row; numbers are aligned to the right."""

    title: str
    cells: Sequence[str]
    is_numeric: bool

    @property
    def width(self) -> int:
        """Return the width of the widest text, in terminal cells."""
        return max(map(cell_len, (self.title, *self.cells)))

    def pad(self, text: str) -> str:
        """Return a text in the width of the column."""
        blanks = " " * (self.width - cell_len(text))
        return blanks + text if self.is_numeric else text + blanks


def format_table(columns: Sequence[TableColumn], width: int) -> list[str]:
    """Return the lines of a table, the titles first, each of at most `width` terminal cells.

    Where the columns do not fit beside each other, the widest texts follow their row on lines of their own, with their
    title. A table that is too wide even then has one line for each value. Only a word that is longer than a line is
    broken.

    Args:
        columns: The columns; all have the same number of cells, at least one.
        width: The width in terminal cells.
    """
    beside, below = list(columns), list[TableColumn]()
    while _width_of(beside) > width:
        movable = [each for each in beside[1:] if not each.is_numeric]
        if not movable:
            return _format_records(columns, width)
        widest = max(movable, key=lambda each: each.width)
        beside.remove(widest)
        below.append(widest)
    below.sort(key=columns.index)
    lines = [_join([each.pad(each.title) for each in beside])]
    for row in range(len(columns[0].cells)):
        lines.append(_join([each.pad(each.cells[row]) for each in beside]))
        for each in below:
            # A sentence explains itself; other values need their title.
            title = "" if " " in each.cells[row] and each is below[-1] else f"{each.title}: "
            lines += wrap_line(f"{_INDENT}{title}{each.cells[row]}", width, _INDENT) if each.cells[row] else []
    return lines


def wrap_line(line: str, width: int, indent: str) -> list[str]:
    """Wrap a line between words; the lines after the first begin with `indent`.

    A word that is longer than a line is broken, and nothing else. Characters of double width count as two cells.
    """
    if cell_len(line) <= width:
        return [line]
    # Characters of double width: textwrap counts characters.
    limit = max(_MIN_WRAP_WIDTH, width - (cell_len(line) - len(line)))
    return textwrap.wrap(
        line, limit, subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True, replace_whitespace=False
    )


def _width_of(columns: Sequence[TableColumn]) -> int:
    return sum(each.width for each in columns) + len(_GAP) * (len(columns) - 1)


def _join(cells: Sequence[str]) -> str:
    return _GAP.join(cells).rstrip()


def _format_records(columns: Sequence[TableColumn], width: int) -> list[str]:
    """Return one line for each value, with its title, and an empty line between rows."""
    title_width = max(cell_len(each.title) for each in columns)
    lines: list[str] = []
    for row in range(len(columns[0].cells)):
        lines += [""] if row else []
        for each in columns:
            title = each.title + " " * (title_width - cell_len(each.title))
            if each.cells[row]:
                lines += wrap_line(f"{title}{_GAP}{each.cells[row]}", width, " " * (title_width + len(_GAP)))
    return lines
