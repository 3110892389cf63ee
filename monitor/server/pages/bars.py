"""The last 24 hours of a stream as bars of 15 minutes: outliers divided by the expected ones. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from config.time_format import DAY_US, MINUTE_US
from monitor.server.pages.icons import svg
from storage.queries.rollups import BarSums, IncidentMark

BAR_US = 15 * MINUTE_US
BARS = 96
CAP = 6.0
"""The ratio at which a bar reaches the top; a higher one has a mark above it."""
_STEP, _BASE, _HEIGHT, _FULL = 10, 34, 38, 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """15 minutes: None for `outliers` means that there are no windows, so that nothing is known."""

    outliers: int | None
    expected: float
    is_incident: bool


def fill_bars(rollups: Sequence[BarSums], marks: Sequence[IncidentMark], from_us: int) -> list[Bar]:
    """Return the 96 bars from a time on.

    Args:
        rollups: The sums of its intervals.
        marks: Its incidents; those of kind silence leave no mark, since they have no windows.
        from_us: Start of the first bar.
    """
    found = {(each.start_us - from_us) // BAR_US: each for each in rollups}
    hot = set()
    for mark in marks:
        if mark.kind in {"spike", "slow_rise", "drift", "calibration", "dead_letters", "late"}:
            end_us = from_us + DAY_US if mark.end_us is None else mark.end_us
            hot |= set(range(max((mark.start_us - from_us) // BAR_US, 0), min(-((from_us - end_us) // BAR_US), BARS)))
    bars = []
    for i in range(BARS):
        each = found.get(i)
        has_windows = each is not None and each.windows > 0
        bars.append(
            Bar(
                outliers=each.outliers if each is not None and has_windows else None,
                expected=(each.expected or 0.0) if each is not None else 0.0,
                is_incident=i in hot and has_windows,
            )
        )
    return bars


def draw_bars(bars: Sequence[Bar]) -> Markup:
    """Return the bars as a drawing; bars of an incident have another colour and a line below."""
    paths: dict[str, list[str]] = {"f": [], "i": [], "n": []}
    strip = []
    for i, bar in enumerate(bars):
        x = i * _STEP + _STEP // 2
        if bar.is_incident:
            strip.append(f"M{i * _STEP} 35.5h{_STEP}v2.5h-{_STEP}z")
        if bar.outliers is None:
            paths["n"].append(f"M{x} {_BASE - 1}v2")
            continue
        ratio = bar.outliers / bar.expected if bar.expected > 0 else 0.0
        height = round(min(ratio, CAP) / CAP * _FULL)
        if height:
            cap = f"M{x} 4V2" if ratio > CAP else ""
            paths["i" if bar.is_incident else "f"].append(f"M{x} {_BASE}V{_BASE - height}{cap}")
    one = _BASE - _FULL / CAP
    return svg(
        f'<path class="s-data" stroke-width="8" d="{"".join(paths["f"])}"/>'
        f'<path class="s-critical" stroke-width="8" d="{"".join(paths["i"])}"/>'
        f'<path class="f-critical" d="{"".join(strip)}"/>'
        f'<path class="s-line" stroke-width="3" d="{"".join(paths["n"])}"/>'
        f'<path class="s-grid hair" d="M0 {_BASE}.5H960"/>'
        f'<path class="s-line hair" stroke-dasharray="2 3" d="M0 {one:g}H960"/>',
        f"0 0 {BARS * _STEP} {_HEIGHT}",
        preserveAspectRatio="none",
    )
