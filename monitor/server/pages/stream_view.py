"""The state of the stream page as it stands in its address: range, zoom, model, horizon and cell. Pure."""

from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import quote, urlencode

from config.time_format import DAY_US, HOUR_US, SECOND_US
from monitor.server.pages.formats import iso, parse_us
from storage.queries.rollups import COARSE_US, FINE_US

RANGES_US = {"1h": HOUR_US, "6h": 6 * HOUR_US, "24h": DAY_US, "7d": 7 * DAY_US, "28d": 28 * DAY_US}
"""The ranges that the page offers, in microseconds."""

DEFAULT_RANGE = "24h"
MAX_WINDOWS = 400
"""Most single windows in a chart; longer times are drawn from roll-ups."""

_MAX_FINE = 700
_MAX_SPAN_US = 400 * DAY_US
_ZOOM_SEPARATOR = "~"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A time [from, until) in microseconds since 1970."""

    from_us: int
    until_us: int

    @property
    def length_us(self) -> int:
        """Return the length."""
        return self.until_us - self.from_us


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamView:
    """What the page of a stream shows.

    Attributes:
        stream: Name of the stream.
        range: One of `RANGES_US`: the time up to the last judged window.
        zoom: A part of the time, or None.
        model: Version of a model that the charts are restricted to, or None.
        horizon: Length of the drift horizon in the heat map, in seconds, or None.
        cell: The horizon of the heat map whose histograms are open, as its end in RFC 3339, and the feature.
        percentile: The percentile of the slider, or None.
        page: The page below that of the stream: empty, or `/models`.
    """

    stream: str
    range: str = DEFAULT_RANGE
    zoom: Span | None = None
    model: int | None = None
    horizon: int | None = None
    cell: tuple[int, str] | None = None
    percentile: float | None = None
    page: str = ""

    @property
    def path(self) -> str:
        """Return the path of the page."""
        return f"/streams/{quote(self.stream, safe='')}{self.page}"

    def href(self, **changes: Any) -> str:
        """Return the address of the page with some changes of its state."""
        changed = replace(self, **changes)
        query = urlencode(changed.parameters())
        return f"{changed.path}?{query}" if query else changed.path

    def csv(self, panel: str) -> str:
        """Return the address of a panel's table as CSV."""
        query = urlencode(self.parameters())
        return f"{self.path}/{panel}.csv" + (f"?{query}" if query else "")

    def parameters(self) -> dict[str, str]:
        """Return the parameters of the address, without those that have their default."""
        texts = {
            "range": None if self.range == DEFAULT_RANGE else self.range,
            "zoom": None if self.zoom is None else format_zoom(self.zoom),
            "cell": None if self.cell is None else f"{iso(self.cell[0])}{_ZOOM_SEPARATOR}{self.cell[1]}",
            "percentile": None if self.percentile is None else f"{self.percentile:g}",
            **{
                name: None if getattr(self, name) is None else str(getattr(self, name)) for name in ("model", "horizon")
            },
        }
        return {field.name: text for field in fields(self) if (text := texts.get(field.name)) is not None}


def format_zoom(span: Span) -> str:
    """Return a time as the parameter `zoom`, to the second."""
    return f"{iso(span.from_us)}{_ZOOM_SEPARATOR}{iso(span.until_us)}"


def parse_zoom(text: str) -> Span:
    """Return the time of the parameter `zoom`.

    Raises:
        ValueError: The text is no pair of RFC 3339 times in order, or they are too far apart.
    """
    first, separator, last = text.partition(_ZOOM_SEPARATOR)
    span = Span(from_us=_parse(first), until_us=_parse(last)) if separator else None
    if span is None or not 0 < span.length_us <= _MAX_SPAN_US:
        raise ValueError("expected two times such as 2026-11-30T10:35:00Z~2026-11-30T10:50:00Z, at most 400 days apart")
    return span


def parse_cell(text: str) -> tuple[int, str]:
    """Return the end of the horizon and the feature of the parameter `cell`.

    Raises:
        ValueError: The text does not begin with a time.
    """
    end, separator, feature = text.partition(_ZOOM_SEPARATOR)
    if not separator:
        raise ValueError("expected the end of a horizon and a feature, such as 2026-11-30T10:00:00Z~amount")
    return _parse(end), feature


def _parse(text: str) -> int:
    try:
        return parse_us(text)
    except (TypeError, OverflowError) as error:  # a time without a zone
        raise ValueError(f"{text!r} is no time such as 2026-11-30T10:35:00Z") from error


def shown_span(view: StreamView, last_us: int) -> Span:
    """Return the time that the charts show, given the end of the last judged window."""
    return view.zoom or Span(from_us=last_us - RANGES_US[view.range], until_us=last_us)


def choose_resolution(span: Span, window_us: int) -> int | None:
    """Return the resolution of the roll-ups for a time, in microseconds; None for single windows."""
    if span.length_us <= MAX_WINDOWS * window_us:
        return None
    if window_us < FINE_US and span.length_us <= _MAX_FINE * FINE_US:
        return FINE_US
    return COARSE_US if window_us < COARSE_US else None


def zoom_out(span: Span) -> Span:
    """Return the time of twice the length around a time."""
    grow_us = max(span.length_us // 2, SECOND_US)
    return Span(from_us=span.from_us - grow_us, until_us=span.until_us + grow_us)


def centre_on(at_us: int, span: Span) -> Span:
    """Return a time of the same length around another point, to the second."""
    from_us = (at_us - span.length_us // 2) // SECOND_US * SECOND_US
    return Span(from_us=from_us, until_us=from_us + span.length_us)
