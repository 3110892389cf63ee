"""The parts of the overview: bars, promise, waterfall, and the first sentence."""

import pytest

from monitor.health.stream_health import HealthProblem, HealthProof, HealthState, StreamHealth
from monitor.models.attribution import AttributedFeature, Attribution, AttributionLine, Spread
from monitor.server.pages.bars import BAR_US, BARS, draw_bars, fill_bars
from monitor.server.pages.incident_why import MAX_LINES, build_why
from monitor.server.pages.overview_rows import (
    build_proofs,
    describe_state,
    sort_streams,
    tabulate_bars,
    tabulate_spans,
)
from monitor.server.pages.overview_sentence import say_overview
from monitor.server.pages.promise import build_promise
from storage.queries.incident_windows import IncidentOutliers
from storage.queries.promises import StreamPromise
from storage.queries.rollups import BarSums, IncidentMark

NOW = 1_796_040_000_000_000
DAY_US = 86_400_000_000


def rollup(start_us: int, *, windows: int = 1, outliers: int = 3, expected: float = 3.0) -> BarSums:
    return BarSums(
        start_us=start_us, end_us=start_us + BAR_US, windows=windows, events=600, outliers=outliers, expected=expected
    )


def mark(kind: str, start_us: int, end_us: int | None) -> IncidentMark:
    return IncidentMark(
        id=1, stream_id=1, kind=kind, severity="critical", status="open", verdict=None, start_us=start_us, end_us=end_us
    )


def health(name: str, state: HealthState, *problems: HealthProblem, **values: object) -> StreamHealth:
    return StreamHealth(
        stream=name, now_us=NOW, state=state, since_us=NOW - DAY_US, reason=None, problems=problems,
        **{"proof": HealthProof(), **values},  # type: ignore[arg-type]
    )  # fmt: skip


SPIKE = HealthProblem(
    component="incident 5", state="spike", level=HealthState.CRITICAL, since_us=NOW - 960_000_000,
    reason="71 outliers among 613 events", incident_id=5,
)  # fmt: skip


def test_no_data_is_no_bar_of_height_zero() -> None:
    from_us = NOW - BARS * BAR_US
    bars = fill_bars([rollup(from_us), rollup(from_us + BAR_US, windows=0)], [], from_us)
    assert len(bars) == BARS
    assert [bar.outliers for bar in bars[:3]] == [3, None, None]
    assert draw_bars(bars).count("M") > BARS - 2


def test_the_table_on_the_page_sums_spans_of_3_h_and_leaves_out_unknown_ones() -> None:
    from_us = NOW - BARS * BAR_US
    bars = fill_bars([rollup(from_us + i * BAR_US) for i in range(13)], [], from_us)
    assert [row[2:4] for row in tabulate_spans({"payments": bars}, from_us).rows] == [[36, 36.0], [3, 3.0]]
    assert len(tabulate_bars({"payments": bars}, from_us).rows) == 13


def test_bars_of_an_incident_are_marked_but_silence_marks_none() -> None:
    from_us = NOW - BARS * BAR_US
    rows = [rollup(from_us + i * BAR_US) for i in range(BARS)]
    bars = fill_bars(rows, [mark("spike", from_us + 5 * BAR_US, from_us + 7 * BAR_US)], from_us)
    assert [i for i, bar in enumerate(bars) if bar.is_incident] == [5, 6]
    assert fill_bars(rows, [mark("drift", from_us + 90 * BAR_US, None)], from_us)[95].is_incident
    assert not any(bar.is_incident for bar in fill_bars(rows, [mark("silence", from_us, None)], from_us))


def test_alarms_without_a_verdict_are_neither_true_nor_false() -> None:
    promise = StreamPromise(
        stream="payments", promised_per_week=1.0, true_alarms=3, false_alarms=2, without_verdict=5,
        first_us=NOW - 28 * DAY_US, at_us=NOW,
    )  # fmt: skip
    built = build_promise([promise])
    assert built.headline == "promised at most 1.0 a week, realised 0.50"
    assert "2 false and 3 true by verdict in 28 d, 0.061 to 1.8 false a week with 95% confidence" in built.detail
    assert "at most 1.8 with the 5 without a verdict" in built.detail
    assert build_promise([]).headline == "not measured yet"


def feature(name: str) -> AttributedFeature:
    spread = Spread(low=1.0, median=2.0, high=3.0)
    return AttributedFeature(name=name, here=spread, usual=(1.0, 3.0), expected=spread)


def test_the_waterfall_adds_up_and_shows_the_rest_as_one_line() -> None:
    lines = tuple(AttributionLine(features=(feature(f"x{i}"),), nats=float(12 - i), share=0.1) for i in range(12))
    total = 5.0 + sum(line.nats for line in lines)
    attribution = Attribution(events=9, mean_energy=total, typical_energy=5.0, lines=lines, leading=())
    why = build_why(attribution, IncidentOutliers(outliers=(), count=9, threshold=20.0, lower=19.0, upper=21.0))
    assert len(why.rows) == MAX_LINES
    assert why.rows[-1].name == "5 other features"
    shown = float(why.base.nats) + sum(float(row.nats) for row in why.rows)
    assert shown == pytest.approx(float(why.total.nats))
    assert why.threshold == "threshold 20.00 nats (19.00 to 21.00)"


def test_a_negative_typical_energy_is_drawn_inside() -> None:
    line = AttributionLine(features=(feature("x"),), nats=30.0, share=1.0)
    attribution = Attribution(events=1, mean_energy=20.0, typical_energy=-10.0, lines=(line,), leading=())
    why = build_why(attribution, IncidentOutliers(outliers=(), count=1, threshold=5.0))
    for row in (why.base, *why.rows, why.total):
        assert "-" not in str(row.bar).split('d="')[2].split('"')[0]


def test_the_first_sentence_answers_whether_all_is_well() -> None:
    well, bad = health("logins", HealthState.WELL), health("payments", HealthState.CRITICAL, SPIKE)
    assert say_overview([well]).answer == "The stream is well."
    said = say_overview(sort_streams({"logins": well, "payments": bad}))
    assert said.answer == "1 of 2 streams is well."
    assert (said.worst, said.problem, said.incident_id) == ("payments", "has an open spike since 11:44.", 5)
    assert say_overview([]).answer == "No stream is stored yet."


def test_an_ended_stream_with_an_open_incident_is_not_called_well() -> None:
    ended = health("payments", HealthState.ENDED, SPIKE)
    assert say_overview([ended]).problem == "has an open spike since 11:44."
    sign, state, reason = describe_state(ended)
    assert (sign, state) == ("critical", "spike, 16 min")
    assert reason == "the source has ended; 71 outliers among 613 events"


def test_the_worst_of_several_open_incidents_comes_first() -> None:
    drift = HealthProblem(
        component="incident 4", state="drift", level=HealthState.WARNING, since_us=NOW - 10**9, reason="x0 has moved",
        incident_id=4,
    )  # fmt: skip
    said = say_overview([health("payments", HealthState.ENDED, drift, SPIKE)])
    assert (said.answer, said.incident_id) == ("2 incidents are open.", 5)


def test_an_unproven_state_is_grey_with_its_reason() -> None:
    silent = HealthProblem(
        component="stream", state="not_running", level=HealthState.UNKNOWN, since_us=NOW - 60_000_000,
        reason="worker-a has reported nothing for 60 s", is_monitor=True,
    )  # fmt: skip
    sign, state, reason = describe_state(health("payments", HealthState.UNKNOWN, silent))
    assert sign == "unknown"
    assert state.startswith("unknown")
    assert reason == "worker-a has reported nothing for 60 s"


def test_a_missing_proof_is_named() -> None:
    proved = health("a", HealthState.WELL, proof=HealthProof(report_age_s=2.0, lease_holder="w/1", lease_renewed_s=1.0))
    proofs = build_proofs([proved, health("b", HealthState.UNKNOWN)])
    assert [(each.seen, each.is_missing) for each in proofs[:2]] == [
        ("2 s ago, 1 missing", True),
        ("1 s ago, 1 missing", True),
    ]
