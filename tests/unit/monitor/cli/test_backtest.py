"""`outrider backtest` over a file of events."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from monitor.backtest import backtest
from monitor.cli.backtest import _repeat_options
from tests.unit.monitor.cli.conftest import OutriderRunner

T0_S = 1_767_225_600
SECONDS = 1_800


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with half an hour of five events per second, a burst in minute 20, and its labels."""
    folder = tmp_path_factory.mktemp("recorded")
    rng = np.random.default_rng(3)
    index = np.arange(5 * SECONDS)
    x = rng.normal(size=(len(index), 2))
    burst = (index // 300 == 20) & (index % 3 == 0)
    x[burst] += 12
    with (folder / "events.jsonl").open("w") as file:
        for i, (a, b) in zip(index.tolist(), x.tolist(), strict=True):
            file.write(json.dumps({"ts": T0_S + i / 5, "a": a, "b": b, "id": i}) + "\n")
    (folder / "labels.csv").write_text(
        "row,label\n" + "".join(f"{i},{int(is_outlier)}\n" for i, is_outlier in enumerate(burst))
    )
    (folder / "outrider.yaml").write_text(
        f"""
database: {{url: "sqlite:///{folder / "none.db"}"}}
device: cpu
streams:
  payments:
    source: {{type: synthetic}}
    event: {{time: {{field: ts}}, id: id}}
    model: {{n_components: 1, warm_up: 2000}}
    threshold: {{percentile: 99.2}}
  untimed:
    source: {{type: synthetic}}
"""
    )
    return folder


@pytest.mark.slow
def test_one_row_is_listed_per_percentile_and_budget(recorded: Path, outrider: OutriderRunner) -> None:
    arguments = ["backtest", "payments", recorded / "events.jsonl", "--percentile", 99, 99.5]
    arguments += ["--false-alarms", "1/day", "1/week", "--labels", recorded / "labels.csv"]
    result = outrider(*arguments, "--format", "jsonl", config=recorded / "outrider.yaml")
    assert (result.code, result.err) == (0, "")
    rows = [json.loads(line) for line in result.out.splitlines()]
    grid = [(99.0, "1/day"), (99.0, "1/week"), (99.5, "1/day"), (99.5, "1/week")]
    assert [(row["percentile"], row["false_alarms"]) for row in rows] == grid
    for row in rows:
        assert (row["windows"], row["events"]) == (30, 9_000)
        assert row["incidents"].keys() == {"spike"}
        assert (row["bursts"], row["recall"], row["false_incidents"], row["precision"]) == (1, 1.0, 0, 1.0)
        assert (row["delay_s"], row["events_found"]) == (60.0, 1.0)
        assert row["realised_per_week"] == 0
    assert {path.name for path in recorded.iterdir()} == {"events.jsonl", "labels.csv", "outrider.yaml"}


@pytest.mark.slow
def test_default_grid_includes_the_settings_of_the_stream(recorded: Path, outrider: OutriderRunner) -> None:
    result = outrider(
        "backtest", "payments", recorded / "events.jsonl", "--format", "csv", config=recorded / "outrider.yaml"
    )
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert [(row["percentile"], row["false_alarms"]) for row in rows] == [
        (percentile, budget) for percentile in ("99.0", "99.2", "99.5", "99.9") for budget in ("1/day", "1/week")
    ]
    assert "recall" not in rows[0]
    assert json.loads(rows[0]["incidents"]) == {"spike": 1}


def test_table_names_the_replayed_period(recorded: Path, outrider: OutriderRunner) -> None:
    result = outrider(
        *("backtest", "payments", recorded / "events.jsonl", "--percentile", 99, "--format", "table"),
        config=recorded / "outrider.yaml",
    )
    assert "30 windows with 9,000 events, 2026-01-01T00:00:00Z to 2026-01-01T00:30:00Z" in result.out
    assert "spike=1" in result.out


def test_result_converts_to_a_frame(recorded: Path) -> None:
    found = backtest(recorded / "outrider.yaml", "payments", recorded / "events.jsonl", percentiles=[99])
    frame = found.to_frame()
    assert frame["spike"].tolist() == [1, 1]
    assert frame["promised_per_week"].tolist() == [7, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["payments"], "no model and no windows yet: run the daemon first, or give a FILE"),
        (["payment", "FILE"], "did you mean payments"),
        (["payments", "none.jsonl"], "none.jsonl"),
        (["payments", "events.txt"], "the suffix of 'events.txt' is not a known format"),
        (["payments", "-"], "standard input cannot be read twice"),
        (["untimed", "FILE"], "set event.time"),
        (["payments", "FILE", "--since", "1h"], "omit one of them"),
        (["payments", "FILE", "--percentile", "0.999"], "did you mean 99.9"),
        (["payments", "FILE", "--false-alarms", "often"], "'often' is not a rate"),
        (["payments", "FILE", "--labels", "none.csv"], "none.csv cannot be read as labels"),
    ],
)
def test_invalid_arguments_give_a_one_line_error(
    recorded: Path, outrider: OutriderRunner, arguments: list[str], message: str
) -> None:
    resolved = [str(recorded / "events.jsonl") if each == "FILE" else each for each in arguments]
    result = outrider("backtest", *resolved, config=recorded / "outrider.yaml")
    assert result.code == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1


def test_consecutive_values_belong_to_the_option_but_a_file_does_not() -> None:
    assert _repeat_options(
        ["s", "--percentile", "99", "99.5", "f.csv", "--false-alarms", "1/day", "2 / week", "--since"]
    ) == [
        *("s", "--percentile", "99", "--percentile", "99.5", "f.csv"),
        *("--false-alarms", "1/day", "--false-alarms", "2 / week", "--since"),
    ]
