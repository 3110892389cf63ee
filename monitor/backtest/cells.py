"""Cells of the grid: a control plane for each pair of percentile and false-alarm budget."""

from collections.abc import Iterable, Mapping, Sequence

from config.settings import Settings
from config.streams import ThresholdSettings
from config.units import Rate
from monitor.backtest.memory_drift_store import MemoryDriftStore
from monitor.backtest.memory_store import MemoryStore
from monitor.backtest.shared_cache import SharedCache
from monitor.control_plane.control_plane import ControlPlane
from monitor.control_plane.drift_step import DriftMonitor
from monitor.daemon.rules import build_control_settings, build_drift_rule
from monitor.models.promotion import first_threshold_from_history
from monitor.models.scoring import LoadedModel
from monitor.statistics.part import Scale
from monitor.thresholds.look_back_cache import LookBackCache
from storage.control.models import Activation

STREAM_ID = 1


class GridCell:
    """Pair of percentile and false-alarm budget with its own store, judged by the daemon's control plane."""

    def __init__(
        self,
        settings: Settings,
        stream: str,
        percentile: float,
        budget: Rate,
        models: Mapping[int, LoadedModel],
        shared: SharedCache | None = None,
    ) -> None:
        shared = shared or SharedCache()
        own = apply_cell(settings, stream, percentile, budget)
        rules = build_control_settings(own, stream, STREAM_ID)
        lead_us = rules.grace_us + round(own.streams[stream].window.ahead.total_seconds() * 1e6)
        self.percentile = percentile
        self.false_alarms = budget
        self.size_us = rules.size_us
        self.grace_us = rules.grace_us
        self.memory = memory = MemoryStore(
            [model.record for model in models.values()], size_us=rules.size_us, lead_us=lead_us
        )
        self._models = models
        self._threshold = rules.threshold
        self._plane = ControlPlane(
            rules,
            control=memory,
            calibration=memory,
            models=memory,
            reference=lambda model_id: models[model_id].reference,
            now_us=lambda: memory.now_us,
            renew=lambda: True,
            advanced=lambda: None,
            drift=DriftMonitor(
                build_drift_rule(own, stream, STREAM_ID),
                store=MemoryDriftStore(memory),
                model=models.__getitem__,
                now_us=lambda: memory.now_us,
            ),
            make_look_back=shared.make_look_back,
            draw=shared.compute_threshold,
        )

    def activate(self, model_id: int, activation: Activation) -> None:
        """Activate a model and insert its first threshold, as the model store does."""
        reference, rule = self._models[model_id].reference, self._threshold
        cache = LookBackCache(STREAM_ID, model_id, Scale.from_energies(reference))
        clean_windows = cache.refresh(self.memory, self.memory.control.sealed_until_us or 0, rule)
        row = first_threshold_from_history(cache.look_back, clean_windows, reference, rule, model_id, activation)
        self.memory.insert_threshold(row)

    def run_due(self) -> None:
        """Seal, judge and tick until no step is due."""
        self._plane.run_due()


def apply_cell(settings: Settings, stream: str, percentile: float, budget: Rate) -> Settings:
    """Return the settings with the percentile and false-alarm budget of a cell."""
    own = settings.streams[stream]
    threshold = ThresholdSettings.model_validate(own.threshold.model_dump() | {"percentile": percentile})
    alerts = own.alerts.model_copy(update={"false_alarms": budget})
    changed = own.model_copy(update={"threshold": threshold, "alerts": alerts})
    return settings.model_copy(update={"streams": {**settings.streams, stream: changed}})


def build_cells(
    settings: Settings,
    stream: str,
    percentiles: Iterable[float],
    budgets: Sequence[Rate],
    models: Mapping[int, LoadedModel],
) -> list[GridCell]:
    """Return a cell for each pair of percentile and false-alarm budget."""
    shared = SharedCache()
    return [GridCell(settings, stream, each, budget, models, shared) for each in percentiles for budget in budgets]
