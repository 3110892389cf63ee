"""`outrider thresholds`: the limits of a stream."""

import click

from monitor.cli.settings import settings_of
from monitor.cli.stored import history_of, is_stored, not_yet
from monitor.cli.tables import TABLE_ROWS, format_of, format_option, limit_of, limit_option, rows_of, write
from storage.listings import THRESHOLDS

_SHOWN = ("valid_from", "threshold", "lower", "upper", "percentile", "n", "method")


@click.command(name="thresholds")
@click.argument("stream")
@limit_option
@format_option
@click.pass_context
def command(ctx: click.Context, stream: str, limit: int | None, form: str | None) -> None:
    """List the thresholds of STREAM in the order in which they became valid."""
    settings, form = settings_of(ctx), format_of(form)
    columns = list(THRESHOLDS.columns)
    with history_of(settings) as history:
        if not is_stored(settings, history.streams(), stream):
            click.echo(not_yet(stream), err=True)
            write([], columns, form, nothing="No thresholds.")
            return
        kept = limit_of(limit, form)
        rows = rows_of(history.thresholds(stream, limit=kept))
        write(rows, columns, form, shown=_SHOWN, nothing="No thresholds.")
    if kept != limit:
        click.echo(f"A table has the newest {TABLE_ROWS} rows at most; --limit takes more.", err=True)
