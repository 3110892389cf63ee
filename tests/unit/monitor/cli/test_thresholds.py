"""`outrider thresholds` prints notes on the newest threshold."""

import numpy as np

from monitor.cli.output.budget_text import describe_threshold_notes
from monitor.statistics.part import Scale
from monitor.thresholds.body import fit_body
from monitor.thresholds.bounds import UNBOUNDED
from monitor.thresholds.look_back import LookBack
from monitor.thresholds.percentile import estimate_reference_threshold
from monitor.thresholds.tick import build_first_threshold, compute_tick_threshold
from storage.control.models import Activation
from storage.control.thresholds import ThresholdRow, ThresholdStore
from tests.rules import make_rules
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import REFERENCE, T0, PaymentsStream

_NOW = Activation(valid_from_us=0, computed_at_us=0)
RULES = make_rules(percentile=99.5, look_back_us=10**10, adopt_after_us=10**10, size_us=6 * 10**7, per_week=1.0)


def add_threshold(payments: PaymentsStream, row: ThresholdRow) -> None:
    store = ThresholdStore(payments.db)
    assert store.store_tick(payments.stream.id, last_tick_us=None, tick_us=T0, threshold=row, calibration=None)


def test_held_threshold_shows_the_reason(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    newest = ThresholdStore(payments.db).newest_threshold(payments.stream.id)
    assert newest is not None
    look_back = LookBack(Scale.from_energies(REFERENCE))
    row, _, _ = compute_tick_threshold(
        newest, look_back, [], REFERENCE, RULES, tick_us=T0, valid_from_us=newest.valid_from_us, most_events=0
    )
    assert (row.threshold, row.method) == (newest.threshold, newest.method)
    add_threshold(payments, row)
    output = outrider("thresholds", "payments", "--format", "table").out
    assert "the threshold is not updated: p99.5 needs 200 events in the look-back, it has 0" in output


def test_contaminated_warm_up_gives_a_warning() -> None:
    rng = np.random.default_rng(1)
    energies = np.concatenate([rng.gamma(8, 1, 9_500), rng.uniform(60, 260, 500)])
    reference = np.sort(energies.astype(np.float32))
    assert fit_body(reference, 0.001).outlier_share > 0.04
    row = build_first_threshold(reference, 1, _NOW, 99.5)
    assert any("model.contamination: 0.05" in line for line in describe_threshold_notes(row.details["limit"]))


def test_missing_upper_bound_is_shown_as_open(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    newest = ThresholdStore(payments.db).newest_threshold(payments.stream.id)
    assert newest is not None
    few = REFERENCE[-50:]
    assert estimate_reference_threshold(few, 99.5).upper == UNBOUNDED
    row = build_first_threshold(few, newest.model_id, _NOW, 99.5)
    add_threshold(payments, row)
    assert " open " in outrider("thresholds", "payments", "--format", "table").out


def test_ordinary_threshold_has_no_notes() -> None:
    rng = np.random.default_rng(2)
    row = build_first_threshold(np.sort(rng.gamma(8, 1, 20_000).astype(np.float32)), 1, _NOW, 99.5)
    assert describe_threshold_notes(row.details["limit"]) == []
