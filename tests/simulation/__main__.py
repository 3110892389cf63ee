"""Run the simulation with many seeds: `python -m tests.simulation --seeds 20 --examples 50 --database postgresql`.

The first failing run is reduced, printed with its seed, and ends the program with status 1.
"""

import argparse
import logging
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.servers.postgres import PostgresServer
from tests.simulation.machine import SETTINGS, open_machine


def main() -> int:
    """Run one state machine per seed; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--seeds", type=int, default=20, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=50, help="runs per seed")
    parser.add_argument("--steps", type=int, default=25, help="steps of a run before its random end")
    parser.add_argument("--no-shrink", action="store_true", help="print the failing run as it was found")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    phases = [Phase.generate] if options.no_shrink else [Phase.generate, Phase.shrink]
    profile = settings(SETTINGS, max_examples=options.examples, stateful_step_count=options.steps, phases=phases)
    begin_s = time.monotonic()
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        with (
            tempfile.TemporaryDirectory() as folder,
            _open_database(options.database, Path(folder)) as url,
            open_machine(url, f"sqlite:///{folder}/reference.db") as machine,
        ):
            try:
                run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=profile)
            except Exception:  # noqa: BLE001 - every failure of a run is printed with its seed
                traceback.print_exc()
                print(f"seed {seed}: a run stores other rows than an undisturbed run, or fails", file=sys.stderr)
                return 1
            n_steps, n_runs = machine.steps_taken, machine.runs_compared
        print(
            f"seed {seed}: {n_runs} runs with {n_steps} steps equal the undisturbed ones; "
            f"{time.monotonic() - begin_s:.0f} s",
            flush=True,
        )
    return 0


@contextmanager
def _open_database(kind: str, folder: Path) -> Iterator[str]:
    """Yield the URL of an empty database."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/outrider.db"
        return
    with PostgresServer() as server:
        yield server.create_database()


if __name__ == "__main__":
    sys.exit(main())
