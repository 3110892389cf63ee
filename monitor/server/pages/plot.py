"""Charts as inline SVG, for a page without script. Pure.

A drawing is 1,000 units wide and stretched to its place: lines have the class `hair`, which keeps them thin. Colours
come from the classes of the style sheet.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from monitor.server.pages.icons import svg

Scale = Literal["linear", "log", "asinh"]
Values = Sequence[float | None]

WIDTH = 1000
_LOG_MARGIN = 1.6
_WIDE_RATIO = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The place of a chart: time in [from, until) along x, values in [low, high] along y on a scale."""

    from_us: int
    until_us: int
    low: float
    high: float
    height: int
    scale: Scale = "linear"

    def x(self, time_us: float) -> int:
        """Return the horizontal place of a time, within the frame."""
        place = (time_us - self.from_us) / max(self.until_us - self.from_us, 1) * WIDTH
        return round(min(max(place, 0.0), WIDTH))

    def y(self, value: float) -> float:
        """Return the vertical place of a value, within the frame."""
        low, high, at = (_transform(each, self.scale) for each in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.0
        return round(self.height * (1 - min(max(share, 0.0), 1.0)), 1)


def _transform(value: float, scale: Scale) -> float:
    if scale == "log":
        return math.log10(max(value, 1e-12))
    return math.asinh(value) if scale == "asinh" else value


def choose_scale(values: Values) -> Scale:
    """Return the scale for values: logarithmic where they spread widely, with zero and below on an arcsinh scale."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return "linear"
    low, high = min(known), max(known)
    if low > 0:
        return "log" if high / low > _WIDE_RATIO else "linear"
    return "asinh" if high - low > _WIDE_RATIO else "linear"


def value_range(values: Values, scale: Scale, *, from_zero: bool = False) -> tuple[float, float]:
    """Return the range of the value axis with a margin."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    if scale == "log":
        return low / _LOG_MARGIN, high * _LOG_MARGIN
    margin = 0.08 * ((high - min(low, 0.0) if from_zero else high - low) or abs(high) or 1.0)
    return (0.0 if from_zero else low - margin), high + margin


def line(frame: Frame, times: Sequence[int], values: Values, css: str, *, dash: str = "") -> str:
    """Return a line through the values; a gap in them is a gap in the line."""
    return _path(_segments(frame, times, values, "L"), css, dash)


def steps(frame: Frame, times: Sequence[int], values: Values, css: str, *, dash: str = "", width: str = "") -> str:
    """Return a line that keeps each value up to the next time, and the last one up to the end of the frame."""
    parts: list[str] = []
    drawing = False
    for i, value in enumerate(values):
        if value is None:
            drawing = False
            continue
        x, y = frame.x(times[i]), frame.y(value)
        end = frame.x(times[i + 1]) if i + 1 < len(times) else WIDTH
        parts.append(f"{'V' if drawing else f'M{x} '}{y}H{end}")
        drawing = True
    return _path("".join(parts), css, dash, width)


def band(frame: Frame, times: Sequence[int], lower: Values, upper: Values, css: str, opacity: str = "") -> str:
    """Return the area between two step functions, where both have values."""
    parts = []
    for i, (low, high) in enumerate(zip(lower, upper, strict=True)):
        if low is None or high is None:
            continue
        x, end = frame.x(times[i]), frame.x(times[i + 1]) if i + 1 < len(times) else WIDTH
        parts.append(f"M{x} {frame.y(high)}H{end}V{frame.y(low)}H{x}z")
    fade = f' fill-opacity="{opacity}"' if opacity else ""
    return f'<path class="{css}"{fade} d="{"".join(parts)}"/>' if parts else ""


def dots(frame: Frame, times: Sequence[int], values: Values) -> str:
    """Return a dot for each value."""
    d = "".join(
        f"M{frame.x(at)} {frame.y(value)}h.01" for at, value in zip(times, values, strict=True) if value is not None
    )
    return f'<path class="s-ink hair" stroke-width="3" stroke-linecap="round" d="{d}"/>' if d else ""


def bars(frame: Frame, times: Sequence[int], ends: Sequence[int], values: Values, css: str) -> str:
    """Return a bar from zero for each value, as wide as its interval."""
    parts = []
    for at, end, value in zip(times, ends, values, strict=True):
        if value:
            left, right = frame.x(at), max(frame.x(end) - 1, frame.x(at) + 1)
            parts.append(f"M{left} {frame.height}V{frame.y(value)}H{right}V{frame.height}z")
    return f'<path class="{css}" d="{"".join(parts)}"/>' if parts else ""


def verticals(frame: Frame, times: Sequence[int], css: str) -> str:
    """Return a dashed vertical line at each time."""
    d = "".join(f"M{frame.x(at)} 0V{frame.height}" for at in times)
    return _path(d, css, "3 3")


def shades(frame: Frame, spans: Sequence[tuple[int, int]], css: str) -> str:
    """Return a shaded area over the full height for each [from, until)."""
    d = "".join(f"M{frame.x(a)} 0H{max(frame.x(b), frame.x(a) + 2)}V{frame.height}H{frame.x(a)}z" for a, b in spans)
    return f'<path class="{css}" d="{d}"/>' if d else ""


def grid(frame: Frame, values: Sequence[float]) -> str:
    """Return horizontal lines at values."""
    return _path("".join(f"M0 {frame.y(value)}H{WIDTH}" for value in values), "s-grid")


def drawing(frame: Frame, parts: Sequence[str]) -> Markup:
    """Return the drawing of the parts, the first one below the others."""
    return svg("".join(parts), f"0 0 {WIDTH} {frame.height}", preserveAspectRatio="none")


def histogram(after: Sequence[float], before: Sequence[float] | None, height: int = 56) -> Markup:
    """Return a filled histogram with another one as an outline over it; both are shares of equal bins."""
    top = max([*after, *(before or ())], default=0.0) or 1.0
    step = 240 / max(len(after), 1)

    def y(value: float) -> float:
        return round(height - 1 - value / top * (height - 6), 1)

    fill = f"M0 {height}" + "".join(f"V{y(v)}H{(i + 1) * step:g}" for i, v in enumerate(after)) + f"V{height}z"
    parts = [f'<path class="f-data2" d="{fill}"/>']
    if before is not None:
        outline = f"M0 {height}" + "".join(f"V{y(v)}H{(i + 1) * step:g}" for i, v in enumerate(before)) + f"V{height}"
        parts.append(f'<path class="s-ink hair" d="{outline}"/>')
    return svg("".join(parts), f"0 0 240 {height}", preserveAspectRatio="none")


def _segments(frame: Frame, times: Sequence[int], values: Values, joint: str) -> str:
    parts: list[str] = []
    pen = "M"
    for at, value in zip(times, values, strict=True):
        if value is None:
            pen = "M"
            continue
        parts.append(f"{pen}{frame.x(at)} {frame.y(value)}")
        pen = joint
    return "".join(parts)


def _path(d: str, css: str, dash: str = "", width: str = "") -> str:
    if not d:
        return ""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    wide = f' stroke-width="{width}"' if width else ""
    return f'<path class="{css} hair"{wide}{dashed} d="{d}"/>'
