"""The panels "Try a threshold" and "Back-test grid": outcomes of back-tests, and what verdicts say about them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from config.errors import ConfigError
from config.settings import Settings
from config.time_format import WEEK_US
from config.units import Rate, parse_rate
from monitor.server.context import ServerContext
from monitor.server.pages.formats import interval, number, plural
from monitor.server.pages.panels import PanelTable
from monitor.server.pages.stream_view import StreamView
from monitor.server.trials import Trial, TrialCell, TrialIncident, TrialRequest
from monitor.statistics.poisson import poisson_interval
from storage.queries.rollups import IncidentMark, read_incident_marks
from storage.queries.stream_series import StreamExtent, read_threshold_steps

PERCENTILES = (98.0, 99.0, 99.3, 99.5, 99.7, 99.9)
GRID_PERCENTILES = (99.0, 99.5, 99.9)
GRID_BUDGETS = ("1/day", "1/week", "1/month")
_LEAST_SINCE = "24h"
_SHORT_RANGES = frozenset({"1h", "6h"})
_SMALLEST_PERCENTILE = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedCell:
    """A pair of percentile and budget, and what became of the stored windows with it.

    Attributes:
        percentile: The percentile.
        false_alarms: The budget.
        is_in_force: Whether the stream has both.
        outliers: Number of outliers.
        incidents: Number of incidents of the kinds under the budget.
        alerts_per_day: Incidents of all kinds a day.
        promised: False alarms promised a week.
        realised: Incidents under the budget a week, as if all were false, as `outrider backtest` prints them.
        realised_low: Lower end of its 95% interval.
        realised_high: Upper end.
        false: Incidents that a person called false alarms.
        found: Incidents that a person confirmed and that fire again.
        missed: Those that would not fire.
        says: All of it in words.
        yaml: The settings.
    """

    percentile: float
    false_alarms: str
    is_in_force: bool
    outliers: int
    incidents: int
    alerts_per_day: float
    promised: float
    realised: float
    realised_low: float
    realised_high: float
    false: int
    found: int
    missed: int
    says: str
    yaml: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPanel:
    """The content of a panel with a back-test.

    Attributes:
        trial: Its state; None if nobody has asked for it.
        cells: The outcomes; empty before the end.
        chosen: Place of the cell that the slider begins with.
        period: The replayed time in words.
        since: The duration that is replayed.
        command: The command that prints the same numbers.
        confirmed: Number of confirmed incidents in the time.
        run: Address that starts the back-test without script.
        table: The outcomes as a table.
    """

    trial: Trial | None
    cells: Sequence[TriedCell]
    chosen: int
    period: str
    since: str
    command: str
    confirmed: int
    run: str
    table: PanelTable | None


def read_trial_panel(
    context: ServerContext, extent: StreamExtent, view: StreamView, *, start: bool, grid: bool, run: str
) -> TrialPanel:
    """Return the state of the back-test of a stream over the range of the page.

    Args:
        context: The shared values of all requests.
        extent: The stream.
        view: The state of the page.
        start: Whether to start the back-test, or only to offer it.
        grid: Whether several budgets are tried with few percentiles, instead of many percentiles with one budget.
        run: Address that starts it without script.

    Raises:
        ConfigError: The configuration of the server does not have the stream.
    """
    own = _find_own_cell(context, extent, view.stream)
    request = build_request(own, extent, view, grid=grid)
    trial = context.trials.ask(request) if start else None
    cells: list[TriedCell] = []
    marks: Sequence[IncidentMark] = ()
    if trial is not None and trial.cells:
        with context.reads.read() as conn:
            marks = read_incident_marks(conn, [extent.stream_id], from_us=trial.begin_us, until_us=trial.end_us)
        cells = [describe_cell(cell, marks, trial, own, view.stream) for cell in trial.cells]
    return TrialPanel(
        trial=trial,
        cells=cells,
        chosen=_find_chosen(cells, view.percentile),
        period=interval(trial.begin_us, trial.end_us, beside_us=extent.last_us or 0) if trial and cells else "",
        since=request.since or "",
        command=_format_command(request),
        confirmed=sum(1 for mark in marks if mark.verdict == "confirmed"),
        run=run,
        table=_build_table(cells) if cells else None,
    )


def _find_own_cell(context: ServerContext, extent: StreamExtent, stream: str) -> tuple[float, Rate]:
    """Return the percentile in force and the budget of a stream.

    Raises:
        ConfigError: The configuration of the server does not have the stream.
    """
    settings: Settings = context.settings
    if stream not in settings.streams:
        raise ConfigError(
            f"the configuration of this server has no stream {stream}, so its windows cannot be replayed: start the "
            "server with the configuration of the daemon"
        )
    last_us = extent.last_us or 0
    with context.reads.read() as conn:
        steps = read_threshold_steps(conn, extent.stream_id, from_us=last_us, until_us=last_us)
    percentile = steps[-1].percentile if steps else 99.5
    return percentile, settings.streams[stream].alerts.false_alarms


def build_request(own: tuple[float, Rate], extent: StreamExtent, view: StreamView, *, grid: bool) -> TrialRequest:
    """Return the back-test of a page; the stream's own percentile and budget are always part of it."""
    percentile, budget = own
    percentiles = {*(GRID_PERCENTILES if grid else PERCENTILES), percentile}
    if not grid and view.percentile is not None and view.percentile >= _SMALLEST_PERCENTILE:
        percentiles.add(view.percentile)
    budgets = [parse_rate(each) for each in GRID_BUDGETS] if grid else []
    if budget.per_week not in {each.per_week for each in budgets}:
        budgets.append(budget)
    return TrialRequest(
        stream=view.stream,
        since=_LEAST_SINCE if view.range in _SHORT_RANGES else view.range,
        percentiles=tuple(sorted(percentiles)),
        false_alarms=tuple(str(each) for each in sorted(budgets, key=lambda rate: -rate.per_week)),
        basis=(extent.last_tick_us, extent.revision),
    )


def describe_cell(
    cell: TrialCell, marks: Sequence[IncidentMark], trial: Trial, own: tuple[float, Rate], stream: str
) -> TriedCell:
    """Return an outcome with the stored verdicts that it agrees or disagrees with.

    Args:
        cell: The outcome.
        marks: The stored incidents of the time.
        trial: The back-test.
        own: The percentile and the budget of the stream.
        stream: Name of the stream.
    """
    outcome = cell.outcome
    confirmed = [mark for mark in marks if mark.verdict == "confirmed"]
    refuted = [mark for mark in marks if mark.verdict == "false_alarm"]
    found = sum(1 for mark in confirmed if _is_found(mark, cell.incidents))
    false = sum(1 for each in cell.incidents if any(_overlaps(each, mark) for mark in refuted))
    weeks = (trial.end_us - trial.begin_us) / WEEK_US
    low, high = (bound / weeks for bound in poisson_interval(len(cell.incidents)))
    budget = parse_rate(outcome.false_alarms)
    tried = TriedCell(
        percentile=outcome.percentile,
        false_alarms=outcome.false_alarms,
        is_in_force=outcome.percentile == own[0] and budget.per_week == own[1].per_week,
        outliers=outcome.outliers,
        incidents=len(cell.incidents),
        alerts_per_day=outcome.alerts_per_day,
        promised=outcome.promised_per_week,
        realised=outcome.realised_per_week,
        realised_low=low,
        realised_high=high,
        false=false,
        found=found,
        missed=len(confirmed) - found,
        says="",
        yaml=_format_yaml(stream, outcome.percentile, outcome.false_alarms),
    )
    return replace(tried, says=_describe(tried))


def _describe(cell: TriedCell) -> str:
    verdicts = "no incident of this time has a verdict yet"
    if cell.found or cell.missed or cell.false:
        missed = f"{plural(cell.missed, 'true alarm')} missed" if cell.missed else "no true alarm missed"
        verdicts = f"{missed}, {plural(cell.false, 'known false alarm')}"
    return (
        f"At {cell.percentile:g}%: {number(cell.alerts_per_day, 1)} alerts a day; {verdicts}. Promised "
        f"{cell.promised:.3g} false a week; if all {cell.incidents} were false, {number(cell.realised, 1)} "
        f"(95%: {number(cell.realised_low, 1)} to {number(cell.realised_high, 1)})."
    )


def _format_yaml(stream: str, percentile: float, false_alarms: str) -> str:
    return (
        f"streams:\n  {stream}:\n    threshold: {{percentile: {percentile:g}}}\n"
        f"    alerts: {{false_alarms: {false_alarms}}}"
    )


def _is_found(mark: IncidentMark, incidents: Sequence[TrialIncident]) -> bool:
    return any(_overlaps(each, mark) for each in incidents)


def _overlaps(incident: TrialIncident, mark: IncidentMark) -> bool:
    return (
        incident.kind == mark.kind
        and incident.end_us > mark.start_us
        and (mark.end_us is None or incident.start_us < mark.end_us)
    )


def _find_chosen(cells: Sequence[TriedCell], percentile: float | None) -> int:
    if percentile is not None:
        for place, cell in enumerate(cells):
            if cell.percentile == percentile:
                return place
    return next((place for place, cell in enumerate(cells) if cell.is_in_force), 0)


def _format_command(request: TrialRequest) -> str:
    percentiles = " ".join(f"{each:g}" for each in request.percentiles)
    return (
        f"outrider backtest {request.stream} --since {request.since} --percentile {percentiles} "
        f"--false-alarms {' '.join(request.false_alarms)}"
    )


def _build_table(cells: Sequence[TriedCell]) -> PanelTable:
    names = (
        "percentile",
        "false_alarms",
        "outliers",
        "incidents",
        "alerts_per_day",
        "promised",
        "realised",
        "realised_low",
        "realised_high",
        "false",
        "found",
        "missed",
    )
    return PanelTable(
        columns=(
            "Percentile",
            "False alarms",
            "Outliers",
            "Incidents under the budget",
            "Alerts a day",
            "Promised a week",
            "Realised a week",
            "from",
            "to",
            "False by verdict",
            "True found",
            "True missed",
        ),
        rows=[tuple(_plain(getattr(cell, name)) for name in names) for cell in cells],
        caption="as `outrider backtest` prints them, with the stored verdicts",
    )


def _plain(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value
