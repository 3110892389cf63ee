"""`outrider backtest`: what the daemon would have found in recorded events or stored windows."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.output.tables import format_option, resolve_format, write_rows
from monitor.cli.settings import load_settings, require_stream

if TYPE_CHECKING:
    from monitor.backtest import Backtest

_COLUMNS = (
    "percentile",
    "false_alarms",
    "windows",
    "events",
    "outliers",
    "incidents",
    "alerts_per_day",
    "promised_per_week",
    "realised_per_week",
)
_LABEL_COLUMNS = ("bursts", "recall", "delay_s", "delay_windows", "false_incidents", "precision", "events_found")
_TABLE_COLUMNS = ("percentile", "false_alarms", "outliers", "incidents", "alerts_per_day", "promised", "realised")
_TABLE_LABEL_COLUMNS = ("recall", "delay_s", "false_incidents", "precision")
_VALUE_PATTERNS = {"--percentile": re.compile(r"[0-9.]+"), "--false-alarms": re.compile(r"[0-9.]+\s*/\s*[A-Za-z]+")}


class MultiValueCommand(click.Command):
    """A command whose options `--percentile` and `--false-alarms` take several values behind one another."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Name the option again before each further value; what is none of its values is an argument."""
        return super().parse_args(ctx, _repeat_options(args))


def _repeat_options(args: Sequence[str]) -> list[str]:
    spread: list[str] = []
    option, given = "", 0
    for arg in args:
        if option and given and _VALUE_PATTERNS[option].fullmatch(arg):
            spread += [option, arg]
            continue
        if option and not given:
            given = 1
        else:
            option, given = arg if arg in _VALUE_PATTERNS else "", 0
        spread.append(arg)
    return spread


@click.command(name="backtest", cls=MultiValueCommand)
@click.argument("stream")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--since", help="Stored windows from when on: a time, or a duration back from the latest event (7d).")
@click.option(
    "--percentile",
    "percentiles",
    type=float,
    multiple=True,
    help="Percentiles to try, such as 99 99.5 99.9 (default: these and the stream's own).",
)
@click.option(
    "--false-alarms",
    "promises",
    multiple=True,
    help="Promises to try, such as 1/day 1/week (default: these and the stream's own).",
)
@click.option("--labels", type=click.Path(path_type=Path), help="What was strange: events by id or row, or intervals.")
@format_option
@click.pass_context
def command(
    ctx: click.Context,
    stream: str,
    file: Path | None,
    since: str | None,
    percentiles: tuple[float, ...],
    promises: tuple[str, ...],
    labels: Path | None,
    form: str | None,
) -> None:
    """Run the live code over FILE, or over STREAM's stored windows; store nothing.

    A row for each pair of a percentile and a promise: incidents by kind, alerts a day, promised false alarms a week
    against realised ones, and with --labels the delay, the recall of labelled bursts, false incidents and precision.
    """
    from monitor.backtest import backtest
    from monitor.cli.output.progress import progress_bar

    settings, form = load_settings(ctx), resolve_format(form)
    name = require_stream(settings, stream)
    with progress_bar("back-testing", None) as tell:
        found = backtest(
            settings,
            name,
            file,
            since=since,
            percentiles=percentiles or None,
            false_alarms=promises or None,
            labels=labels,
            progress=tell,
        )
    shown = (*_TABLE_COLUMNS, *(_TABLE_LABEL_COLUMNS if labels else ()))
    if form == "table":
        click.echo(_format_period(found))
    columns = (*_COLUMNS, *(_LABEL_COLUMNS if labels else ()))
    write_rows(map(_build_row, found.rows()), columns, form, shown=shown)


def _build_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "promised": row["promised_per_week"], "realised": row["realised_per_week"]}


def _format_period(found: "Backtest") -> str:
    from monitor.cli.output.tables import format_short_time

    first = found.cells[0]
    days = (found.end_us - found.begin_us) / 86_400e6
    return (
        f"{first.windows:,} windows with {first.events:,} events, {format_short_time(found.begin_us)} to "
        f"{format_short_time(found.end_us)} ({days:.3g} days); promised and realised are false alarms a week"
    )
