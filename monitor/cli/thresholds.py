"""`outrider thresholds`: the limits of a stream."""

import click

from monitor.cli.settings import settings_of
from monitor.cli.stored import history_of, is_stored, not_yet
from monitor.cli.tables import format_of, format_option, rows_of, write
from storage.listings import THRESHOLDS

_TABLE_LIMIT = 50
_SHOWN = ("valid_from", "percentile", "threshold", "lower", "upper", "n", "method", "model_version")


@click.command(name="thresholds")
@click.argument("stream")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help=f"The newest so many (default: {_TABLE_LIMIT} in a table, all of them elsewhere).",
)
@format_option
@click.pass_context
def command(ctx: click.Context, stream: str, limit: int | None, form: str | None) -> None:
    """List the thresholds of STREAM in the order in which they became valid."""
    settings = settings_of(ctx)
    form = format_of(form)
    columns = list(THRESHOLDS.columns)
    with history_of(settings) as history:
        if not is_stored(settings, history.streams(), stream):
            click.echo(not_yet(stream), err=True)
            write([], columns, form, nothing="No thresholds.")
            return
        kept = limit or (_TABLE_LIMIT if form == "table" else None)
        rows = rows_of(history.thresholds(stream, limit=kept))
        write(rows, columns, form, shown=_SHOWN, nothing="No thresholds.")
