"""The documentation is correct: configuration, SQL and Python run, tables and pictures are complete.

The commands run in test_tour.py.
"""

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import click
import numpy as np
import psycopg
import pytest
import yaml
from rich.console import Console

from config.loading import load
from config.settings import Settings
from config.time_format import format_time
from monitor.cli.demo_screen import DemoSnapshot, ShownIncident, render_screen
from monitor.cli.demo_summary import DemoSummary, DetectedDrift, format_summary
from monitor.cli.main import outrider
from monitor.control_plane.verbs import act
from monitor.daemon.daemon import Daemon
from monitor.daemon.rules import build_stream_rules
from monitor.incidents.lifecycle import Kind
from monitor.incidents.verb_plan import VerbRequest
from monitor.incidents.verbs import Verb
from monitor.notify.webhook import sign_request
from storage.control.mutes import MuteStore, NewMute
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from storage.queries import history_views
from storage.queries.history_views import HistoryView
from tests.acceptance.documentation import PAGES, QUICK_START, README, ROOT, block_languages, code_blocks, contains_line

HOURS, RATE_S = 28, 0.2
EVENTS = round(HOURS * 3600 * RATE_S)
BURST_AT = round(0.9 * EVENTS)
FILE_STREAM = """
database: {{url: "{url}"}}
streams:
  payments:
    source: {{type: file, path: {path}}}
    event: {{time: {{field: ts}}, id: payment_id}}
    model: {{n_components: 1, warm_up: 2000}}
    window: {{size: 10m}}
    threshold: {{refresh: 1h}}
    alerts: {{drift: {{horizons: [30m]}}}}
notify: {{max_age: 1d, channels: {{ops: {{type: log}}}}}}
"""


def test_every_code_block_is_in_a_tested_language() -> None:
    assert block_languages() == {"console", "postgresql", "python", "sh", "sql", "text", "yaml"}


def events() -> Iterator[bytes]:
    """Yield JSON events of three features, every five seconds over the last 28 hours, with a burst and a text value."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(EVENTS, 3))
    rows[BURST_AT : BURST_AT + 60] += 12
    begin_us = round((time.time() - HOURS * 3600) * 1e6)
    for i, row in enumerate(rows):
        values = {"amount": row[0], "age": row[1], "count": row[2] if i != 50 else "many"}
        ts = format_time(begin_us + round(i / RATE_S * 1e6))
        yield json.dumps({"ts": ts, "payment_id": f"p{i}", **values}).encode()


def fill_database(folder: Path, url: str) -> None:
    """Run the daemon over a file of events into the database."""
    path = folder / "events.jsonl"
    path.write_bytes(b"\n".join(events()))
    settings = folder / "outrider.yaml"
    settings.write_text(FILE_STREAM.format(url=url, path=path))
    Daemon(load(settings, {})).run()
    apply_verbs(load(settings, {}))


def apply_verbs(settings: Settings) -> None:
    """Give a verdict on the first incident, and add a mute."""
    request = VerbRequest(verb=Verb.CONFIRM, who="anna", note="card testing")
    with Database(settings.database.url) as db:
        now_us = db.now_us()
        assert act(db, 1, request, build_stream_rules(settings, "payments"), now_us=now_us).outcome == "done"
        mute = NewMute(stream="payments", starts_at_us=now_us, ends_at_us=now_us + 1, who="anna")
        MuteStore(db).add(mute)


def test_every_query_runs_and_returns_rows(tmp_path: Path, database_url: str) -> None:
    fill_database(tmp_path, database_url)
    own_table = [
        "CREATE TABLE orders (payment_id TEXT, merchant TEXT)",
        *(f"INSERT INTO orders VALUES ('p{i}', 'm{i % 2}')" for i in range(BURST_AT, BURST_AT + 60)),
    ]
    connection: Any = (
        sqlite3.connect(database_url.removeprefix("sqlite:///"))
        if database_url.startswith("sqlite")
        else psycopg.connect(database_url.replace("postgresql+psycopg", "postgresql"))
    )
    with closing(connection):
        for statement in own_table:
            connection.execute(statement)
        # A recipe names a key, an event or a time that these events lack; the test of the recipes runs them.
        recipes = PAGES["docs/sql.md"].partition("## Recipes\n")[2].partition("\n## ")[0]
        for query in sql_queries():
            rows = connection.execute(query).fetchall()
            assert rows or query.strip() in recipes, f"no rows for:\n{query}"


def sql_queries() -> list[str]:
    """Return the queries of all pages."""
    return [query for block in code_blocks("sql") for query in re.split(r"(?<=;)\n+", block) if query]


def test_every_view_is_used_in_a_query(tmp_path: Path) -> None:
    queries = " ".join(code_blocks("sql"))
    without = {view for view in documented_views(tmp_path) if view not in queries}
    assert without == {"gap_history"}, "it resembles dead_letter_history"


def test_every_configuration_block_loads_after_a_configuration_of_init(tmp_path: Path) -> None:
    (tmp_path / "hook.secret").write_text("open-sesame")
    for block in code_blocks("yaml"):
        path = tmp_path / "outrider.yaml"
        path.write_text(f"streams: {{payments: {{source: {{type: kafka, topics: [payments]}}}}}}\n{block}")
        path.write_text(path.read_text().replace("secret_file: ", f"secret_file: {tmp_path}/"))
        assert load(path, {}).model_fields_set == {"streams", *yaml.safe_load(block)}


def test_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill_database(tmp_path, "sqlite:///outrider.db")
    (embedding,) = code_blocks("python", "docs/python.md")
    assert len(code_blocks("python")) == 2, "the other block is the receiver of the quick start"
    scope: dict[str, Any] = {}
    exec(embedding, scope)
    assert (len(scope["windows"]), len(scope["grid"])) == (HOURS * 6 + 1, 1)
    assert len(scope["why"]) > 0


def test_documented_receiver_rejects_forged_and_stale_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hook.secret").write_text("open-sesame\n")
    scope: dict[str, Any] = {"__name__": "hook"}
    exec(code_blocks("python", QUICK_START)[0], scope)
    body, now = b'{"text": "a spike"}', int(time.time())

    def accepts(*, secret: str = "open-sesame", at: int = now, sent: bytes = body) -> bool:
        headers = {"Outrider-Timestamp": str(at), "Outrider-Signature": sign_request(secret, at, body)}
        return bool(scope["is_ours"](headers, sent))

    assert accepts()
    assert not accepts(secret="guessed")
    assert not accepts(at=now - 3_600)
    assert not accepts(sent=b'{"text": "all is well"}')
    assert not scope["is_ours"]({}, body)


def test_documented_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    lines = [line.split("#")[0].split() for block in code_blocks("sh", README) for line in block.splitlines()]
    assert lines == [["make", "run"], ["make", "test"]]
    assert all(f"\n{target}: $(READY)\n" in makefile for _, target in lines)


def test_pictures_show_the_output_of_the_demo() -> None:
    live, end = code_blocks("text", README)
    out = StringIO()
    console = Console(file=out, width=118, force_terminal=False)
    spike = (
        "49 outliers among 1,200 events in the window from 2026-11-20T08:42:00Z; a clean window has 6, and 17 or more"
    )
    snapshot = DemoSnapshot(
        events=1_200, windows=40, last_window="2026-11-20T08:54:00Z", outliers=[5] * 40, expected=[6.0] * 40,
        p50=[6.0] * 40, p99=[10.0] * 40, threshold=11.85, method="plain",
        incidents=[ShownIncident(id=1, kind="spike", status="open", severity="warning", summary=spike)],
    )  # fmt: skip
    console.print(render_screen(snapshot, 7.0, 59_233, 0.1))
    assert [diagram_labels(line) for line in live.splitlines()[:10]] == [
        diagram_labels(line) for line in out.getvalue().splitlines()[:10]
    ]
    summary = DemoSummary(
        bursts=8, bursts_found=8, delays_s=[120.0], drift_planted=True,
        drift_found=DetectedDrift(feature="x0", delay_s=840.0), false_incidents=0,
        incidents=9, events=432_000,
    )  # fmt: skip
    printed = "\n".join(format_summary(summary, "sqlite:///demo.db", "demo"))
    assert all(contains_line(line, printed) for line in end.splitlines())


def diagram_labels(line: str) -> list[str]:
    """Return the words of a line of the live view, without drawings and numbers."""
    return re.findall(r"[A-Za-z][A-Za-z/-]+", line)


def test_every_view_has_the_columns_of_the_contract_in_their_order(tmp_path: Path) -> None:
    columns = documented_views(tmp_path)
    contract = {each.name: list(each.columns) for each in vars(history_views).values() if isinstance(each, HistoryView)}
    assert contract.keys() == columns.keys() - {"health", "model_history", "rollup_history"}, "read by the page alone"
    assert columns["health"][:5] == ["stream", "component", "state", "since", "reason"]
    for view, names in contract.items():
        # Columns of later versions stand at the end of a view, behind further ones of the first version.
        assert [name for name in columns[view] if name in names] == names or view.startswith(("score", "outlier")), view
        assert set(names) <= set(columns[view]), view


def documented_views(folder: Path) -> dict[str, list[str]]:
    """Return the columns of each view of a new database."""
    with Database(f"sqlite:///{folder / 'empty.db'}") as db:
        upgrade(db)
    with closing(sqlite3.connect(folder / "empty.db")) as connection:
        names = [name for (name,) in connection.execute("select name from sqlite_master where type = 'view'")]
        return {name: [row[1] for row in connection.execute(f"pragma table_info({name})")] for name in names}


def test_command_table_is_complete_and_its_options_exist() -> None:
    table = PAGES["docs/commands.md"]
    cells = [row.split("|")[1] for row in table.splitlines() if re.match(r"\| `[a-z]", row)]
    context = click.Context(outrider)
    documented = {re.split(r"[ `]", cell.strip(" `"))[0] for cell in cells} | {"config"}
    assert documented == set(outrider.list_commands(context))
    for cell in cells:
        command = outrider.get_command(context, re.split(r"[ `]", cell.strip(" `"))[0])
        assert set(re.findall(r"--[a-z-]+", cell)) <= option_names(command), cell


def option_names(command: click.Command | None) -> set[str]:
    """Return the options of a command and its subcommands."""
    assert command is not None
    context = click.Context(command)
    own = {option for parameter in command.params for option in parameter.opts}
    if not isinstance(command, click.Group):
        return own
    return own.union(*(option_names(command.get_command(context, name)) for name in command.list_commands(context)))


def test_every_kind_of_incident_is_in_the_alert_table() -> None:
    table = PAGES["docs/alerts.md"].partition("| incident | means | do |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", table, flags=re.MULTILINE)) == set(Kind)
