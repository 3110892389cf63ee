"""A cache of the last model that the control plane used, on the CPU and apart from the worker's scorer."""

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
    """The models of one stream by id, the last one cached; used by one thread."""

    def __init__(self, stream: str, models: ModelStore) -> None:
        self._stream = stream
        self._models = models
        self._last: _CachedModel | None = None

    def monitored(self, model_id: int) -> MonitoredModel:
        """Return a model as drift detection uses it."""
        model = self._get(model_id)
        return MonitoredModel(
            version=model.version, features=model.names, training_profile=model.loaded.training_profile
        )

    def reference(self, model_id: int) -> NDArray[np.float32]:
        """Return the reference energies of a model, (n,), in ascending order."""
        return self._get(model_id).reference

    def explain(self, model_id: int, events: Sequence[Mapping[str, float]]) -> Sequence[FeatureReasons]:
        """Return the contribution of each feature to the energies of events.

        A model that cannot explain its energies must not stop a stream: a warning is logged and the reasons are empty.
        """
        model = self._get(model_id)
        try:
            return explain_events(model.loaded, model.names, events)
        except ModelError as error:
            log.warning("Stream %s: %s", self._stream, error, extra={"action": "explain", "stream": self._stream})
            return [[] for _ in events]

    def _get(self, model_id: int) -> _CachedModel:
        model = self._last
        if model is None or model.model_id != model_id:
            stored = self._models.load(model_id)
            loaded = load_model(stored, "cpu")
            energies = loaded.detector.reference_energies_
            assert energies is not None, "load_model rejects a model without reference energies"
            model = self._last = _CachedModel(
                model_id=model_id,
                version=stored.version,
                loaded=loaded,
                names=tuple(stored.feature_names),
                reference=np.sort(energies),
            )
        return model
