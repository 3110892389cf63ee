"""`outrider history`: list the scores of a stream."""

import click

from monitor.cli.database import format_no_history, has_history, open_history
from monitor.cli.output.tables import (
    TABLE_ROWS,
    format_option,
    iterate_rows,
    limit_option,
    resolve_limit,
    write_csv_batches,
    write_rows,
)
from monitor.cli.settings import load_settings
from storage.queries.history_views import OUTLIERS, SCORES


@click.command(name="history")
@click.argument("stream")
@click.option("--since", help="Start: a time, or a duration back from the latest event (1h).")
@click.option("--until", help="End (exclusive): a time, or a duration back from the latest event.")
@click.option("--outliers", is_flag=True, help="List only outliers, with their features.")
@limit_option
@format_option
@click.pass_context
def command(
    ctx: click.Context,
    stream: str,
    since: str | None,
    until: str | None,
    outliers: bool,
    limit: int | None,
    form: str,
) -> None:
    """List the scores of STREAM, oldest first."""
    settings = load_settings(ctx)
    columns = list((OUTLIERS if outliers else SCORES).columns)
    last = "features" if outliers else "is_outlier"
    with open_history(settings) as history:
        if not has_history(settings, history.streams(), stream):
            click.echo(format_no_history(stream), err=True)
            write_rows([], columns, form, nothing="No scores.")
            return
        row_limit = resolve_limit(limit, form)
        stream_settings = settings.streams.get(stream)
        named = ("event_id",) if stream_settings is None or stream_settings.event.id is not None else ()
        batches = history.scores(stream, since=since, until=until, outliers=outliers, limit=row_limit)
        if form == "csv":
            write_csv_batches(batches, columns)
            return
        rows = iterate_rows(batches)
        write_rows(
            (row | {"place": f"{row['topic']}[{row['partition']}] {row['source_offset']}"} for row in rows),
            columns,
            form,
            shown=("event_time", "place", "key", *named, "energy", "threshold", last),
            nothing="No outliers." if outliers else "No scores.",
        )
    if row_limit != limit:
        click.echo(f"The table shows the newest {TABLE_ROWS} rows at most; use --limit for more.", err=True)
