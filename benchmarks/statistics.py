"""Promised against realised: limits, warm-up, spikes, slow rises, drift; tables with their seeds.

    python benchmarks/statistics.py [--quick] [--only limits|warm_up|spikes|rises|drift] [--seed N]

Energies and past counts are drawn; the realised rates of false alarms are read off exact laws, never counted.
"""

import argparse
import sys
import time
from pathlib import Path


def main() -> None:
    # This file's name is also the standard library's: its folder must not be where imports are looked for first.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from benchmarks.promises import drift, limits, rises, spikes, warm_up

    tables = {"limits": limits, "warm_up": warm_up, "spikes": spikes, "rises": rises, "drift": drift}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer draws: under two minutes on two cores")
    parser.add_argument("--only", choices=tuple(tables))
    parser.add_argument("--seed", type=int, default=20261121)
    options = parser.parse_args()
    for name, part in tables.items():
        if options.only in (None, name):
            begun = time.perf_counter()
            part.show(quick=options.quick, seed=options.seed)
            print(f"\n({name}: {time.perf_counter() - begun:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main()
