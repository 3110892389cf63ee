import numpy as np
import pytest

from config.errors import ConfigError
from storage.history_plot import plot_windows

START = np.datetime64("2026-11-30T00:00", "us")


def columns(n=20, *, top=5_000.0):
    times = START + np.arange(n) * np.timedelta64(5, "m")
    highest = np.full(n, 40.0)
    highest[n // 2 :] = top
    windows = {
        "window_start": times,
        "energy_p50": np.full(n, 16.0),
        "energy_p99": np.full(n, 26.0),
        "energy_max": highest,
        "outliers": np.arange(n),
        "expected_outliers": np.full(n, 3.0),
    }
    limits = {"valid_from": times[:2], "threshold": [27.0, 28.0], "lower": [26.0, 27.0], "upper": [28.0, 29.0]}
    return windows, limits, {"window_start": [START + np.timedelta64(15, "m"), START - np.timedelta64(1, "D")]}


def test_a_figure_shows_energies_on_a_log_scale_with_outliers_below_and_marks_the_incidents_in_view():
    figure = plot_windows("payments", *columns())
    energy, outliers = figure.axes
    assert energy.get_yscale() == "log"
    assert [text.get_text() for text in energy.get_legend().get_texts()] == ["p50", "p99", "max", "threshold"]
    assert len(outliers.patches) == 20
    marks = [line for line in outliers.lines if line.get_linestyle() == ":"]
    assert len(marks) == 1
    figure.canvas.draw()


def test_energies_that_lie_together_or_below_zero_have_a_linear_scale():
    assert plot_windows("s", *columns(top=60.0)).axes[0].get_yscale() == "linear"
    windows, limits, incidents = columns()
    windows["energy_p50"] = np.full(20, -2.0)
    assert plot_windows("s", windows, limits, incidents).axes[0].get_yscale() == "linear"


def test_a_single_window_without_threshold_or_incident_is_drawn():
    windows, limits, _ = columns(1)
    none = {name: values[:0] for name, values in limits.items()}
    plot_windows("s", windows, none, {"window_start": []}).canvas.draw()


def test_a_time_without_windows_is_an_error_that_says_so():
    windows, limits, incidents = columns(0)
    with pytest.raises(ConfigError, match="has no judged windows"):
        plot_windows("s", windows, limits, incidents)
