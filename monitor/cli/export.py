"""`outrider export`: write the scores of a stream to Parquet files."""

from pathlib import Path

import click

from config.time_format import format_utc
from monitor.cli.database import format_no_history, has_history, open_database, open_history
from monitor.cli.settings import load_settings
from storage.export import export_scores
from storage.queries.export_facts import read_export_facts
from storage.queries.times import resolve_time_bound


@click.command(name="export")
@click.argument("stream")
@click.option("--format", "form", type=click.Choice(["parquet"]), default="parquet", help="Format of the files.")
@click.option("--since", help="Start: a time, or a duration back from the end of the sealed windows (7d).")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the files.")
@click.pass_context
def command(ctx: click.Context, stream: str, form: str, since: str | None, output: Path) -> None:
    """Write the scores of STREAM to Parquet files, one per hour of event time.

    An hour is written once all of its windows are sealed. Later runs write the hours since then, and late events of
    earlier hours to further files: each score is written once. Run it more often than retention.scores.
    """
    del form  # there is one format so far
    settings = load_settings(ctx)
    with open_history(settings) as history, open_database(settings) as db:
        if not has_history(settings, history.streams(), stream):
            click.echo(format_no_history(stream), err=True)
            return
        facts = read_export_facts(db, stream)
        since_us = resolve_time_bound(since, facts.sealed_until_us)
        result = export_scores(history, stream, facts, output, since_us=since_us)
    if result.until_us is None:
        click.echo(f"Stream {stream} has no sealed windows yet.", err=True)
        return
    click.echo(
        f"Wrote {result.rows:,} scores to {result.files:,} files in {output / stream}; "
        f"the hours before {format_utc(result.until_us)} are exported."
    )
