"""The promise ledger: false alarms promised and realised by the verdicts of people, for each stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from markupsafe import Markup

from config.time_format import DAY_US, WEEK_US
from monitor.control_plane.control_plane import BUDGETED_KINDS
from monitor.server.pages.formats import ABSENT, number, significant
from monitor.server.pages.icons import svg
from monitor.server.pages.panels import PanelTable
from monitor.statistics.poisson import poisson_interval
from storage.database.engine import Database
from storage.queries.model_facts import LedgerEntry, read_ledger
from storage.queries.status import load_stream_ids
from storage.queries.stream_series import read_latest_tick

SPAN_US = 28 * DAY_US
_SCALE = 10.0
_COLUMNS = (
    "Stream",
    "Promised a week",
    "True",
    "False",
    "Accepted",
    "Without a verdict",
    "Realised a week",
    "Realised from",
    "Realised to",
    "Precision",
    "Precision from",
    "Precision to",
    "State",
)
_SIGNS = {"suspect": "warning", "provisional": "learning", "learned": "well"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """The promise of a stream and its verdicts.

    `realised` counts incidents with the verdict "false alarm"; `most` also those without a verdict.
    """

    stream: str
    href: str
    promised: str
    verdicts: str
    realised: str
    most: str
    bar: Markup
    precision: str
    state: str
    sign: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromiseLedger:
    """The rows of all streams, the worst first."""

    rows: Sequence[LedgerRow]
    table: PanelTable


def read_promise_ledger(db: Database) -> PromiseLedger:
    """Return the ledger of the last 28 days of event time."""
    ids = load_stream_ids(db)
    names = {stream_id: name for name, stream_id in ids.items()}
    with db.read() as conn:
        until_us = read_latest_tick(conn)
        entries = (
            []
            if until_us is None
            else read_ledger(conn, list(names), kinds=BUDGETED_KINDS, from_us=until_us - SPAN_US, until_us=until_us)
        )
    known = [entry for entry in entries if entry.promised_per_week is not None]
    known.sort(key=lambda entry: -_realised(entry)[1])
    rows = [_row(names[entry.stream_id], entry) for entry in known]
    return PromiseLedger(
        rows=rows,
        table=PanelTable(
            columns=_COLUMNS,
            rows=[_table_row(names[entry.stream_id], entry) for entry in known],
            caption="incidents of the kinds that share the budget, over 28 days of event time",
        ),
    )


def _weeks(entry: LedgerEntry) -> float:
    return max(entry.until_us - entry.from_us, 1) / WEEK_US


def _realised(entry: LedgerEntry) -> tuple[float, float, float]:
    """Return the false alarms a week by verdict, with the 95% interval."""
    low, high = poisson_interval(entry.false_alarms)
    weeks = _weeks(entry)
    return entry.false_alarms / weeks, low / weeks, high / weeks


def _row(stream: str, entry: LedgerEntry) -> LedgerRow:
    rate, low, high = _realised(entry)
    weeks = _weeks(entry)
    if weeks * WEEK_US < DAY_US:
        realised, most = "less than a day", ABSENT
    else:
        realised = f"{significant(rate, 2)} ({significant(low, 2)} to {significant(high, 2)})"
        most = significant((entry.false_alarms + entry.without_verdict) / weeks, 2)
    precision = ABSENT
    if entry.precision is not None:
        precision = f"{entry.precision:.2f} ({entry.precision_lower:.2f} to {entry.precision_upper:.2f})"
    return LedgerRow(
        stream=stream,
        href=f"/streams/{quote(stream, safe='')}/models",
        promised=f"{entry.promised_per_week:.3g}",
        verdicts=", ".join(
            number(each) for each in (entry.true_alarms, entry.false_alarms, entry.accepted, entry.without_verdict)
        ),
        realised=realised,
        most=most,
        bar=_bar(rate, low, high, entry.promised_per_week or 0.0),
        precision=precision,
        state=entry.state or "unknown",
        sign=_SIGNS.get(entry.state or "", "unknown"),
    )


def _bar(rate: float, low: float, high: float, promised: float) -> Markup:
    """Return the interval on a scale from 0 to 10 a week, with a tick at the promise."""

    def x(value: float) -> float:
        return round(min(value, _SCALE) / _SCALE * 156 + 2, 1)

    beyond = '<path class="s-data f-none" stroke-width="1.5" d="M155 4l4.5 4.5-4.5 4.5"/>' if high > _SCALE else ""
    return svg(
        f'<path class="s-grid" d="M0 8.5H160"/>{beyond}'
        f'<path class="s-data" stroke-width="3" d="M{x(low)} 8.5H{x(high)}"/>'
        f'<circle class="f-data" cx="{max(4.0, x(rate))}" cy="8.5" r="4"/>'
        f'<path class="s-ink" stroke-width="2" d="M{x(promised)} 2v13"/>',
        "0 0 162 17",
        width=162,
        height=17,
    )


def _table_row(stream: str, entry: LedgerEntry) -> tuple[object, ...]:
    figures = (
        *_realised(entry),
        entry.precision,
        entry.precision_lower,
        entry.precision_upper,
    )
    texts = [None if each is None else f"{each:.4g}" for each in figures]
    return (
        stream,
        entry.promised_per_week,
        entry.true_alarms,
        entry.false_alarms,
        entry.accepted,
        entry.without_verdict,
        *texts,
        entry.state,
    )
