"""`outrider status` tells from SQL alone where each stream stands."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from monitor.control_plane.lease import LEASE_TTL_S
from storage.control.models import ModelStore
from storage.control.outbox import Outbox
from storage.database.engine import Database
from storage.database.jobs import record_job_result
from storage.database.leases import Leases
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import PaymentsStream


def read_status(outrider: OutriderRunner) -> dict[str, Any]:
    ran = outrider("status", "--format", "json")
    assert ran.code == 0
    return {row["stream"]: row for row in json.loads(ran.out)}


def test_a_configured_stream_without_rows_was_never_run(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    assert read_status(outrider)["clicks"]["state"] == "never run"
    assert "clicks: never run" in outrider("status").out


def test_a_warm_up_is_told_as_n_of_m(outrider: OutriderRunner, db: Database, config: Path) -> None:
    payments = PaymentsStream(db, config)
    ModelStore(db).report_warm_up(payments.stream.id, 1_234, 10_000, 2_400.0)
    Leases(db).acquire("control:payments", "somebody", LEASE_TTL_S)
    row = read_status(outrider)["payments"]
    assert (row["warm_up_events"], row["warm_up_wanted"], row["running"]) == (1_234, 10_000, True)
    assert "payments: warming up: 1,234 of 10,000 events, about 40 min left" in outrider("status").out


def test_a_warm_up_that_nobody_goes_on_with_is_told_as_stopped(
    outrider: OutriderRunner, db: Database, config: Path
) -> None:
    PaymentsStream(db, config)
    assert "payments: warming up: 0 of 10,000 events, waiting for the first (stopped)" in outrider("status").out


def test_a_held_lease_means_running(outrider: OutriderRunner, db: Database, payments: PaymentsStream) -> None:
    assert read_status(outrider)["payments"]["state"] == "stopped"
    Leases(db).acquire("control:payments", "somebody", LEASE_TTL_S)
    assert read_status(outrider)["payments"]["state"] == "running"


def test_it_gives_last_event_last_commit_and_next_offset(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    row = read_status(outrider)["payments"]
    assert row["last_event_time"] == "2026-01-01T00:03:59.000000Z"
    assert 0 <= row["last_commit_age_s"] < 600
    assert [source["next_offset"] for source in row["sources"]] == [240]


def test_lag_is_unknown_until_the_owner_has_seen_the_end(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    assert read_status(outrider)["payments"]["lag"] is None
    ledger = payments.ledger
    ledger.mark_idle(
        payments.claim.source_id, payments.claim.epoch, payments.next_offset, payments.db.now_us() + 60_000_000
    )
    assert read_status(outrider)["payments"]["lag"] == 0


def test_it_gives_the_threshold_with_its_interval_and_the_promise_in_words(
    outrider: OutriderRunner, payments: PaymentsStream
) -> None:
    row = read_status(outrider)["payments"]
    assert row["threshold_lower"] < row["threshold"] < row["threshold_upper"]
    assert (row["threshold_n"], row["threshold_method"], row["model_version"]) == (10_000, "reference", 1)
    assert row["promise"].startswith("more than ")
    assert " of 60 in a minute" in row["promise"]


def test_it_counts_open_incidents_and_untold_notifications(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    row = read_status(outrider)["payments"]
    assert (row["open_incidents"], row["incidents"][0]["kind"]) == (1, "spike")
    assert (row["notifications_pending"], row["notifications_dead"]) == (1, 0)
    assert "1 open" in outrider("status").out


def test_it_says_why_a_notification_was_given_up_and_how_old_the_oldest_is(
    outrider: OutriderRunner, db: Database, payments: PaymentsStream
) -> None:
    outbox = Outbox(db)
    message = outbox.claim("log", 1)
    assert message is not None
    assert 0 <= read_status(outrider)["payments"]["notifications_oldest_age_s"] < 600
    outbox.mark_failed(message, "answered 410", lambda _: None)
    row = read_status(outrider)["payments"]
    assert (row["notifications_pending"], row["notifications_dead"]) == (0, 1)
    assert (row["notifications_oldest_age_s"], row["notifications_last_error"]) == (None, "log: answered 410")
    assert "0 to be told, 1 given up\n    log: answered 410" in outrider("status").out


def test_it_shows_when_jobs_last_succeeded_and_why_one_failed(
    outrider: OutriderRunner, db: Database, payments: PaymentsStream
) -> None:
    record_job_result(db, "retention", None)
    record_job_result(db, "retention", "the disk is full")
    record_job_result(db, "silence payments", None)
    record_job_result(db, "silence clicks", None)
    jobs = {job["name"]: job for job in read_status(outrider)["payments"]["jobs"]}
    assert set(jobs) == {"retention", "silence payments"}
    assert (jobs["retention"]["last_error"], jobs["silence payments"]["last_error"]) == ("the disk is full", None)
    assert 0 <= jobs["retention"]["last_success_age_s"] < 600
    out = outrider("status").out
    assert re.search(r"last done: retention \d+ s ago, silence payments \d+ s ago", out)
    assert re.search(r"retention failed \d+ s ago: the disk is full", out)
    record_job_result(db, "retention", None)
    assert "failed" not in outrider("status").out


def test_it_counts_the_dead_letters_of_the_last_hour(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    payments.commit_minute(dead=7)
    assert read_status(outrider)["payments"]["dead_letters_last_hour"] == 7


def test_without_a_database_it_says_so_and_ends_with_2(outrider: OutriderRunner, tmp_path: Path) -> None:
    config = tmp_path / "other.yaml"
    config.write_text(
        f"database: {{url: 'sqlite:///{tmp_path}/absent.db'}}\nstreams: {{a: {{source: {{type: synthetic}}}}}}"
    )
    ran = outrider("status", config=config)
    assert (ran.code, ran.out) == (2, "")
    assert "does not exist" in ran.err
    assert not (tmp_path / "absent.db").exists()


def test_a_database_without_tables_ends_with_1(outrider: OutriderRunner, db: Database) -> None:
    with db.write():
        pass
    ran = outrider("status")
    assert (ran.code, ran.out) == (1, "")
    assert "outrider db upgrade" in ran.err


@pytest.mark.parametrize("form", ["csv", "jsonl", "table"])
def test_every_format_names_each_stream(outrider: OutriderRunner, payments: PaymentsStream, form: str) -> None:
    ran = outrider("status", "--format", form)
    assert ran.code == 0
    assert {"payments", "clicks"} <= set(ran.out.replace('"', " ").replace(",", " ").replace(":", " ").split())
