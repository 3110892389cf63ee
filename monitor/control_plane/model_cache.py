"""Cache of the last model that the control plane used, on the CPU and separate from the worker's scorer."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from monitor.incidents.explain import FeatureReasons
from monitor.models.scoring import LoadedModel, explain_events, load_model
from storage.control.models import ModelStore

log = logging.getLogger(__name__)


class ModelCache:
    """The models of one stream by id, the last one cached; used by one thread."""

    def __init__(self, stream: str, models: ModelStore) -> None:
        self._stream = stream
        self._models = models
        self._last: LoadedModel | None = None

    def version(self, stream_id: int, model_id: int) -> int:
        """Return the version of a model, without loading it."""
        return next(model.version for model in self._models.list(stream_id) if model.id == model_id)

    def load(self, model_id: int) -> LoadedModel:
        """Return a model, on the CPU."""
        model = self._last
        if model is None or model.record.id != model_id:
            model = self._last = load_model(*self._models.load(model_id), "cpu")
        return model

    def reference(self, model_id: int) -> NDArray[np.float32]:
        """Return the reference energies of a model, (n,), in ascending order."""
        return self.load(model_id).reference

    def explain(self, model_id: int, events: Sequence[Mapping[str, float]]) -> Sequence[FeatureReasons]:
        """Return the contribution of each feature to the energies of events.

        A model that cannot explain its energies must not stop a stream: a warning is logged and the reasons are empty.
        """
        model = self.load(model_id)
        try:
            return explain_events(model, events)
        except ModelError as error:
            log.warning("Stream %s: %s", self._stream, error, extra={"action": "explain", "stream": self._stream})
            return [[] for _ in events]
