"""The promise of all streams together against the false alarms that people have named. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from config.time_format import DAY_US
from monitor.server.pages.formats import number, plural, significant
from monitor.server.pages.icons import svg
from monitor.statistics.poisson import poisson_interval
from storage.queries.promises import StreamPromise

_SPAN_DAYS = 28.0
_WIDTH = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Promised and realised false alarms a week.

    Attributes:
        headline: Both numbers.
        detail: The counts behind them, with the interval.
        chart: The interval on a scale up to the promise.
        scale: The ends of the scale.
    """

    headline: str
    detail: str
    chart: Markup | None
    scale: tuple[str, str]


def build_promise(promises: Sequence[StreamPromise]) -> Promise:
    """Return the promise of all streams; before the first calibration there is nothing to compare."""
    known = [each for each in promises if each.promised_per_week is not None]
    if not known:
        return Promise(headline="not measured yet", detail="after the first threshold tick", chart=None, scale=("", ""))
    promised = sum(each.promised_per_week or 0.0 for each in known)
    false, unjudged = (sum(getattr(each, name) for each in known) for name in ("false_alarms", "without_verdict"))
    true = sum(each.true_alarms for each in known)
    days = min(max((each.at_us - each.first_us) / DAY_US for each in known), _SPAN_DAYS)
    weeks = days / 7
    if weeks < 1 / 7:
        return Promise(
            headline=f"promised at most {significant(promised)} a week",
            detail=f"{plural(len(known), 'stream')}; less than a day of verdicts is too little to compare",
            chart=None,
            scale=("", ""),
        )
    low, high = (bound / weeks for bound in poisson_interval(false))
    realised = false / weeks
    at_most = ""
    if unjudged:
        at_most = f"; at most {significant((false + unjudged) / weeks, 2)} with the {unjudged:,} without a verdict"
    counted = f"{false:,} false and {true:,} true by verdict in {number(days, 1 if days < 10 else 0)} d"
    interval = f"{significant(low, 2)} to {significant(high, 2)} false a week with 95% confidence"
    return Promise(
        headline=f"promised at most {significant(promised, 2)} a week, realised {significant(realised, 2)}",
        detail=f"{plural(len(known), 'stream')}; {counted}, {interval}{at_most}",
        chart=_draw(promised, realised, low, high),
        scale=("0 a week", f"{significant(max(promised, min(high, 3 * promised)), 2)}"),
    )


def _draw(promised: float, realised: float, low: float, high: float) -> Markup:
    top = max(promised, min(high, 3 * promised), 1e-9)

    def at(value: float) -> str:
        return f"{min(value / top, 1.0) * _WIDTH + 1:.1f}"

    return svg(
        f'<path class="s-line" d="M1 12.5H{_WIDTH + 1}"/>'
        f'<path class="s-data" stroke-width="3" d="M{at(low)} 12.5H{at(high)}"/>'
        f'<circle class="f-data" cx="{at(realised)}" cy="12.5" r="4.5"/>'
        f'<path class="s-ink" stroke-width="2" d="M{at(promised)} 5v15"/>',
        f"0 0 {_WIDTH + 4} 22",
        height=22,
    )
