"""A panel that cannot be read says why, and its table is the CSV."""

import csv

from config.errors import StorageUnavailable
from monitor.server.pages.panels import PanelTable, read_panel, write_csv


def _fail() -> str:
    raise StorageUnavailable("the database does not answer")


def test_an_error_stays_in_its_panel() -> None:
    panel = read_panel("why", _fail, sql="SELECT 1")
    assert panel.content is None
    assert panel.error == "the database does not answer"
    assert panel.sql == "SELECT 1"


def test_an_unexpected_error_shows_no_internals() -> None:
    panel = read_panel("why", lambda: {}["secret"])
    assert panel.error is not None
    assert "secret" not in panel.error


def test_a_key_cannot_be_a_formula_in_a_spreadsheet() -> None:
    table = PanelTable(columns=("key", "energy"), rows=[('=HYPERLINK("x")', -1.5), ("a,b\n", None)])
    assert list(csv.reader(write_csv(table).splitlines(keepends=True))) == [
        ["key", "energy"],
        ['\'=HYPERLINK("x")', "-1.5"],
        ["a,b\n", ""],
    ]
