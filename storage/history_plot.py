"""A figure of the windows of a stream: energies against the threshold, and outliers against those expected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from config.errors import ConfigError
from storage.queries.history_views import Columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DATA, _LIGHT, _LIMIT, _INK = "#2f6f9f", "#6798bb", "#d55e00", "#16191d"
"""The colours of the page, after Okabe and Ito."""

_WIDE_RATIO = 20.0


def plot_windows(stream: str, windows: Columns, thresholds: Columns, incidents: Columns) -> Figure:
    """Return a figure of two panels over one time axis.

    Args:
        stream: Name of the stream, for the title.
        windows: Columns of `window_history`.
        thresholds: Columns of `threshold_history` from the first window on.
        incidents: Columns of `incident_history`: each one is marked where it began.

    Raises:
        ConfigError: matplotlib is not installed, or there are no windows.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError("plots need matplotlib: install it with pip install 'outrider[plot]'") from error
    times = np.asarray(windows["window_start"])
    if not len(times):
        raise ConfigError(f"stream {stream} has no judged windows in this time: choose a longer one")
    # A figure of its own does not enter the list of pyplot, so that it is freed with its last reference.
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    energy, outliers = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _draw_energies(energy, times, windows, thresholds)
    _draw_outliers(outliers, times, windows)
    for axes in (energy, outliers):
        _mark_incidents(axes, incidents, times)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(stream)
    return figure


def _draw_energies(axes: Axes, times: Any, windows: Columns, thresholds: Columns) -> None:
    for name, colour in (("energy_p50", _LIGHT), ("energy_p99", _DATA)):
        axes.plot(times, windows[name], color=colour, linewidth=1.2, label=name.removeprefix("energy_"))
    axes.plot(times, windows["energy_max"], ".", color=_INK, markersize=2.5, label="max")
    valid_from = np.asarray(thresholds["valid_from"])
    # The last threshold is in force up to the last window, and the first one from before the first.
    at = np.append(np.maximum(valid_from, times[0]), times[-1])

    def repeat_last(name: str) -> Any:
        values = np.asarray(thresholds[name], np.float64)
        return np.append(values, values[-1:])

    if len(valid_from):
        axes.step(at, repeat_last("threshold"), where="post", color=_LIMIT, linestyle="--", label="threshold")
        axes.fill_between(at, repeat_last("lower"), repeat_last("upper"), step="post", color=_LIMIT, alpha=0.25)
    low, high = np.nanmin(windows["energy_p50"]), np.nanmax(windows["energy_max"])
    if low > 0 and high / low > _WIDE_RATIO:
        axes.set_yscale("log")
    axes.set_ylabel("energy per window, nats")
    axes.legend(loc="upper left", ncols=4, frameon=False)


def _draw_outliers(axes: Axes, times: Any, windows: Columns) -> None:
    width = np.diff(times).min() if len(times) > 1 else np.timedelta64(1, "m")
    axes.bar(times, windows["outliers"], width=width, align="edge", color=_DATA, label="outliers")
    axes.step(times, windows["expected_outliers"], where="post", color=_INK, linewidth=1, label="expected")
    axes.set_ylabel("outliers per window")
    axes.legend(loc="upper left", ncols=2, frameon=False)


def _mark_incidents(axes: Axes, incidents: Columns, times: Any) -> None:
    for at in np.asarray(incidents["window_start"]):
        if times[0] <= at <= times[-1]:
            axes.axvline(at, color=_LIMIT, linewidth=0.8, linestyle=":")
