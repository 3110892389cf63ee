"""`outrider thresholds`: the limits of a stream, and what the newest means."""

import click

from config.settings import Settings
from monitor.cli.database import format_no_history, has_history, open_database, open_history
from monitor.cli.output.budget_text import describe_budget, describe_threshold_notes, suggest_window_size
from monitor.cli.output.tables import (
    TABLE_ROWS,
    format_option,
    iterate_rows,
    limit_option,
    resolve_format,
    resolve_limit,
    write_rows,
)
from monitor.cli.settings import load_settings
from monitor.thresholds.tick import load_clean_rate, load_count_model
from storage.queries.history_views import THRESHOLDS
from storage.queries.status import load_stream_ids, load_stream_status

_TABLE_COLUMNS = ("valid_from", "threshold", "lower", "upper", "percentile", "n", "method")


@click.command(name="thresholds")
@click.argument("stream")
@limit_option
@format_option
@click.pass_context
def command(ctx: click.Context, stream: str, limit: int | None, form: str | None) -> None:
    """List the thresholds of STREAM in the order in which they became valid."""
    settings, form = load_settings(ctx), resolve_format(form)
    columns = list(THRESHOLDS.columns)
    with open_history(settings) as history:
        if not has_history(settings, history.streams(), stream):
            click.echo(format_no_history(stream), err=True)
            write_rows([], columns, form, nothing="No thresholds.")
            return
        kept = resolve_limit(limit, form)
        rows = iterate_rows(history.thresholds(stream, limit=kept))
        write_rows(rows, columns, form, shown=_TABLE_COLUMNS, nothing="No thresholds.")
    if form == "table":
        _print_budget(settings, stream)
    if kept != limit:
        click.echo(f"A table has the newest {TABLE_ROWS} rows at most; --limit takes more.", err=True)


def _print_budget(settings: Settings, stream: str) -> None:
    """Say below the table what the limit in force means in counts, for windows as they are."""
    own = settings.streams.get(stream)
    if own is None:
        return
    with open_database(settings) as db:
        standing = load_stream_status(db, load_stream_ids(db)[stream], lease=f"control:{stream}")
    limit, typical = standing.threshold, standing.events_per_window
    if limit is None:
        return
    click.echo()
    for line in describe_threshold_notes(limit.details["limit"]):
        click.echo(line)
    if typical is None:
        return
    law = load_count_model(limit.details)
    for line in describe_budget(law, (typical,), own, load_clean_rate(limit.details)):
        click.echo(line)
    hint = suggest_window_size(law, typical, own)
    if hint is not None:
        click.echo(f"  {hint}")
