"""Every command that lists something prints a table of 80 or 60 columns, also into a pipe, with long names."""

from pathlib import Path

import pytest
from rich.cells import cell_len

from monitor.cli.output.status_text import wrap_status
from storage.control.mutes import MuteStore, NewMute
from storage.database.engine import Database
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import PaymentsStream, store_spike, write_config

KEY = "terminal-of-the-shop-at-the-corner-of-the-long-street-7"
NOTE = "load test of the new terminals of the northern region, until the end of the migration of all of them"
CHANNELS = (
    f"notify: {{channels: {{{'night-shift-of-the-operators' * 2}: {{type: webhook, url: 'http://127.0.0.1:9/x'}}}}}}"
)
LISTINGS = (
    "incidents",
    "mutes",
    "notify",
    "models payments",
    "offsets payments",
    "thresholds payments --limit 5",
    "history payments --limit 5",
    "history payments --outliers --limit 5",
)


def table_of(out: str) -> list[str]:
    """Return the lines of the table, without the notes on the budget after it."""
    return out.partition("\n\n")[0].splitlines()


@pytest.fixture
def config(tmp_path: Path, url: str) -> Path:
    return write_config(tmp_path, url, CHANNELS)


@pytest.fixture
def payments(db: Database, config: Path) -> PaymentsStream:
    """The stream with a spike of a key with a long name, and a mute with a long note."""
    stream = store_spike(db, config, key=KEY)
    now_us = db.now_us()
    MuteStore(db).add(
        NewMute(
            stream="payments",
            kind="spike",
            key=KEY,
            incident_id=None,
            starts_at_us=now_us,
            ends_at_us=now_us + 3_600_000_000,
            weekly=None,
            who="somebody-with-a-long-name@operations.example.org",
            note=NOTE,
        )
    )
    return stream


@pytest.mark.slow
def test_each_listing_is_a_table_that_fits_and_breaks_no_word(
    outrider: OutriderRunner, payments: PaymentsStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in (80, 60):
        monkeypatch.setenv("COLUMNS", str(width))
        for listing in LISTINGS:
            result = outrider(*listing.split())
            assert (listing, result.code) == (listing, 0)
            lines = table_of(result.out)
            assert max(map(cell_len, lines)) <= width, (listing, width)
            assert not result.out.startswith(("{", "[")), listing
        assert KEY in outrider("history", "payments", "--outliers", "--limit", "1").out
        assert KEY in outrider("mutes").out
        assert " ".join(NOTE.split()) in " ".join(outrider("mutes").out.split())
    assert outrider("incidents", "--format", "csv").out.startswith("id,stream,kind,")


def test_the_status_wraps_between_words_on_a_terminal(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    text = outrider("status").out
    assert max(map(len, text.splitlines())) > 80
    for width in (80, 60):
        wrapped = wrap_status(text, width)
        assert max(map(cell_len, wrapped.splitlines())) <= width
        assert wrapped.split() == text.split()
