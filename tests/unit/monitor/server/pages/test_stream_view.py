import pytest

from config.time_format import DAY_US, HOUR_US, MINUTE_US
from monitor.server.pages.plot import Frame, band, bars, choose_scale, line, steps, value_range
from monitor.server.pages.stream_view import (
    Span,
    StreamView,
    centre_on,
    choose_resolution,
    format_zoom,
    parse_cell,
    parse_zoom,
    shown_span,
    zoom_out,
)
from storage.queries.rollups import COARSE_US, FINE_US

SPAN = Span(from_us=1_796_000_000_000_000, until_us=1_796_003_600_000_000)


def test_the_address_holds_the_state_and_leaves_defaults_out():
    view = StreamView(stream="a_b")
    assert view.href() == "/streams/a_b"
    changed = view.href(range="7d", zoom=SPAN, model=2, cell=(SPAN.until_us, "rank:amount"))
    assert changed.startswith("/streams/a_b?range=7d&zoom=2026-")
    assert "model=2" in changed and "rank%3Aamount" in changed


def test_zoom_and_cell_survive_the_way_through_the_address():
    assert parse_zoom(format_zoom(SPAN)) == SPAN
    assert parse_cell("2026-11-30T10:00:00Z~rank:a~b")[1] == "rank:a~b"
    for text in ("", "x", "2026-11-30T10:00:00Z", "2000-01-01T00:00:00Z~2026-01-01T00:00:00Z"):
        with pytest.raises(ValueError):
            parse_zoom(text)


def test_the_range_ends_with_the_last_judged_window():
    assert shown_span(StreamView(stream="s"), DAY_US * 5) == Span(from_us=DAY_US * 4, until_us=DAY_US * 5)
    assert shown_span(StreamView(stream="s", zoom=SPAN), DAY_US * 5) == SPAN


@pytest.mark.parametrize(
    ("length_us", "window_us", "resolution_us"),
    [
        (DAY_US, 5 * MINUTE_US, None),
        (DAY_US, MINUTE_US, FINE_US),
        (7 * DAY_US, MINUTE_US, FINE_US),
        (28 * DAY_US, MINUTE_US, COARSE_US),
        (28 * DAY_US, HOUR_US, COARSE_US),
        (28 * DAY_US, 12 * HOUR_US, None),
    ],
)
def test_a_chart_has_at_most_some_hundred_points(length_us, window_us, resolution_us):
    assert choose_resolution(Span(from_us=0, until_us=length_us), window_us) == resolution_us


def test_a_longer_time_contains_the_shorter_one():
    wide = zoom_out(SPAN)
    assert wide.from_us < SPAN.from_us and wide.until_us > SPAN.until_us
    assert centre_on(SPAN.from_us, SPAN).length_us == SPAN.length_us


def test_energies_below_zero_are_drawn_without_a_logarithm():
    assert choose_scale([1.0, 30.0]) == "log"
    assert choose_scale([10.0, 30.0]) == "linear"
    assert choose_scale([-3.0, 5000.0]) == "asinh"
    assert choose_scale([-3.0, 5.0]) == "linear"
    assert choose_scale([None, float("nan")]) == "linear"
    low, high = value_range([-3.0, 5.0], "linear")
    assert low < -3 and high > 5


def test_gaps_in_values_are_gaps_in_the_drawing():
    frame = Frame(from_us=0, until_us=100, low=0, high=10, height=100)
    assert line(frame, [0, 50, 100], [0.0, None, 10.0], "s") == '<path class="s hair" d="M0 100.0M1000 0.0"/>'
    assert "M0 50.0H500" in steps(frame, [0, 50], [5.0, None], "s")
    assert "M0 0.0H500V100.0H0z" in band(frame, [0, 50], [0.0, None], [10.0, None], "f")
    assert bars(frame, [0], [10], [0.0], "f") == ""
    assert line(frame, [], [], "s") == ""
