"""The demo's summary: what was planted against what was found, drift apart from bursts."""

from monitor.cli.demo_summary import SeenIncident, Span, compare, summary_lines

MINUTE = 60_000_000
PLANTED = [
    (10 * MINUTE, 12 * MINUTE, "burst"),
    (40 * MINUTE, 42 * MINUTE, "burst"),
    (60 * MINUTE, 99 * MINUTE, "drift"),
]


def incident(kind: str, start: int, end: int, *features: str) -> SeenIncident:
    return SeenIncident(kind=kind, window=Span(start_us=start * MINUTE, end_us=end * MINUTE), features=features)


def test_bursts_and_the_drift_are_found_with_their_delays() -> None:
    seen = [incident("spike", 10, 11), incident("spike", 41, 42), incident("drift", 60, 70, "x0", "x1")]
    found = compare(PLANTED, seen, 1_000)
    assert (found.bursts, found.found, found.delays_s, found.false) == (2, 2, [60.0, 120.0], 0)
    assert found.drift is not None
    assert (found.drift.feature, found.drift.delay_s) == ("x0", 600.0)
    assert any("found 1: x0 moved, told 10 min" in line for line in summary_lines(found, "sqlite:///x.db", "s"))


def test_a_drift_that_is_not_told_of_is_not_found() -> None:
    found = compare(PLANTED, [incident("spike", 65, 66)], 1_000)
    assert found.drift is None
    assert found.false == 0
    assert "planted 1 drift near the end, found 0" in summary_lines(found, "sqlite:///x.db", "s")


def test_a_drift_in_a_burst_is_no_burst_and_false() -> None:
    found = compare(PLANTED, [incident("drift", 10, 20, "x0")], 1_000)
    assert (found.found, found.false) == (0, 1)


def test_what_tells_of_nothing_planted_is_false() -> None:
    assert compare(PLANTED, [incident("spike", 20, 21)], 1_000).false == 1
