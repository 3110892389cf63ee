"""A fit on two processes is the fit on one."""

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
mine = x[: len(x) // 3] if rank == 0 else x[len(x) // 3 :]
calls = []
reduce = dist.all_reduce
def counted(*a, **k):
    calls.append(1)
    return reduce(*a, **k)
dist.all_reduce = counted
before = []
gm = GaussianMixture(**options).fit(mine, progress=lambda i, _: before.append(len(calls)))
print(json.dumps({"means": gm.means_.tolist(), "weights": gm.weights_.tolist(), "n_iter": gm.n_iter_,
                  "covariances": gm.covariances_.tolist(), "calls": before}))
dist.destroy_process_group()
"""


@pytest.mark.parametrize("options", [{"n_components": 3}, {"n_components": 3, "contamination": 0.02}])
def test_two_processes_find_the_mixture_of_one(tmp_path, options):
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
    found = [json.loads(process.communicate(timeout=240)[0].splitlines()[-1]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    alone = GaussianMixture(**options).fit(x)
    assert found[0]["means"] == found[1]["means"]
    assert found[0]["covariances"] == found[1]["covariances"]
    assert found[0]["n_iter"] == alone.n_iter_
    assert np.allclose(found[0]["means"], alone.means_, atol=1e-5)
    assert np.allclose(found[0]["weights"], alone.weights_, atol=1e-6)
    assert np.allclose(found[0]["covariances"], alone.covariances_, atol=1e-5)
    if "contamination" not in options:
        assert set(np.diff(found[0]["calls"])) == {1}
