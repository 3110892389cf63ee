"""`outrider history`: the scores of a stream."""

import click

from monitor.cli.settings import settings_of
from monitor.cli.stored import history_of, is_stored, not_yet
from monitor.cli.tables import TABLE_ROWS, format_of, format_option, limit_of, limit_option, rows_of, write
from storage.listings import OUTLIERS, SCORES


@click.command(name="history")
@click.argument("stream")
@click.option("--since", help="From when on: a time, or a duration back from the latest event (1h).")
@click.option("--until", help="Before when: a time, or a duration back from the latest event.")
@click.option("--outliers", is_flag=True, help="Only the outliers, with their features.")
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
    form: str | None,
) -> None:
    """List the scores of STREAM, oldest first."""
    settings, form = settings_of(ctx), format_of(form)
    columns = list((OUTLIERS if outliers else SCORES).columns)
    last = "features" if outliers else "is_outlier"
    with history_of(settings) as history:
        if not is_stored(settings, history.streams(), stream):
            click.echo(not_yet(stream), err=True)
            write([], columns, form, nothing="No scores.")
            return
        kept = limit_of(limit, form)
        own = settings.streams.get(stream)
        named = ("event_id",) if own is None or own.event.id is not None else ()
        rows = rows_of(history.scores(stream, since=since, until=until, outliers=outliers, limit=kept))
        write(
            (row | {"place": f"{row['topic']}[{row['partition']}] {row['source_offset']}"} for row in rows),
            columns,
            form,
            shown=("event_time", "place", "key", *named, "energy", "threshold", last),
            nothing="No outliers." if outliers else "No scores.",
        )
    if kept != limit:
        click.echo(f"A table has the newest {TABLE_ROWS} rows at most; --limit takes more.", err=True)
