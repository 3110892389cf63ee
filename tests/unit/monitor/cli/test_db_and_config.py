"""`outrider db` and `outrider config`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import config_schema
from storage.database.engine import Database
from storage.database.revisions import KNOWN_REVISIONS
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import PaymentsStream


def test_upgrade_creates_the_schema_and_can_be_repeated(outrider: OutriderRunner, db: Database) -> None:
    first, again = outrider("db", "upgrade"), outrider("db", "upgrade")
    assert (first.code, again.code) == (0, 0)
    assert f"now has schema {KNOWN_REVISIONS[-1]} (before: none)" in first.out
    assert "already" in again.out
    db.check_schema()


def test_check_accepts_the_schema_of_this_version(outrider: OutriderRunner) -> None:
    outrider("db", "upgrade")
    result = outrider("db", "check")
    assert (result.code, result.err) == (0, "")
    assert KNOWN_REVISIONS[-1] in result.out


def test_check_exits_with_1_without_tables(outrider: OutriderRunner, db: Database) -> None:
    with db.write():
        pass
    result = outrider("db", "check")
    assert (result.code, result.out) == (1, "")
    assert "run `outrider db upgrade`" in result.err


def test_schema_is_printed_without_a_configuration(outrider: OutriderRunner, tmp_path: Path) -> None:
    result = outrider("config", "schema", config=tmp_path / "absent.yaml")
    assert result.code == 0
    assert json.loads(result.out) == config_schema()


@pytest.mark.slow
def test_reading_commands_load_neither_torch_nor_the_kafka_client() -> None:
    names = ("status", "history", "incidents", "thresholds", "models", "db", "config", "check")
    program = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module("monitor.cli." + name)
print([name for name in ("torch", "kafka", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_copy_writes_all_rows_into_another_database(
    outrider: OutriderRunner, payments: PaymentsStream, url: str, tmp_path: Path
) -> None:
    target = f"sqlite:///{tmp_path / 'copy.db'}"
    result = outrider("db", "copy", url, target)
    assert (result.code, result.out.startswith("Copied ")) == (0, True)
    assert "scores: " in result.err
    again = outrider("db", "copy", url, target)
    assert again.code == 2
    assert "is not empty" in again.err


@pytest.mark.parametrize(
    ("source", "message"),
    [("oracle://x/y", "FROM_URL has the unknown scheme"), ("sqlite:////nowhere/x.db", "the folder of the database")],
)
def test_copy_names_the_argument_that_is_no_database(
    outrider: OutriderRunner, tmp_path: Path, source: str, message: str
) -> None:
    result = outrider("db", "copy", source, f"sqlite:///{tmp_path / 'copy.db'}")
    assert result.code == 2
    assert message in result.err
