"""Models of a back-test: the stream's stored models, or one fitted on the first events of the file."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from config.settings import Settings, StreamSettings
from config.sizing import PATIENCE
from consumers.files.source import FileSource
from monitor.backtest.cells import STREAM_ID
from monitor.daemon.stored_sizes import read_stored_sizes
from monitor.models.scoring import LoadedModel, Scorer, load_model, pick_device
from monitor.models.warm_up import WarmUp
from monitor.pipeline.fold import BatchScorer
from monitor.statistics.key_states import FieldHistory, KeyStep
from storage.control.models import Activation, ModelRecord, ModelStore, NewModel
from storage.control.thresholds import ThresholdRow
from storage.control.warm_up import WarmUpProgress
from storage.database.engine import Database
from storage.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestModels:
    """The loaded models by id, the record of the active one, and the scorer.

    `sizes` are the values found for settings that are `auto`, by their keys.
    """

    models: dict[int, LoadedModel]
    active: ModelRecord
    scorer: BatchScorer
    stored: dict[int, tuple[ModelRecord, bytes]]
    sizes: Mapping[str, object] = field(default_factory=dict)

    def add(self, model: NewModel) -> int:
        """Add a model of a refit; return its id, that of an equal model if there is one."""
        for model_id, (_, artefact) in self.stored.items():
            if artefact == model.artefact:
                return model_id
        model_id = max(self.stored) + 1
        record = ModelRecord(
            id=model_id,
            version=max(known.version for known, _ in self.stored.values()) + 1,
            kind=model.kind,
            state="shadow",
            created_at_us=0,
            valid_from_us=None,
            feature_names=tuple(model.feature_names),
            summary=model.summary,
        )
        self.stored[model_id] = record, model.artefact
        self.models[model_id] = load_model(record, model.artefact, "cpu")
        return model_id

    @property
    def key_step(self) -> KeyStep | None:
        """Return the step of the history of keys; None if no model derives features from it."""
        derives = any(model.derivation is not None for model in self.models.values())
        return FieldHistory(n_fields=len(self.active.feature_names)) if derives else None


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
        return _build_models(
            [models.load(each.id) for each in models.list(stream_id)],
            active,
            settings.device,
            sizes=read_stored_sizes(db, stream_id),
        )


def fit_on_file(
    stream_settings: StreamSettings, path: Path, device: str, *, longest_look_back: timedelta = PATIENCE
) -> BacktestModels:
    """Fit a model on the file's first events with the daemon's warm-up, which finds the settings that are `auto`.

    Raises:
        ModelError: The file has too few events.
    """
    store = _MemoryModelStore()
    with closing(FileSource(path, max_event_bytes=stream_settings.event.max_size)) as source:
        starts = source.resolve("earliest", source.discover())
        WarmUp(
            str(path),
            STREAM_ID,
            stream_settings,
            store,
            stop=threading.Event(),
            renew=lambda: True,
            longest_look_back=longest_look_back,
        ).run(source, starts)
    assert store.stored is not None, "the stop event is never set"
    return _build_models([store.stored], store.stored[0], device, sizes=store.sizes)


def _may_exist(url: str) -> bool:
    """Return whether the database may exist; an SQLite file is created by the first run of the daemon."""
    path = url.removeprefix("sqlite:///")
    return path == url or Path(path).exists()


def _build_models(
    stored: Sequence[tuple[ModelRecord, bytes]], active: ModelRecord, device: str, *, sizes: Mapping[str, object]
) -> BacktestModels:
    by_id = {record.id: (record, artefact) for record, artefact in stored}
    return BacktestModels(
        models={model_id: load_model(*model, "cpu") for model_id, model in by_id.items()},
        active=active,
        scorer=Scorer(lambda model_id: load_model(*by_id[model_id], pick_device(device))),
        sizes=sizes,
        stored=by_id,
    )


class _MemoryModelStore:
    """Model store in memory for the model of a warm-up."""

    def __init__(self) -> None:
        self.stored: tuple[ModelRecord, bytes] | None = None
        self.sizes: Mapping[str, object] = {}

    def add(
        self,
        stream_id: int,  # noqa: ARG002 - there is one stream
        model: NewModel,
        first_threshold: Callable[[int, Activation], ThresholdRow],  # noqa: ARG002 - each cell estimates its own
        *,
        only_first: bool = False,  # noqa: ARG002 - there is only one
        sizes: Mapping[str, object] | None = None,
    ) -> ModelRecord | None:
        """Store the model."""
        record = ModelRecord(
            id=1,
            version=1,
            kind=model.kind,
            state="active",
            created_at_us=0,
            valid_from_us=0,
            feature_names=tuple(model.feature_names),
            summary=model.summary,
        )
        self.stored, self.sizes = (record, model.artefact), sizes or {}
        return record

    def report_warm_up(self, stream_id: int, progress: WarmUpProgress) -> None:
        """Do nothing: the progress of this warm-up is not shown."""
