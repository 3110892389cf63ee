"""A daemon stores the same rows however it reads the record batches of Kafka."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.process import DaemonProcess
from tests.daemon.stored import StoredRows, TableDump, differences
from tests.faults.conftest import FilledTopic

pytestmark = [pytest.mark.fault, pytest.mark.long]

_CLIENTS_PARSER = """
from consumers.kafka.client import ReadLimits
ReadLimits.__init__.__kwdefaults__["way"] = "records"
"""
_UNVERIFIED_CLIENT = """
import kafka
kafka.__version__ = "99"
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("change", [_CLIENTS_PARSER, _UNVERIFIED_CLIENT], ids=["clients_parser", "unverified_client"])
def test_records_by_the_clients_parser_give_the_same_rows_as_columns(
    change: str,
    tmp_path: Path,
    topic: FilledTopic,
    reference: TableDump,
    stored_in_sqlite: StoredRows,
    run_daemon: Callable[..., DaemonProcess],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(change)  # imported by the interpreter of the daemon at its start
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd())]))
    daemon = run_daemon(topic.settings(stored_in_sqlite.url))
    daemon.wait_until(lambda: stored_in_sqlite.is_settled(topic.records), "the topic is drained")
    assert daemon.terminate() == 0
    assert ("differs from the verified versions" in daemon.log) == (change == _UNVERIFIED_CLIENT)
    assert differences(stored_in_sqlite.dump(), reference) == {}
