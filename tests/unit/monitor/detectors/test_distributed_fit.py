"""Test of a fit on two processes."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest

from monitor.detectors import GaussianMixture

PROGRAM = """
import json, sys
import numpy as np, torch, torch.distributed as dist
from monitor.detectors import GaussianMixture
torch.set_num_threads(1)
rank, address, path, options = int(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
x = np.load(path)
local = x[: len(x) // 3] if rank == 0 else x[len(x) // 3 :]
calls = []
reduce = dist.all_reduce
def counted(*a, **k):
    calls.append(1)
    return reduce(*a, **k)
dist.all_reduce = counted
calls_before_pass = []
gm = GaussianMixture(**options).fit(local, progress=lambda i, _: calls_before_pass.append(len(calls)))
print(json.dumps({"means": gm.means_.tolist(), "weights": gm.weights_.tolist(), "n_iter": gm.n_iter_,
                  "covariances": gm.covariances_.tolist(), "calls": calls_before_pass}))
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"n_components": 3}, {"n_components": 3, "contamination": 0.02}])
def test_two_processes_fit_the_same_mixture_as_one(tmp_path, options):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24_000, 3)) + 6.0 * rng.integers(0, 3, 24_000)[:, None]
    np.save(tmp_path / "x.npy", x)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    options = {**options, "n_init": 1, "tol": 1e-5}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    processes = [
        subprocess.Popen(
            [*command, str(rank), address, str(tmp_path / "x.npy"), json.dumps(options)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    results = [json.loads(process.communicate(timeout=240)[0].splitlines()[-1]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    single = GaussianMixture(**options).fit(x)
    assert results[0]["means"] == results[1]["means"]
    assert results[0]["covariances"] == results[1]["covariances"]
    assert results[0]["n_iter"] == single.n_iter_
    assert np.allclose(results[0]["means"], single.means_, atol=1e-5)
    assert np.allclose(results[0]["weights"], single.weights_, atol=1e-6)
    assert np.allclose(results[0]["covariances"], single.covariances_, atol=1e-5)
    if "contamination" not in options:
        assert set(np.diff(results[0]["calls"])) == {1}
