"""What a stream reaches at a rate, when, and what its settings never reach."""

from typing import Any

import pytest

from config.streams import StreamSettings
from config.time_format import DAY_US, HOUR_US, MINUTE_US
from monitor.cli.output.budget_text import nominal_count_model
from monitor.cli.output.reach_text import (
    Milestone,
    describe_milestones,
    describe_pending,
    find_milestones,
    format_span,
)
from monitor.incidents.drift_test import earliest_verdict_us

HOURLY: dict[str, Any] = {"window": {"size": "6h"}, "threshold": {"percentile": 95, "look_back": "28d"}}


def stream(**sections: Any) -> StreamSettings:
    return StreamSettings.model_validate({"source": {"type": "synthetic"}} | sections)


def reach(settings: StreamSettings, rate_s: float | None) -> dict[str, Milestone]:
    return {each.name: each for each in find_milestones(settings, rate_s, nominal_count_model(settings))}


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (12.5 * DAY_US, "12 d 12 h"),
        (DAY_US, "1 d"),
        (6 * HOUR_US + 16 * MINUTE_US, "6 h 16 min"),
        (90e6, "1 min 30 s"),
        (1, "1 s"),
    ],
)
def test_span_has_two_units(us: float, text: str) -> None:
    assert format_span(us) == text


def test_default_settings_reach_everything_at_10_events_a_second() -> None:
    found = reach(stream(), 10)
    assert all(each.after_us is not None for each in found.values())
    assert found["count model"].text == "learned after 5 h (300 windows of 1m)"


def test_long_windows_are_learned_from_100() -> None:
    settings = stream(window={"size": "1h"}, threshold={"look_back": "14d"})
    assert reach(settings, 38 / 3600)["count model"].text == "learned after 4 d 4 h (100 windows of 1h)"


def test_look_back_with_too_few_windows_is_never_learned_and_says_which_would_be() -> None:
    found = reach(stream(window={"size": "1h"}), 1)
    assert found["count model"].after_us is None
    assert "holds 24 windows with events, and 100 are needed" in found["count model"].text
    assert "set threshold.look_back to 4d14h or more" in found["count model"].text
    assert found["slow rises"].after_us is None


def test_windows_without_events_do_not_count() -> None:
    assert reach(stream(threshold={"look_back": "6h"}), 1)["count model"].after_us is not None
    assert reach(stream(threshold={"look_back": "6h"}), 1 / 60)["count model"].after_us is None


def test_percentile_that_needs_more_events_than_the_look_back_holds_is_never_of_live_events_alone() -> None:
    found = reach(stream(**HOURLY), 1 / 3600)
    assert found["threshold moves with live events"].after_us == 26 * HOUR_US
    alone = found["threshold of live events alone"]
    assert alone.after_us is None
    assert "holds 672 events, and 50 above the 95 percentile need 1,000" in alone.text
    high = reach(stream(threshold={"percentile": 99.99}), 1 / 3600)["threshold moves with live events"]
    assert high.text.endswith("it stays that of the training events")


def test_window_with_fewer_events_than_a_spike_needs_is_named() -> None:
    spike = reach(stream(), 1 / 60)["spike of a usual window"]
    assert spike.after_us is None
    assert spike.text == "a window has 1 event, and 5 or more outliers would be a spike by their number"


def test_horizons_shorter_than_a_window_are_never_tested() -> None:
    found = reach(stream(**HOURLY), 1 / 3600)
    assert found["drift over 10m"].after_us is None
    assert found["drift over 1d"].after_us == earliest_verdict_us(DAY_US)


def test_lines_list_first_what_is_reached_and_then_what_never_is() -> None:
    settings = stream(**HOURLY)
    lines = list(describe_milestones(settings, 1 / 3600, list(reach(settings, 1 / 3600).values())))
    assert lines[0] == "reached at 1 event an hour:"
    never = lines.index("never reached with these settings:")
    assert "count model" in lines[never - 3]
    assert all("not tested" in line or "threshold of live" in line for line in lines[never + 1 :])
    unknown = list(describe_milestones(stream(), None, list(reach(stream(), None).values())))
    assert unknown[0] == "reached with a window of events every 1m (the rate is not known):"


def test_status_tells_the_time_until_the_count_model_is_learned() -> None:
    settings = stream()
    model = nominal_count_model(settings)
    lines = list(describe_pending(settings, 10, model, "reference"))
    assert [line.split(":")[0] for line in lines] == ["threshold of live events alone", "count model"]
    assert lines[1].endswith("0 windows so far, about 5 h left")
