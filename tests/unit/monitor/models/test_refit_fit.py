"""A fit in a child process has the bytes of a fit in this process, and ends by itself when something goes wrong."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from config.streams import ModelSettings
from monitor.detectors.detector import load_detector
from monitor.models.refit_fit import (
    ChildFit,
    ChildFitter,
    FitJob,
    InProcessFitter,
    RefitFailed,
    RefittedModel,
    read_request,
    write_request,
)
from monitor.models.training_set import TrainingSet

pytestmark = pytest.mark.slow
SETTINGS = ModelSettings.model_validate({"n_components": 2})


def _training(n: int = 400, *, weighted: bool = False) -> TrainingSet:
    rng = np.random.default_rng(1)
    features = rng.standard_normal((n, 2)) + np.where(np.arange(n) % 3, 0.0, 6.0)[:, None]
    weights = rng.integers(1, 6, n).astype(np.float64) if weighted else None
    return TrainingSet(features=features, names=("a", "b"), rejected=0, exhausted=True, weights=weights)


def _wait(job: FitJob, timeout_s: float = 90.0) -> RefittedModel:
    deadline_s = time.monotonic() + timeout_s
    while (result := job.poll()) is None:
        assert time.monotonic() < deadline_s, "the fit does not end"
        time.sleep(0.02)
    return result


@pytest.mark.parametrize("weighted", [False, True])
def test_the_child_gives_the_bytes_of_a_fit_in_this_process(*, weighted: bool) -> None:
    training = _training(weighted=weighted)
    expected = _wait(InProcessFitter().start(training, SETTINGS))
    job = ChildFitter().start(training, SETTINGS)
    try:
        found = _wait(job)
    finally:
        job.close()
    assert found.new_model == expected.new_model
    assert found.reference.tobytes() == expected.reference.tobytes()


def test_weights_move_the_model_and_its_reference() -> None:
    training = _training(900)
    is_far = training.features[:, 0] > 3
    weights = np.where(is_far, 9.0, 1.0)
    weighted = TrainingSet(features=training.features, names=("a", "b"), rejected=0, exhausted=True, weights=weights)
    fitted = _wait(InProcessFitter().start(weighted, SETTINGS))
    model = load_detector(fitted.new_model.artefact, kind="gaussian_mixture", n_features=2)
    share = weights[is_far].sum() / weights.sum()
    assert max(model.weights_) == pytest.approx(share, abs=0.02)  # type: ignore[attr-defined]
    assert len(fitted.reference) == pytest.approx(weights.sum() ** 2 / (weights**2).sum(), abs=1)


def test_a_failed_fit_tells_its_reason() -> None:
    job = ChildFitter().start(_training(5), SETTINGS)
    try:
        with pytest.raises(RefitFailed, match="needs at least 50 events"):
            _wait(job)
    finally:
        job.close()
    with pytest.raises(RefitFailed, match="needs at least 50 events"):
        InProcessFitter().start(_training(5), SETTINGS).poll()


def test_a_fit_beyond_its_memory_fails() -> None:
    job = ChildFitter(max_memory_bytes=16 * 2**20).start(_training(), SETTINGS)
    try:
        with pytest.raises(RefitFailed, match="the process of the fit"):
            _wait(job)
    finally:
        job.close()


def test_a_fit_beyond_its_time_is_ended() -> None:
    job = ChildFit(_training(), SETTINGS, timeout_s=0.0, max_memory_bytes=2**32)
    with pytest.raises(RefitFailed, match="longer than 0 s"):
        _wait(job)
    job.close()
    assert not psutil.pid_exists(job.pid)


def test_a_closed_fit_leaves_no_process_and_no_files() -> None:
    job = ChildFit(_training(), SETTINGS, timeout_s=60.0, max_memory_bytes=2**32)
    folder = job._path
    job.close()
    assert not psutil.pid_exists(job.pid)
    assert not folder.exists()


def test_a_killed_parent_leaves_no_orphan(tmp_path: Path) -> None:
    write_request(tmp_path, _training(), SETTINGS)
    script = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from monitor.models.refit_fit import ChildFit, read_request
        job = ChildFit(*read_request(Path({str(tmp_path)!r})), timeout_s=60.0, max_memory_bytes=2**32)
        print(job.pid, flush=True)
        time.sleep(60)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
    child.wait(timeout=30)


def test_a_request_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_request(tmp_path, _training(weighted=True), SETTINGS)
    training, settings = read_request(tmp_path)
    assert settings == SETTINGS
    assert training.features.tobytes() == _training().features.tobytes()
    assert training.weights is not None
