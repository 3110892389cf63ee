"""CPU time, memory and stored bytes of derived features, by the number of fields and keys.

Batches of 10,000 events of random keys. The columns: the CPU time per event to find the keys and advance their
histories (derive), to encode the changed states and adopt them (store), and to score with a mixture of 4 components
without and with derived features; the bytes that a commit stores per event; the bytes of the states in memory.

    python -m benchmarks.derived [--events 10000] [--batches 10]
"""

import argparse
import time

import numpy as np

from benchmarks.statistical.table import show
from consumers.decoded_batch import Events
from monitor.detectors import GaussianMixture
from monitor.detectors.derivation import derive_all
from monitor.pipeline.key_states import KeyedSource
from monitor.statistics.key_states import FieldHistory
from storage.ledger.key_states import encode_key_states

FIELDS = (1, 4, 19)
KEYS = (1, 8, 1_000, 100_000)
COLUMNS = (
    *("fields", "keys", "derive us", "store us", "score raw us", "score derived us"),
    *("commit bytes per event", "memory MB"),
)


def make_batch(number: int, n: int, n_fields: int, n_keys: int) -> Events:
    """Return a batch of events a second apart."""
    rng = np.random.default_rng(number)
    offsets = np.arange(number * n, (number + 1) * n)
    return Events(
        offsets=offsets,
        times_us=offsets * 1_000_000,
        features=rng.normal(size=(n, n_fields)),
        keys=None if n_keys == 1 else [f"host-{key:06d}" for key in rng.integers(0, n_keys, n).tolist()],
    )


def make_mixture(d: int) -> GaussianMixture:
    """Return a mixture of 4 components near each other."""
    means = np.random.default_rng(0).normal(size=(4, d))
    return GaussianMixture.from_parameters(np.full(4, 0.25), means, np.tile(np.eye(d), (4, 1, 1)))


def measure(n: int, n_batches: int, n_fields: int, n_keys: int) -> tuple[str, ...]:
    """Return one row of the table, with medians over the batches after the second."""
    keyed = KeyedSource.from_rows([], FieldHistory(n_fields=n_fields))
    first, _ = keyed.derive(make_batch(0, n, n_fields, n_keys))
    names = [f"x{field}" for field in range(n_fields)]
    derivation = derive_all(names, first.features)
    raw_model, model = make_mixture(n_fields), make_mixture(3 * n_fields)
    rows = []
    for number in range(n_batches):
        batch = make_batch(number, n, n_fields, n_keys)
        times = [time.process_time()]
        events, changed = keyed.derive(batch)
        times.append(time.process_time())
        stored = encode_key_states(keyed.describe_change(changed).rows)
        keyed = keyed.after(changed)
        times.append(time.process_time())
        raw_model.energy(batch.features.astype(np.float32))
        times.append(time.process_time())
        model.energy(derivation.apply(events.features).astype(np.float32))
        times.append(time.process_time())
        rows.append([*(np.diff(times) / n * 1e6), len(stored) / n, keyed.states.values.nbytes / 1e6])
    figures = np.median(rows[2:], axis=0)
    return (f"{n_fields}", f"{n_keys:,}", *(f"{each:.2f}" for each in figures[:4]), *(f"{x:,.1f}" for x in figures[4:]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--batches", type=int, default=10)
    options = parser.parse_args()
    title = f"derived features, batches of {options.events:,} events"
    show(title, COLUMNS, [measure(options.events, options.batches, fields, keys) for fields in FIELDS for keys in KEYS])


if __name__ == "__main__":
    main()
