"""Cells of the grid: a control plane for each pair of percentile and false-alarm budget."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from config.settings import Settings
from config.stream_rules import RuleSchedule, StreamRules, WindowRules
from config.streams import ThresholdSettings
from config.units import Rate
from consumers.window_schedule import make_window_schedule
from monitor.backtest.memory_drift_store import MemoryDriftStore
from monitor.backtest.memory_keys import MemoryKeyCounts
from monitor.backtest.memory_refit_store import MemoryRefitStore
from monitor.backtest.memory_store import MemoryStore
from monitor.backtest.shared_cache import SharedCache, SharedFitter
from monitor.control_plane.control_plane import ControlPlane, ControlPlaneStores
from monitor.control_plane.rule_reader import RuleReader
from monitor.daemon.rules import build_stream_rules
from monitor.incidents.explain import FeatureReasons
from monitor.models.promotion import first_threshold_from_history
from monitor.models.scoring import LoadedModel
from monitor.statistics.part import Scale
from monitor.statistics.season import load_season
from monitor.thresholds.look_back_cache import LookBackCache
from storage.control.models import Activation, ModelRecord, NewModel

STREAM_ID = 1


class GridModels:
    """The loaded models of a back-test, as the control plane uses them."""

    def __init__(self, models: Mapping[int, LoadedModel]) -> None:
        self._models = models

    def version(self, stream_id: int, model_id: int) -> int:  # noqa: ARG002 - a back-test has one stream
        """Return the version of a model."""
        return self._models[model_id].record.version

    def load(self, model_id: int) -> LoadedModel:
        """Return a model."""
        return self._models[model_id]

    def explain(
        self,
        model_id: int,  # noqa: ARG002 - a back-test explains no events
        events: Sequence[Mapping[str, float]],
    ) -> Sequence[FeatureReasons]:
        """Return no reasons: a back-test has no evidence to explain."""
        return [[] for _ in events]


class ModelRecords(Mapping[int, ModelRecord]):
    """The records of loaded models, also of those that are added later."""

    def __init__(self, models: Mapping[int, LoadedModel]) -> None:
        self._models = models

    def __getitem__(self, model_id: int) -> ModelRecord:
        return self._models[model_id].record

    def __iter__(self) -> Iterator[int]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)


class CellRefits:
    """The refits of the cells of a grid: cells with the same training events share one fit.

    Args:
        add_model: Adds a model to those that the cells can score with; returns its id.
    """

    def __init__(self, add_model: Callable[[NewModel], int]) -> None:
        self.add_model = add_model
        self.fitter = SharedFitter()


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
        windows: tuple[WindowRules, ...] = (),
        refits: CellRefits | None = None,
        *,
        counts_keys: bool = False,
    ) -> None:
        shared = shared or SharedCache()
        stream_settings = apply_cell(settings, stream, percentile, budget)
        rules = build_stream_rules(stream_settings, stream)
        if refits is None or rules.refit is None:
            # Without events no model can score as shadow model, and without refits no sample is used.
            rules = replace(rules, sample_size=0, refit=None)
        self.schedule = schedule = change_windows(rules, windows) if windows else RuleSchedule.constant(rules)
        self.rules = schedule.newest
        self.percentile = percentile
        self.false_alarms = budget
        self.memory = memory = MemoryStore(
            [model.record for model in models.values()],
            windows=make_window_schedule(self.rules.windows),
            lead_us=max(each.lead_us for each in self.rules.windows),
        )
        self.keys = MemoryKeyCounts(make_window_schedule(self.rules.windows)) if counts_keys else None
        self._models = models
        self.refits = None
        if refits is not None:
            self.refits = MemoryRefitStore(memory, ModelRecords(models), refits.add_model)
        self._plane = ControlPlane(
            rules,
            STREAM_ID,
            stores=ControlPlaneStores(
                windows=memory,
                thresholds=memory,
                drift=MemoryDriftStore(memory),
                refits=self.refits,
                keys=self.keys,
            ),
            models=GridModels(models),
            now_us=lambda: memory.now_us,
            renew=lambda: True,
            notify_sealed=lambda: None,
            calculator=shared,
            rule_reader=RuleReader(schedule),
            fitter=None if refits is None else refits.fitter,
            model_settings=lambda: settings.streams[stream].model,
        )

    def activate(self, model_id: int, activation: Activation) -> None:
        """Activate a model and insert its first threshold, as the model store does."""
        reference, rules = self._models[model_id].reference, self.rules
        cache = LookBackCache(STREAM_ID, model_id, Scale.from_energies(reference))
        clean_windows = cache.refresh(self.memory, self.memory.control.sealed_until_us or 0, rules)
        newest = self.memory.newest_threshold(STREAM_ID)
        season = None if newest is None else load_season(newest.details)
        row = first_threshold_from_history(
            cache.look_back, clean_windows, reference, rules, season, model_id, activation
        )
        self.memory.insert_threshold(row)

    def run_due(self) -> None:
        """Seal, judge and tick until no step is due."""
        self._plane.run_due()


def apply_cell(settings: Settings, stream: str, percentile: float, budget: Rate) -> Settings:
    """Return the settings with the percentile and false-alarm budget of a cell."""
    stream_settings = settings.streams[stream]
    threshold = ThresholdSettings.model_validate(stream_settings.threshold.model_dump() | {"percentile": percentile})
    alerts = stream_settings.alerts.model_copy(update={"false_alarms": budget})
    changed = stream_settings.model_copy(update={"threshold": threshold, "alerts": alerts})
    return settings.model_copy(update={"streams": {**settings.streams, stream: changed}})


def build_cells(
    settings: Settings,
    stream: str,
    percentiles: Iterable[float],
    budgets: Sequence[Rate],
    models: Mapping[int, LoadedModel],
    windows: tuple[WindowRules, ...] = (),
    refits: CellRefits | None = None,
    *,
    counts_keys: bool = False,
) -> list[GridCell]:
    """Return a cell for each pair of percentile and false-alarm budget.

    `windows` are the windows over event time; without them the settings define the windows of all times. Without
    `refits` no model is fitted again. With `counts_keys` the cells are given events, and learn habitual keys from them.
    """
    shared = SharedCache()
    return [
        GridCell(settings, stream, each, budget, models, shared, windows, refits, counts_keys=counts_keys)
        for each in percentiles
        for budget in budgets
    ]


def change_windows(rules: StreamRules, windows: tuple[WindowRules, ...]) -> RuleSchedule:
    """Return rules that differ over event time in their windows only."""
    return RuleSchedule(
        revision=0,
        rows=tuple(
            (
                each.valid_from_us,
                replace(
                    rules,
                    size_us=each.size_us,
                    grace_us=each.grace_us,
                    ahead_us=each.ahead_us,
                    window_changes=windows,
                ),
            )
            for each in windows
        ),
    )
