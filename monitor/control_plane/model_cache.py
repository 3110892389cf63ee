"""Models as the control thread needs them: on the CPU, beside the worker's own; the last one is kept."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from monitor.control_plane.drift_step import MonitoredModel
from monitor.incidents.explain import FeatureReasons
from monitor.models.scoring import LoadedModel, explain_events, load_model
from storage.control.models import ModelStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _CachedModel:
    model_id: int
    version: int
    loaded: LoadedModel
    names: tuple[str, ...]
    reference: NDArray[np.float32]


class ModelCache:
    """The models of one stream, by their ids; used by one thread."""

    def __init__(self, stream: str, models: ModelStore) -> None:
        self._stream = stream
        self._models = models
        self._last: _CachedModel | None = None

    def monitored(self, model_id: int) -> MonitoredModel:
        """Return what drift needs of a model."""
        kept = self._get(model_id)
        return MonitoredModel(version=kept.version, features=kept.names, training_profile=kept.loaded.training_profile)

    def reference(self, model_id: int) -> NDArray[np.float32]:
        """Return a model's reference energies, ascending."""
        return self._get(model_id).reference

    def explain(self, model_id: int, events: Sequence[Mapping[str, float]]) -> Sequence[FeatureReasons]:
        """Return what each feature adds to the events' energies. A model that cannot say it must not stop a stream."""
        kept = self._get(model_id)
        try:
            return explain_events(kept.loaded, kept.names, events)
        except ModelError as refused:
            log.warning("Stream %s: %s", self._stream, refused, extra={"action": "explain", "stream": self._stream})
            return [[] for _ in events]

    def _get(self, model_id: int) -> _CachedModel:
        kept = self._last
        if kept is None or kept.model_id != model_id:
            stored = self._models.load(model_id)
            loaded = load_model(stored, "cpu")
            energies = loaded.detector.reference_energies_
            assert energies is not None, "load_model refuses a model without them"
            kept = self._last = _CachedModel(
                model_id=model_id,
                version=stored.version,
                loaded=loaded,
                names=tuple(stored.feature_names),
                reference=np.sort(energies),
            )
        return kept
