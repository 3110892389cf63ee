"""`outrider backtest`: replay recorded events or stored windows with the code of the daemon."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.output.tables import echo_note, format_option, write_rows
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
    """Command with several values in a row for the options `--percentile` and `--false-alarms`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option name before each further value; any other word stays an argument."""
        return super().parse_args(ctx, _repeat_options(args))


def _repeat_options(args: Sequence[str]) -> list[str]:
    repeated: list[str] = []
    option, values = "", 0
    for arg in args:
        if option and values and _VALUE_PATTERNS[option].fullmatch(arg):
            repeated += [option, arg]
            continue
        if option and not values:
            values = 1
        else:
            option, values = arg if arg in _VALUE_PATTERNS else "", 0
        repeated.append(arg)
    return repeated


@click.command(name="backtest", cls=MultiValueCommand)
@click.argument("stream")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--since", help="Use stored windows from this time on: a time, or a duration back from the latest event (7d)."
)
@click.option(
    "--percentile",
    "percentiles",
    type=float,
    multiple=True,
    help="Percentiles to try, such as 99 99.5 99.9 (default: these and the stream's own).",
)
@click.option(
    "--false-alarms",
    "budgets",
    multiple=True,
    help="False-alarm budgets to try, such as 1/day 1/week (default: these and the stream's own).",
)
@click.option("--labels", type=click.Path(path_type=Path), help="Labelled outliers: events by id or row, or intervals.")
@format_option
@click.pass_context
def command(
    ctx: click.Context,
    stream: str,
    file: Path | None,
    since: str | None,
    percentiles: tuple[float, ...],
    budgets: tuple[str, ...],
    labels: Path | None,
    form: str,
) -> None:
    """Run the code of the daemon over FILE or over STREAM's stored windows; store nothing.

    Prints one row per percentile and false-alarm budget: incidents by kind, alerts per day, budgeted and realised false
    alarms per week. With --labels it adds the delay, the recall of labelled bursts, false incidents and precision.
    """
    from monitor.backtest import backtest
    from monitor.cli.output.progress import progress_bar

    settings = load_settings(ctx)
    name = require_stream(settings, stream)
    with progress_bar("back-testing", None) as report_progress:
        result = backtest(
            settings,
            name,
            file,
            since=since,
            percentiles=percentiles or None,
            false_alarms=budgets or None,
            labels=labels,
            progress=report_progress,
        )
    shown = (*_TABLE_COLUMNS, *(_TABLE_LABEL_COLUMNS if labels else ()))
    if form == "table":
        echo_note(_format_period(result))
    columns = (*_COLUMNS, *(_LABEL_COLUMNS if labels else ()))
    write_rows(map(_build_row, result.rows()), columns, form, shown=shown)


def _build_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "promised": row["promised_per_week"], "realised": row["realised_per_week"]}


def _format_period(result: "Backtest") -> str:
    from config.time_format import DAY_US, format_short_time

    first = result.cells[0]
    days = (result.end_us - result.begin_us) / DAY_US
    return (
        f"{first.windows:,} windows with {first.events:,} events, {format_short_time(result.begin_us)} to "
        f"{format_short_time(result.end_us)} ({days:.3g} days); promised and realised are false alarms per week"
    )
