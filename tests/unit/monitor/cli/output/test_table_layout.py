"""A table fits its width: words stay whole, numbers and texts are complete, long texts have lines of their own."""

import re

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from monitor.cli.output.table_layout import TableColumn, format_table, wrap_line

SUMMARY = "17 outliers among 50 events in the window from 2026-11-21T16:52:00Z; a clean window has 0.246, and 6 or more"


def column(title: str, *cells: str, is_numeric: bool = False) -> TableColumn:
    return TableColumn(title=title, cells=cells, is_numeric=is_numeric)


def test_columns_that_fit_are_beside_each_other() -> None:
    lines = format_table([column("id", "1", "12", is_numeric=True), column("kind", "spike", "gap")], 80)
    assert lines == ["id  kind", " 1  spike", "12  gap"]


def test_a_long_summary_follows_its_row_with_whole_words() -> None:
    columns = [
        column("id", "1", "2", is_numeric=True),
        column("stream", "payments", "payments"),
        column("opened at", "2026-11-21T16:53:00Z", "2026-11-21T17:53:00Z"),
        column("summary", SUMMARY, ""),
    ]
    assert format_table(columns, 60) == [
        "id  stream    opened at",
        " 1  payments  2026-11-21T16:53:00Z",
        "  17 outliers among 50 events in the window from",
        "  2026-11-21T16:52:00Z; a clean window has 0.246, and 6 or",
        "  more",
        " 2  payments  2026-11-21T17:53:00Z",
    ]


def test_a_table_of_many_numbers_has_a_line_for_each_value() -> None:
    columns = [column(f"number {i}", "1234567", "7654321", is_numeric=True) for i in range(9)]
    lines = format_table(columns, 60)
    assert lines[:2] == ["number 0  1234567", "number 1  1234567"]
    assert len(lines) == 2 * 9 + 1


texts = st.text(st.sampled_from("abcdefgh -/.é名"), max_size=90).map(lambda text: " ".join(text.split()))


@given(
    rows=st.lists(st.tuples(texts, texts, texts, st.integers(-(10**9), 10**9)), min_size=1, max_size=4),
    width=st.sampled_from([60, 80, 120]),
)
def test_every_line_fits_and_every_word_is_complete(rows: list[tuple[str, str, str, int]], width: int) -> None:
    columns = [
        column(title, *(str(row[place]) for row in rows), is_numeric=place == 3)
        for place, title in enumerate(("stream", "key", "summary", "events"))
    ]
    lines = format_table(columns, width)
    assert max(map(cell_len, lines)) <= width
    words = re.split(r"\s+", " ".join(lines))
    for each in columns:
        for word in " ".join(each.cells).split():
            if cell_len(word) <= width // 3:  # a longer word may not fit beside its title
                assert word in words


def test_only_a_word_that_is_longer_than_a_line_is_broken() -> None:
    assert wrap_line("  key: " + "x" * 100, 60, "  ") == ["  key: " + "x" * 53, "  " + "x" * 47]
