"""The demo's summary: what was planted against what was found, drift apart from bursts."""

from monitor.cli.demo_summary import DetectedIncident, TimeSpan, compare_with_planted, format_summary

MINUTE = 60_000_000
PLANTED = [
    (10 * MINUTE, 12 * MINUTE, "burst"),
    (40 * MINUTE, 42 * MINUTE, "burst"),
    (60 * MINUTE, 99 * MINUTE, "drift"),
]


def incident(kind: str, start: int, end: int, *features: str) -> DetectedIncident:
    return DetectedIncident(kind=kind, window=TimeSpan(start_us=start * MINUTE, end_us=end * MINUTE), features=features)


def test_bursts_and_the_drift_are_found_with_their_delays() -> None:
    seen = [incident("spike", 10, 11), incident("spike", 41, 42), incident("drift", 60, 70, "x0", "x1")]
    found = compare_with_planted(PLANTED, seen, 1_000)
    assert (found.bursts, found.bursts_found, found.delays_s, found.false_incidents) == (2, 2, [60.0, 120.0], 0)
    assert found.drift_found is not None
    assert (found.drift_found.feature, found.drift_found.delay_s) == ("x0", 600.0)
    assert any("found 1: x0 moved, told 10 min" in line for line in format_summary(found, "sqlite:///x.db", "s"))


def test_a_drift_that_is_not_told_of_is_not_found() -> None:
    found = compare_with_planted(PLANTED, [incident("spike", 65, 66)], 1_000)
    assert found.drift_found is None
    assert found.false_incidents == 0
    assert "planted 1 drift near the end, found 0" in format_summary(found, "sqlite:///x.db", "s")


def test_a_drift_in_a_burst_is_no_burst_and_false() -> None:
    found = compare_with_planted(PLANTED, [incident("drift", 10, 20, "x0")], 1_000)
    assert (found.bursts_found, found.false_incidents) == (0, 1)


def test_what_tells_of_nothing_planted_is_false() -> None:
    assert compare_with_planted(PLANTED, [incident("spike", 20, 21)], 1_000).false_incidents == 1
