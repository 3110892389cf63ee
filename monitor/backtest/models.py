"""Back-test: what the past is scored with: the stream's stored models, or one that is warmed up on the file."""

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
from storage.control.thresholds import NewThreshold
from storage.database.engine import Database
from storage.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestModels:
    """Models with their reference energies, the active one's id and features, and what scores with them."""

    models: ModelSet
    model_id: int
    features: tuple[str, ...]
    scores: BatchScorer


def load_stored_models(settings: Settings, stream: str) -> BacktestModels | None:
    """Return the stream's stored models; None where there is no database yet, or no model in it."""
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
    """Return a model fitted on the file's first events, by the rule of the daemon's warm-up.

    Raises:
        ModelError: There are too few.
    """
    kept = _MemoryModelStore()
    with closing(FileSource(path, max_event_bytes=own.event.max_size)) as source:
        starts = source.resolve("earliest", source.discover())
        WarmUp(str(path), STREAM_ID, own, kept, stop=threading.Event(), renew=lambda: True).run(source, starts)
    assert kept.stored is not None, "nobody stops this warm-up"
    info, model = kept.stored
    return _build_models([(info, model)], info, device)


def _may_exist(url: str) -> bool:
    """Return whether there can be a database: an SQLite file is made by the daemon's first run."""
    path = url.removeprefix("sqlite:///")
    return path == url or Path(path).exists()


def _build_models(models: Sequence[tuple[ModelInfo, StoredModel]], active: ModelInfo, device: str) -> BacktestModels:
    by_id = {info.id: model for info, model in models}
    scorer = Scorer(lambda model_id: load_model(by_id[model_id], pick_device(device)))
    reference, watched = {}, {}
    for info, model in models:
        loaded = load_model(model, "cpu")
        energies = loaded.detector.reference_energies_
        assert energies is not None, "load_model refuses a model without them"
        reference[info.id] = np.sort(energies)
        watched[info.id] = MonitoredModel(
            version=info.version, features=info.feature_names, training_profile=loaded.training_profile
        )
    return BacktestModels(
        models=ModelSet(infos=[info for info, _ in models], reference=reference, monitored=watched),
        model_id=active.id,
        features=active.feature_names,
        scores=scorer,
    )


class _MemoryModelStore:
    """Keeps the model of a warm-up, as the store would."""

    def __init__(self) -> None:
        self.stored: tuple[ModelInfo, StoredModel] | None = None

    def add(
        self,
        stream_id: int,
        model: NewModel,
        first_threshold: Callable[[int, Activation], NewThreshold],  # noqa: ARG002 - each cell draws its own
        *,
        only_first: bool = False,  # noqa: ARG002 - it is
    ) -> ModelInfo | None:
        """Keep the model."""
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
        """Nobody asks how far it is."""
