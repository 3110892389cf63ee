"""`outrider thresholds`: the limits of a stream, and what the newest means."""

import click

from config.settings import Settings
from monitor.cli.promise import advice, promises, said_of_limit
from monitor.cli.settings import settings_of
from monitor.cli.stored import database_of, history_of, is_stored, not_yet
from monitor.cli.tables import TABLE_ROWS, format_of, format_option, limit_of, limit_option, rows_of, write
from monitor.findings.calibration import clean_rate_of, law_of
from storage.listings import THRESHOLDS
from storage.standing import standing_of, stream_ids

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
    if form == "table":
        _say_promise(settings, stream)
    if kept != limit:
        click.echo(f"A table has the newest {TABLE_ROWS} rows at most; --limit takes more.", err=True)


def _say_promise(settings: Settings, stream: str) -> None:
    """Say below the table what the limit in force means in counts, for windows as they are."""
    own = settings.streams.get(stream)
    if own is None:
        return
    with database_of(settings) as db:
        standing = standing_of(db, stream_ids(db)[stream], lease=f"control:{stream}")
    limit, typical = standing.threshold, standing.events_a_window
    if limit is None:
        return
    click.echo()
    for line in said_of_limit(limit.details["limit"]):
        click.echo(line)
    if typical is None:
        return
    law = law_of(limit.details)
    for line in promises(law, (typical,), own, clean_rate_of(limit.details)):
        click.echo(line)
    hint = advice(law, typical, own)
    if hint is not None:
        click.echo(f"  {hint}")
