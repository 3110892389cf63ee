"""`outrider history`: the scores of a stream."""

import click

from config.settings import Settings
from monitor.cli.settings import settings_of
from monitor.cli.stored import history_of, is_stored, not_yet
from monitor.cli.tables import format_of, format_option, rows_of, write
from storage.listings import OUTLIERS, SCORES

_TABLE_LIMIT = 50


@click.command(name="history")
@click.argument("stream")
@click.option("--since", help="From when on: a time, or a duration back from the latest event (1h).")
@click.option("--until", help="Before when: a time, or a duration back from the latest event.")
@click.option("--outliers", is_flag=True, help="Only the outliers, with their features.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help=f"The newest so many (default: {_TABLE_LIMIT} in a table, all of them elsewhere).",
)
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
    settings = settings_of(ctx)
    form = format_of(form)
    kept = limit or (_TABLE_LIMIT if form == "table" else None)
    _write(settings, stream, since, until, outliers=outliers, limit=kept, form=form)
    if form == "table" and limit is None:
        click.echo(f"At most the newest {_TABLE_LIMIT}; --limit takes more.", err=True)


def _write(
    settings: Settings,
    stream: str,
    since: str | None,
    until: str | None,
    *,
    outliers: bool,
    limit: int | None,
    form: str,
) -> None:
    columns = list((OUTLIERS if outliers else SCORES).columns)
    with history_of(settings) as history:
        if not is_stored(settings, history.streams(), stream):
            click.echo(not_yet(stream), err=True)
            write([], columns, form, nothing="No scores.")
            return
        batches = history.scores(stream, since=since, until=until, outliers=outliers, limit=limit)
        write(
            (row | {"place": f"{row['topic']}[{row['partition']}] {row['source_offset']}"} for row in rows_of(batches)),
            columns,
            form,
            shown=["event_time", "place", "key", "energy", "threshold", "features" if outliers else "is_outlier"],
            nothing="No outliers." if outliers else "No scores.",
        )
