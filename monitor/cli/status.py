"""`outrider status`: show the status of each stream, from SQL alone."""

import sys
from collections.abc import Mapping

import click

from config.errors import OutriderError
from monitor.cli.database import open_database
from monitor.cli.output.status_rows import STATUS_COLUMNS, read_status_rows
from monitor.cli.output.status_text import format_stream, wrap_status
from monitor.cli.output.tables import FORMATS, escape_unprintable, output_width, write_rows
from monitor.cli.settings import load_settings
from monitor.daemon.stored_sizes import follow_stored_sizes
from monitor.health.stream_health import StreamHealth, judge_streams
from storage.queries.health import read_health_facts


@click.command(name="status")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", help="Output format.")
@click.option("--check", "checks", is_flag=True, help="Exit with 1 when a stream is not well.")
@click.pass_context
def command(ctx: click.Context, form: str, checks: bool) -> None:
    """Show the status of each stream: state, last event and commit, threshold, open incidents.

    With --check the exit code is 1 unless each configured stream provably makes progress or has ended: when no process
    runs it, when it is stopped, stalled or waits for Kafka, when its source is silent, or when its reports are too
    old. The last line on standard error names the first reason.
    """
    settings = load_settings(ctx)
    with open_database(settings) as db:
        settings = follow_stored_sizes(db, settings)
        health = judge_streams(read_health_facts(db))
        rows = read_status_rows(db, settings, health)
    if form == "table":
        text = "\n\n".join(format_stream(row) for row in rows)
        # A pipe gets one line for each fact, so that it can be searched.
        click.echo(wrap_status(text, output_width()) if sys.stdout.isatty() else text)
    else:
        write_rows(rows, STATUS_COLUMNS, form)
    if checks:
        _raise_problems({name: health.get(name) for name in settings.streams})


def _raise_problems(health: Mapping[str, StreamHealth | None]) -> None:
    """Raise the first problem of the streams; None is a stream that has never run.

    Raises:
        OutriderError: A stream is not well.
    """
    problems = {
        name: "never run" if each is None else _describe_obstacle(each)
        for name, each in health.items()
        if each is None or each.first_obstacle is not None
    }
    if not problems:
        return
    name, problem = next(iter(problems.items()))
    more = f" (and {len(problems) - 1} more streams)" if len(problems) > 1 else ""
    raise OutriderError(f"stream {name} is not well: {problem}{more}")


def _describe_obstacle(health: StreamHealth) -> str:
    problem = health.first_obstacle
    assert problem is not None, "a stream that is not well has a problem"
    return f"{problem.state.replace('_', ' ')}: {escape_unprintable(problem.reason)}"
