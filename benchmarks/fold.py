"""Time of folding one batch that touches 10, 100 or 1,000 windows.

The scorer returns stored energies, so that the figures are those of the fold: windows, lateness, parts and encoding.
With `--features` above 0 the events have drift codes of as many features.

    python -m benchmarks.fold [--events 10000] [--features 0] [--repeat 7]

Target: a further window costs at most 0.1 ms.
"""

import argparse
import sys
import time
from dataclasses import replace

import numpy as np

from config.settings import Settings
from consumers.batch import Partition
from consumers.decoded_batch import DeadLetters, DecodedBatch, Events
from monitor.daemon.rules import build_stream_rules
from monitor.pipeline.fold import Float32, fold
from monitor.pipeline.threshold_schedule import ThresholdSchedule
from monitor.statistics.drift_sums import MeasuredEvents, code_events
from monitor.statistics.part import Scale
from monitor.statistics.training_profile import TrainingProfile, build_feature_profile, quantile_edges
from storage.ledger.commit import StreamControl
from storage.ledger.schedule import ScheduledThreshold

START_US = 1_767_225_600_000_000
MINUTE_US = 60_000_000
WINDOWS = (10, 100, 1_000)
MAX_MS_PER_WINDOW = 0.1
RULES = build_stream_rules(Settings.model_validate({"streams": {"s": {"source": {"type": "synthetic"}}}}), "s")


class MeasuredOnce:
    """A scorer that returns the measured events it was given."""

    def __init__(self, measured: MeasuredEvents) -> None:
        self._measured = measured

    def measure(self, features: Float32, model_id: int) -> MeasuredEvents:  # noqa: ARG002 - one model
        """Return the measured events."""
        assert len(features) == len(self._measured.energies), "the whole batch is measured at once"
        return self._measured

    def energies(self, features: Float32, model_id: int) -> Float32:
        """Return the energies."""
        return self.measure(features, model_id).energies

    def scale(self, model_id: int) -> Scale:  # noqa: ARG002 - one model
        """Return a fixed scale."""
        return Scale(median=0.0, iqr=1.0)


def make_batch(events: int, windows: int, features: int, rng: np.random.Generator) -> DecodedBatch:
    """Return a batch whose events are spread evenly over windows of one minute, in order of time."""
    offsets = np.arange(events, dtype=np.int64)
    return DecodedBatch(
        partition=Partition(topic="t", partition=0),
        begin=0,
        end=events,
        cursors=None,
        events=Events(
            offsets=offsets,
            times_us=START_US + offsets * windows * MINUTE_US // events,
            features=rng.standard_normal((events, max(features, 1))).astype(np.float32),
        ),
        dead_letters=DeadLetters.empty(),
    )


def measure(batch: DecodedBatch, *, drift: bool) -> MeasuredEvents:
    """Return energies of a standard normal density and, with `drift`, the events' drift codes."""
    features = batch.events.features
    energies = (0.5 * np.square(features).sum(axis=1)).astype(np.float32)
    if not drift:
        return MeasuredEvents(energies=energies)
    profile = TrainingProfile(features=build_feature_profile(features), energy_edges=quantile_edges(energies))
    return MeasuredEvents(energies=energies, codes=code_events(profile, features, energies, None))


def best_ms(batch: DecodedBatch, windows: int, repeat: int, *, drift: bool) -> float:
    """Return the shortest time of `repeat` folds, in milliseconds."""
    scorer = MeasuredOnce(measure(batch, drift=drift))
    schedule = ThresholdSchedule.from_rows([ScheduledThreshold(id=1, model_id=1, valid_from_us=0, threshold=3.0)])
    rules = replace(RULES, size_us=MINUTE_US, grace_us=10_000_000, ahead_us=(windows + 1) * MINUTE_US)
    control = StreamControl(sealed_until_us=START_US, revision=0)
    times = []
    for _ in range(repeat):
        begun = time.perf_counter()
        folded = fold(batch, watermark_us=None, control=control, schedule=schedule, rules=rules, scorer=scorer)
        times.append(time.perf_counter() - begun)
        assert len(folded.parts) == windows, f"{len(folded.parts)} parts for {windows} windows"
    return 1e3 * min(times)


def main() -> int:
    """Print the times; return 1 if a further window costs too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    found = {}
    for windows in WINDOWS:
        batch = make_batch(options.events, windows, options.features, rng)
        found[windows] = best_ms(batch, windows, options.repeat, drift=options.features > 0)
        print(f"{options.events:,} events over {windows:>5,} windows: {found[windows]:7.2f} ms")
    per_window_ms = (found[WINDOWS[-1]] - found[WINDOWS[0]]) / (WINDOWS[-1] - WINDOWS[0])
    return 0 if per_window_ms <= MAX_MS_PER_WINDOW else 1


if __name__ == "__main__":
    sys.exit(main())
