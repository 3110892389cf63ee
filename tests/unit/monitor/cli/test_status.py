"""`outrider status` shows the status of each stream from SQL alone."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from monitor.control_plane.lease import LEASE_TTL_S
from storage.control.health import HealthReport, HealthStore
from storage.control.models import ModelStore
from storage.control.outbox import Outbox
from storage.control.refits import RefitRow, RefitStore
from storage.control.warm_up import RejectedRecords, WarmUpProgress
from storage.database.engine import Database
from storage.database.jobs import record_job_result
from storage.database.leases import Leases
from storage.database.tables import positions, window_parts, windows
from storage.ledger.idle import IdleSource
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import MINUTE, T0, PaymentsStream


def read_status(outrider: OutriderRunner) -> dict[str, Any]:
    result = outrider("status", "--format", "json")
    assert result.code == 0
    return {row["stream"]: row for row in json.loads(result.out)}


def report_as_daemon(db: Database, payments: PaymentsStream, state: str) -> None:
    """Store the lease and the report of a daemon that runs the stream."""
    Leases(db).acquire("control:payments", "another-daemon:1", LEASE_TTL_S)
    report = HealthReport(component="stream", state=state, since_us=db.now_us(), lag_events=3)
    HealthStore(db).replace_reports("another-daemon", {payments.stream.id: [report]})
    with db.write() as conn:
        conn.execute(sa.update(positions).values(owner="another-daemon:1"))


def test_check_fails_until_the_stream_is_proven_and_for_a_stream_that_never_ran(
    outrider: OutriderRunner, db: Database, payments: PaymentsStream, config: Path
) -> None:
    result = outrider("status", "--check")
    assert result.code == 1
    assert "stream payments is not well: not running: no process runs the stream (and 1 more streams)" in result.err
    report_as_daemon(db, payments, "running")
    assert "stream clicks is not well: never run" in outrider("status", "--check").err
    config.write_text(re.sub(r"\n  clicks:(\n    .*)+", "", config.read_text()))
    result = outrider("status", "--check")
    assert (result.code, result.err) == (0, ""), "an open spike is a finding, not a fault"
    assert re.search(r"proof +reported \d+ s ago, lease renewed \d+ s ago", result.out)
    assert "lag            3 events; next offset of" in result.out
    proof = read_status(outrider)["payments"]["proof"]
    assert (proof["lease_holder"], proof["lag_events"]) == ("another-daemon:1", 3)


def test_configured_stream_without_rows_has_never_run(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    assert read_status(outrider)["clicks"]["state"] == "never run"
    assert "clicks: never run" in outrider("status").out


def test_warm_up_is_shown_as_n_of_m_events(outrider: OutriderRunner, db: Database, config: Path) -> None:
    payments = PaymentsStream(db, config)
    ModelStore(db).report_warm_up(payments.stream.id, WarmUpProgress(events=1_234, wanted=10_000, left_s=2_400.0))
    report_as_daemon(db, payments, "warming_up")
    row = read_status(outrider)["payments"]
    assert (row["warm_up_events"], row["warm_up_wanted"], row["running"]) == (1_234, 10_000, True)
    assert "payments: warming up: 1,234 of 10,000 events, about 40 min left" in outrider("status").out


def test_warm_up_without_a_running_daemon_is_shown_as_stopped(
    outrider: OutriderRunner, db: Database, config: Path
) -> None:
    PaymentsStream(db, config)
    assert "payments: warming up: 0 of 10,000 events, waiting for the first (stopped)" in outrider("status").out


def test_a_report_and_the_lease_mean_running(outrider: OutriderRunner, db: Database, payments: PaymentsStream) -> None:
    assert read_status(outrider)["payments"]["state"] == "stopped"
    report_as_daemon(db, payments, "running")
    assert read_status(outrider)["payments"]["state"] == "running"


def test_last_event_last_commit_and_next_offset_are_shown(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    row = read_status(outrider)["payments"]
    assert row["last_event_time"] == "2026-01-01T00:03:59.000000Z"
    assert 0 <= row["last_commit_age_s"] < 600
    assert [source["next_offset"] for source in row["sources"]] == [240]


def test_lag_is_unknown_until_the_owner_has_seen_the_end(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    assert read_status(outrider)["payments"]["lag"] is None
    source = IdleSource(
        source_id=payments.claim.source_id, epoch=payments.claim.epoch, next_offset=payments.next_offset
    )
    payments.ledger.mark_idle([source], payments.db.now_us() + 60_000_000)
    assert read_status(outrider)["payments"]["lag"] == 0


def test_threshold_interval_and_spike_budget_are_shown(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    row = read_status(outrider)["payments"]
    assert row["threshold_lower"] < row["threshold"] < row["threshold_upper"]
    assert (row["threshold_n"], row["threshold_method"], row["model_version"]) == (10_000, "reference", 1)
    assert row["promise"].startswith("more than ")
    assert " of 60 in a minute" in row["promise"]


def test_open_incidents_and_pending_notifications_are_counted(
    outrider: OutriderRunner, payments: PaymentsStream
) -> None:
    row = read_status(outrider)["payments"]
    assert (row["open_incidents"], row["incidents"][0]["kind"]) == (1, "spike")
    assert (row["notifications_pending"], row["notifications_dead"]) == (1, 0)
    assert "1 open" in outrider("status").out


def test_last_notification_error_and_age_of_the_oldest_pending_are_shown(
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
    assert "0 pending, 1 given up\n    log: answered 410" in outrider("status").out


@pytest.mark.slow
def test_last_success_and_last_error_of_jobs_are_shown(
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
    assert re.search(r"last success: retention \d+ s ago, silence payments \d+ s ago", out)
    assert re.search(r"retention failed \d+ s ago: the disk is full", out)
    record_job_result(db, "retention", None)
    assert "failed" not in outrider("status").out


def test_dead_letters_of_the_last_hour_are_counted(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    payments.commit_minute(dead=7)
    assert read_status(outrider)["payments"]["dead_letters_last_hour"] == 7


def test_held_partitions_and_the_share_of_late_events_are_shown(
    outrider: OutriderRunner, db: Database, payments: PaymentsStream
) -> None:
    with db.write() as conn:
        conn.execute(sa.update(window_parts).values(late=10, events=90))
        conn.execute(sa.update(windows).values(late=10, events=90))
    held = HealthReport(component="partition t[1]", state="held", since_us=db.now_us(), reason="lead: it is ahead")
    running = HealthReport(component="stream", state="running", since_us=db.now_us())
    report_as_daemon(db, payments, "running")
    HealthStore(db).replace_reports("another-daemon", {payments.stream.id: [running, held]})
    row = read_status(outrider)["payments"]
    assert row["late_share_last_hour"] == 0.1
    assert [(each["partition"], each["reason"]) for each in row["held"]] == [("t[1]", "lead: it is ahead")]
    assert row["problems"] == []
    assert (row["condition"], row["health"]) == ("critical", "running"), "the spike is open"
    out = outrider("status").out
    assert re.search(r"held +t\[1\] since .*lead: it is ahead", out)
    assert "10.0% of the events of the last hour" in out


def test_missing_database_exits_with_2(outrider: OutriderRunner, tmp_path: Path) -> None:
    config = tmp_path / "other.yaml"
    config.write_text(
        f"database: {{url: 'sqlite:///{tmp_path}/absent.db'}}\nstreams: {{a: {{source: {{type: synthetic}}}}}}"
    )
    result = outrider("status", config=config)
    assert (result.code, result.out) == (2, "")
    assert "does not exist" in result.err
    assert not (tmp_path / "absent.db").exists()


def test_database_without_tables_exits_with_1(outrider: OutriderRunner, db: Database) -> None:
    with db.write():
        pass
    result = outrider("status")
    assert (result.code, result.out) == (1, "")
    assert "outrider db upgrade" in result.err


@pytest.mark.parametrize("form", ["csv", "jsonl", "table"])
def test_every_format_names_each_stream(outrider: OutriderRunner, payments: PaymentsStream, form: str) -> None:
    result = outrider("status", "--format", form)
    assert result.code == 0
    assert {"payments", "clicks"} <= set(result.out.replace('"', " ").replace(",", " ").replace(":", " ").split())


def test_rejected_records_of_a_warm_up_are_shown_with_the_nearest_field(
    outrider: OutriderRunner, db: Database, config: Path
) -> None:
    payments = PaymentsStream(db, config)
    hint = "the field nearest to 'amount' is 'amout'"
    rejected = RejectedRecords(reason="missing_feature", n=1_200, detail="amount: absent", hint=hint)
    progress = WarmUpProgress(
        events=0, wanted=500, records=1_200, rejected=1_200, rejections=(rejected,), caught_up=True
    )
    ModelStore(db).report_warm_up(payments.stream.id, progress)
    report_as_daemon(db, payments, "warming_up")
    text = outrider("status").out
    assert "payments: warming up: 0 of 500 events, all 1,200 records rejected: missing_feature 1,200" in text
    assert f"  rejected       missing_feature 1,200 (amount: absent; {hint})" in text
    row = read_status(outrider)["payments"]
    assert (row["warm_up_records"], row["warm_up_rejected"], row["warm_up_caught_up"]) == (1_200, 1_200, True)
    assert row["warm_up_rejections"] == [
        {"reason": "missing_feature", "n": 1_200, "detail": "amount: absent", "hint": hint}
    ]


def test_estimate_of_a_warm_up_that_has_caught_up_is_shown(
    outrider: OutriderRunner, db: Database, config: Path
) -> None:
    payments = PaymentsStream(db, config)
    progress = WarmUpProgress(
        events=172, wanted=5_500, left_s=518_400.0, records=172, caught_up=True, events_per_s=37 / 3_600
    )
    ModelStore(db).report_warm_up(payments.stream.id, progress)
    assert "caught up" not in outrider("status").out, "no daemon reads"
    report_as_daemon(db, payments, "warming_up")
    assert "172 of 5,500 events, caught up; at 37 events/h this takes 6 days" in outrider("status").out


def test_the_last_refit_and_the_next_one_are_shown(
    outrider: OutriderRunner, db: Database, payments: PaymentsStream, config: Path
) -> None:
    assert read_status(outrider)["payments"]["refit"] is None
    text = config.read_text().replace(
        "alerts: {min_outliers: 3}", "alerts: {min_outliers: 3}\n    model: {refit: {every: 1h, over: 1d}}"
    )
    config.write_text(text)
    assert "refit          next due 2026-01-01T01:00:00Z" in outrider("status").out
    reason = {"reason": "an incident is open (spike)"}
    row = RefitRow(due_us=T0 + 60 * MINUTE, state="postponed", details=reason)
    assert RefitStore(db).begin(payments.stream.id, None, row)
    shown = read_status(outrider)["payments"]["refit"]
    assert (shown["state"], shown["reason"]) == ("postponed", "an incident is open (spike)")
    assert shown["next_due"] == "2026-01-01T01:02:30.000000Z", "it is tried again before the next hour"
    assert "2026-01-01T01:00:00Z postponed: an incident is open (spike); next due" in outrider("status").out
