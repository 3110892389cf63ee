"""`outrider thresholds`: list the thresholds of a stream and its false-alarm budget in counts."""

import click

from config.settings import Settings
from monitor.cli.database import format_no_history, has_history, open_database, open_history
from monitor.cli.output.budget_text import (
    describe_budget,
    describe_magnitude_budget,
    describe_threshold_notes,
    suggest_window_size,
)
from monitor.cli.output.season_text import describe_season
from monitor.cli.output.tables import (
    TABLE_ROWS,
    echo_note,
    format_option,
    iterate_rows,
    limit_option,
    resolve_limit,
    write_rows,
)
from monitor.cli.settings import load_settings
from monitor.daemon.stored_sizes import follow_stored_sizes
from monitor.thresholds.tick import load_clean_rate, load_count_model, load_tail_law
from storage.queries.history_views import THRESHOLDS
from storage.queries.status import load_stream_ids, load_stream_status

_TABLE_COLUMNS = ("valid_from", "threshold", "lower", "upper", "percentile", "n", "method")


@click.command(name="thresholds")
@click.argument("stream")
@limit_option
@format_option
@click.pass_context
def command(ctx: click.Context, stream: str, limit: int | None, form: str) -> None:
    """List the thresholds of STREAM in order of validity."""
    settings = load_settings(ctx)
    columns = list(THRESHOLDS.columns)
    with open_history(settings) as history:
        if not has_history(settings, history.streams(), stream):
            click.echo(format_no_history(stream), err=True)
            write_rows([], columns, form, nothing="No thresholds.")
            return
        row_limit = resolve_limit(limit, form)
        rows = iterate_rows(history.thresholds(stream, limit=row_limit))
        write_rows(rows, columns, form, shown=_TABLE_COLUMNS, nothing="No thresholds.")
    if form == "table":
        _print_budget(settings, stream)
    if row_limit != limit:
        click.echo(f"The table shows the newest {TABLE_ROWS} rows at most; use --limit for more.", err=True)


def _print_budget(settings: Settings, stream: str) -> None:
    """Print the notes on the threshold in force and its false-alarm budget in counts for the median window."""
    if stream not in settings.streams:
        return
    with open_database(settings) as db:
        stream_settings = follow_stored_sizes(db, settings).streams[stream]
        status = load_stream_status(db, load_stream_ids(db)[stream], lease=f"control:{stream}")
    threshold, typical_events = status.threshold, status.events_per_window
    if threshold is None:
        return
    click.echo()
    for line in describe_threshold_notes(threshold.details["limit"]):
        echo_note(line)
    season = describe_season(threshold, stream_settings.threshold.season)
    if season is not None:
        echo_note(f"season: {season}")
    if typical_events is None:
        return
    count_model = load_count_model(threshold.details)
    for line in describe_budget(count_model, (typical_events,), stream_settings, load_clean_rate(threshold.details)):
        echo_note(line)
    tail = load_tail_law(threshold.details)
    least = describe_magnitude_budget(tail, count_model, typical_events, threshold.threshold, stream_settings)
    echo_note(f"  largest energy, the part of the spikes' half that counts leave over: {least}")
    hint = suggest_window_size(count_model, typical_events, stream_settings)
    if hint is not None:
        echo_note(f"  {hint}")
