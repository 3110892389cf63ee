"""Models of a back-test: the stream's stored models, or one fitted on the first events of the file."""

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.settings import Settings, StreamSettings
from consumers.files.source import FileSource
from monitor.backtest.cells import STREAM_ID, ModelSet
from monitor.control_plane.drift_step import MonitoredModel
from monitor.models.scoring import Scorer, load_model, pick_device
from monitor.models.warm_up import WarmUp
from monitor.pipeline.fold import BatchScorer
from storage.control.models import Activation, ModelInfo, ModelStore, NewModel, StoredModel
from storage.control.thresholds import ThresholdRow
from storage.database.engine import Database
from storage.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestModels:
    """Models with their reference energies, id and features of the active model, and the scorer."""

    models: ModelSet
    model_id: int
    features: tuple[str, ...]
    scores: BatchScorer


def load_stored_models(settings: Settings, stream: str) -> BacktestModels | None:
    """Load the stream's stored models; return None without a database or an active model."""
    url = settings.database.url
    if not _may_exist(url):
        return None
    with Database(url, read_only=True) as db:
        db.check_schema()
        models = ModelStore(db)
        stream_id = Ledger(db).find_stream(stream)
        active = None if stream_id is None else models.active(stream_id)
        if active is None or stream_id is None:
            return None
        infos = models.list(stream_id)
        return _build_models([(info, models.load(info.id)) for info in infos], active, settings.device)


def fit_on_file(own: StreamSettings, path: Path, device: str) -> BacktestModels:
    """Fit a model on the file's first events with the daemon's warm-up.

    Raises:
        ModelError: The file has too few events.
    """
    store = _MemoryModelStore()
    with closing(FileSource(path, max_event_bytes=own.event.max_size)) as source:
        starts = source.resolve("earliest", source.discover())
        WarmUp(str(path), STREAM_ID, own, store, stop=threading.Event(), renew=lambda: True).run(source, starts)
    assert store.stored is not None, "the stop event is never set"
    info, model = store.stored
    return _build_models([(info, model)], info, device)


def _may_exist(url: str) -> bool:
    """Return whether the database may exist; an SQLite file is created by the first run of the daemon."""
    path = url.removeprefix("sqlite:///")
    return path == url or Path(path).exists()


def _build_models(models: Sequence[tuple[ModelInfo, StoredModel]], active: ModelInfo, device: str) -> BacktestModels:
    by_id = {info.id: model for info, model in models}
    scorer = Scorer(lambda model_id: load_model(by_id[model_id], pick_device(device)))
    reference, monitored = {}, {}
    for info, model in models:
        loaded = load_model(model, "cpu")
        energies = loaded.detector.reference_energies_
        assert energies is not None, "load_model rejects a model without reference energies"
        reference[info.id] = np.sort(energies)
        monitored[info.id] = MonitoredModel(
            version=info.version, features=info.feature_names, training_profile=loaded.training_profile
        )
    return BacktestModels(
        models=ModelSet(infos=[info for info, _ in models], reference=reference, monitored=monitored),
        model_id=active.id,
        features=active.feature_names,
        scores=scorer,
    )


class _MemoryModelStore:
    """Model store in memory for the model of a warm-up."""

    def __init__(self) -> None:
        self.stored: tuple[ModelInfo, StoredModel] | None = None

    def add(
        self,
        stream_id: int,
        model: NewModel,
        first_threshold: Callable[[int, Activation], ThresholdRow],  # noqa: ARG002 - each cell estimates its own
        *,
        only_first: bool = False,  # noqa: ARG002 - there is only one
    ) -> ModelInfo | None:
        """Store the model."""
        info = ModelInfo(
            id=1,
            version=1,
            kind=model.kind,
            state="active",
            created_at_us=0,
            valid_from_us=0,
            feature_names=tuple(model.feature_names),
            summary=model.summary,
        )
        stored = StoredModel(
            id=1,
            stream_id=stream_id,
            version=1,
            kind=model.kind,
            state="active",
            artefact=model.artefact,
            checksum=model.checksum,
            created_at_us=0,
            valid_from_us=0,
            feature_names=tuple(model.feature_names),
            summary=dict(model.summary),
        )
        self.stored = info, stored
        return info

    def report_warm_up(self, stream_id: int, n_events: int, wanted: int, left_s: float | None) -> None:
        """Do nothing: the progress of this warm-up is not shown."""
