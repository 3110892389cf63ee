"""Configured against realised false-alarm rates: thresholds, warm-up, spikes, season, slow rises, drift, magnitude.

    python benchmarks/statistics.py [--quick] [--seed N]
        [--only thresholds|warm_up|spikes|season|slow_rises|drift|magnitude]

Energies and past counts are sampled; realised rates are computed from exact distributions where possible, not counted.
Each table prints its seed.
"""

import argparse
import sys
import time
from pathlib import Path


def main() -> None:
    # This file has the name of a standard library module: its folder must not be first in the import path.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from benchmarks.statistical import drift, magnitude, season, slow_rises, spikes, thresholds, warm_up

    tables = {
        "thresholds": thresholds,
        "warm_up": warm_up,
        "spikes": spikes,
        "season": season,
        "slow_rises": slow_rises,
        "drift": drift,
        "magnitude": magnitude,
    }
    aliases = {"limits": "thresholds", "rises": "slow_rises"}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer samples: less than two minutes on two cores")
    parser.add_argument("--only", choices=tuple(tables), type=lambda name: aliases.get(name, name))
    parser.add_argument("--seed", type=int, default=20261121)
    options = parser.parse_args()
    for name, part in tables.items():
        if options.only in (None, name):
            started_s = time.perf_counter()
            part.show(quick=options.quick, seed=options.seed)
            print(f"\n({name}: {time.perf_counter() - started_s:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main()
