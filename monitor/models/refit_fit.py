"""The fit of a refit: in a child process of low priority for the daemon, in the process for a back-test.

Both give the same bytes: every fit runs with one thread of torch and of the BLAS library, and with the seed of the
settings. The child is a new interpreter (never a fork of a process with threads and database connections). It reads and
writes files of a folder of its own, has a limit of memory and of time, and dies with the thread that started it.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError, OutriderError
from config.streams import ModelSettings
from monitor.detectors.score.threads import single_blas_thread, single_torch_thread
from monitor.models.fitting import fit_model
from monitor.models.training_history import TrainingHistory
from monitor.models.training_set import TrainingSet
from storage.control.models import NewModel

TIMEOUT_S = 3600.0
"""Maximum duration of a fit: as long as the seal of a stream at the end of its log can wait for it."""

MAX_MEMORY_BYTES = 4 * 2**30
"""Maximum private memory of the child. 100,000 events of 128 features take 100 MB, and a fit holds several copies."""

_MAX_REASON = 500


class RefitFailed(OutriderError):  # noqa: N818 - names the state, as its siblings do
    """A refit brought no model. The active model remains; the next refit is tried when it is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefittedModel:
    """The result of a refit: the model to store, and its reference energies, ascending."""

    new_model: NewModel
    reference: NDArray[np.float32]


class FitJob(Protocol):
    """A fit that may be running."""

    def poll(self) -> RefittedModel | None:
        """Return the result; None while it is not there.

        Raises:
            RefitFailed: There is no result.
        """
        ...

    def close(self) -> None:
        """End the fit and remove its files."""
        ...


class Fitter(Protocol):
    """Starts fits."""

    def start(self, training: TrainingSet, settings: ModelSettings) -> FitJob:
        """Start a fit on training events."""
        ...


def fit_refit(training: TrainingSet, settings: ModelSettings) -> RefittedModel:
    """Fit a model with one thread, so that its bytes depend on the events and the settings alone.

    Raises:
        ModelError: Too few events, or the detector cannot be fitted on them.
    """
    with single_torch_thread(), single_blas_thread:
        fitted = fit_model(training, settings, keep_duration=False)
    return RefittedModel(new_model=fitted.new_model, reference=fitted.reference)


class InProcessFitter:
    """Fits in this process; a back-test stops at each refit."""

    def start(self, training: TrainingSet, settings: ModelSettings) -> FitJob:
        """Fit on training events."""
        return _FinishedFit(training, settings)


class _FinishedFit:
    def __init__(self, training: TrainingSet, settings: ModelSettings) -> None:
        try:
            self._result: RefittedModel | str = fit_refit(training, settings)
        except ModelError as error:
            self._result = str(error)

    def poll(self) -> RefittedModel | None:
        """Return the result."""
        if isinstance(self._result, str):
            raise RefitFailed(self._result)
        return self._result

    def close(self) -> None:
        """Do nothing."""


class ChildFitter:
    """Fits in child processes, one at a time for each stream."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S, max_memory_bytes: int = MAX_MEMORY_BYTES) -> None:
        self._timeout_s = timeout_s
        self._max_memory_bytes = max_memory_bytes

    def start(self, training: TrainingSet, settings: ModelSettings) -> FitJob:
        """Start a child process on training events."""
        return ChildFit(training, settings, timeout_s=self._timeout_s, max_memory_bytes=self._max_memory_bytes)


class ChildFit:
    """A fit in a child process. The thread that creates it must outlive it: the child dies with that thread.

    Attributes:
        pid: The process of the child.
    """

    def __init__(
        self, training: TrainingSet, settings: ModelSettings, *, timeout_s: float, max_memory_bytes: int
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="outrider-fit-")
        self._path = Path(self._folder.name)
        self._timeout_s = timeout_s
        self._deadline_s = time.monotonic() + timeout_s
        write_request(self._path, training, settings)
        with (self._path / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "monitor.models.fit_child", str(self._path), str(max_memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def poll(self) -> RefittedModel | None:
        """Return the result; None while the child runs.

        Raises:
            RefitFailed: The child ended without a result, or ran into its limit of time.
        """
        code = self._process.poll()
        if code is None:
            if time.monotonic() < self._deadline_s:
                return None
            self._end_process()
            raise RefitFailed(
                f"the fit took longer than {self._timeout_s:g} s: fit on fewer features, or set model.n_components"
            )
        if code != 0:
            raise RefitFailed(self._explain(code))
        return read_result(self._path)

    def _explain(self, code: int) -> str:
        lines = (self._path / "log").read_text(errors="replace").strip().splitlines()
        last = lines[-1][-_MAX_REASON:] if lines else "it left no message"
        ended = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"the process of the fit {ended}: {last}"

    def _end_process(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def close(self) -> None:
        """End the child and remove its files."""
        self._end_process()
        self._folder.cleanup()


def write_request(folder: Path, training: TrainingSet, settings: ModelSettings) -> None:
    """Write the training events and the settings of a fit into a folder."""
    np.save(folder / "features.npy", training.features, allow_pickle=False)
    if training.weights is not None:
        np.save(folder / "weights.npy", training.weights, allow_pickle=False)
    derived = None
    if training.history is not None:
        np.save(folder / "context.npy", training.history.context, allow_pickle=False)
        derived = list(training.history.derived)
    request = {"names": list(training.names), "settings": settings.model_dump(mode="json"), "derived": derived}
    (folder / "request.json").write_text(json.dumps(request))


def read_request(folder: Path) -> tuple[TrainingSet, ModelSettings]:
    """Return the training events and the settings of a fit from its folder."""
    request = json.loads((folder / "request.json").read_text())
    weights, history = folder / "weights.npy", None
    if request["derived"] is not None:
        context = np.load(folder / "context.npy", allow_pickle=False)
        history = TrainingHistory(context=context, derived=tuple(request["derived"]))
    training = TrainingSet(
        features=np.load(folder / "features.npy", allow_pickle=False),
        names=tuple(request["names"]),
        rejected=0,
        exhausted=True,
        history=history,
        weights=np.load(weights, allow_pickle=False) if weights.exists() else None,
    )
    return training, ModelSettings.model_validate(request["settings"])


def write_result(folder: Path, result: RefittedModel) -> None:
    """Write the result of a fit into its folder."""
    model = result.new_model
    np.save(folder / "reference.npy", result.reference, allow_pickle=False)
    (folder / "artefact").write_bytes(model.artefact)
    described: dict[str, Any] = {"kind": model.kind, "names": list(model.feature_names), "summary": model.summary}
    (folder / "result.json").write_text(json.dumps(described))


def read_result(folder: Path) -> RefittedModel:
    """Return the result of a fit from its folder.

    Raises:
        RefitFailed: The child has ended without an error, but left no result.
    """
    try:
        described = json.loads((folder / "result.json").read_text())
        return RefittedModel(
            new_model=NewModel(
                kind=described["kind"],
                artefact=(folder / "artefact").read_bytes(),
                feature_names=tuple(described["names"]),
                summary=described["summary"],
            ),
            reference=np.load(folder / "reference.npy", allow_pickle=False),
        )
    except (OSError, ValueError) as error:
        raise RefitFailed(f"the result of the fit cannot be read ({error}): is the temporary folder full?") from error
