"""A burst in a stream of 30 learned windows is found for any counts of the windows before it."""

import json
from pathlib import Path

import numpy as np
import pytest

from config.settings import Settings
from monitor.backtest import backtest
from tests.daemon.events import FEATURES
from tests.daemon.settings import STREAM, file_settings

N_EVENTS, STEP_US = 2_000, 250_000
BURST = slice(1_700, 1_800)
STARTS_US = tuple(1_790_000_000_000_000 + 2_500_000 * phase for phase in range(4))


def find_first_spike_us(seed: int, folder: Path) -> tuple[int, int | None]:
    """Return the start of a burst of 30% outliers, and the start of the first spike, None without one."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N_EVENTS, len(FEATURES)))
    in_burst = np.zeros(N_EVENTS, np.bool_)
    in_burst[BURST] = rng.random(BURST.stop - BURST.start) < 0.3
    x[in_burst] += 9.0
    times_us = STARTS_US[seed % len(STARTS_US)] + 100_000 + STEP_US * np.arange(N_EVENTS)
    path = folder / f"{seed}.jsonl"
    with path.open("w") as file:
        for at, (when, row) in enumerate(zip(times_us.tolist(), x.round(6).tolist(), strict=True)):
            file.write(json.dumps({"ts": when, "id": at, **dict(zip(FEATURES, row, strict=True))}) + "\n")
    settings = Settings.model_validate(file_settings(f"sqlite:///{folder / 'none.db'}", str(path)))
    budget = settings.streams[STREAM].alerts.false_alarms
    memory = backtest(settings, STREAM, path, percentiles=[99], false_alarms=[budget]).memories[0]
    spikes = [life.row.window_start_us for life in memory.incidents if life.row.kind == "spike"]
    return int(times_us[BURST.start]), min(spikes, default=None)


def check_seeds(seeds: range | tuple[int, ...], folder: Path) -> None:
    for seed in seeds:
        burst_us, spike_us = find_first_spike_us(seed, folder)
        assert spike_us is not None, f"seed {seed} has no spike"
        assert burst_us - 10_000_000 < spike_us <= burst_us + 10_000_000, f"seed {seed}"


@pytest.mark.slow
def test_burst_is_found_after_unusual_counts(tmp_path: Path) -> None:
    """With these seeds, one window of four outliers once tripled the dispersion, and hid the burst."""
    check_seeds((3, 26), tmp_path)


@pytest.mark.long
def test_burst_is_found_with_any_seed(tmp_path: Path) -> None:
    check_seeds(range(60), tmp_path)
