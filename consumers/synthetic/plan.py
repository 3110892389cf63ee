"""The generator of synthetic events: a seeded Gaussian mixture with planted bursts and drift, in blocks."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from config.time_format import SECOND_US
from consumers.batch import Int64

BLOCK_EVENTS = 2_000
N_COMPONENTS = 3
DECIMALS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedAnomaly:
    """A planted anomaly: outliers in [start, end), or a drift from start on."""

    start_us: int
    end_us: int
    kind: Literal["burst", "drift"]


@dataclass(frozen=True, kw_only=True)
class SyntheticPlan:
    """The parameters of the synthetic events. Equal plans and starts give bitwise identical events.

    Event i of the stream is in partition i mod `partitions` and in the i-th slot of event time. A slot is
    1 / `rate` seconds long. In a burst, a share of the events is replaced by outliers in random directions at
    a distance of 6 to 14 standard deviations. A drift shifts the first quarter of the features.
    """

    seed: int = 1
    rate: float = 500.0
    n_features: int = 4
    partitions: int = 1
    first_burst_us: int = 600 * SECOND_US
    burst_every_us: int = 1_800 * SECOND_US
    burst_length_us: int = 60 * SECOND_US
    burst_share: float = 0.1
    drift_after_us: int | None = None
    drift_shift: float = 0.5

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of the plan."""
        return hashlib.sha256(msgspec.json.encode(asdict(self))).hexdigest()[:12]

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """The feature names x0, x1, ..."""
        return tuple(f"x{i}" for i in range(self.n_features))

    @cached_property
    def _mixture(self) -> tuple[Any, Any, Any, Any]:
        """The weights, means and Cholesky factors of the components, and the features' standard deviations."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, 0]))
        D = self.n_features
        weights = rng.dirichlet(np.full(N_COMPONENTS, 8.0))
        means = rng.normal(0.0, 3.0, (N_COMPONENTS, D))
        factors = rng.normal(0.0, 0.3, (N_COMPONENTS, D, D)) / np.sqrt(D) + np.eye(D)
        within = np.einsum("k,kij,kij->i", weights, factors, factors)
        spread = weights @ (means - weights @ means) ** 2
        return weights, means, factors, np.sqrt(within + spread)

    def slots_before(self, since_start_us: int) -> int:
        """Return the number of events with a complete slot before a time, counted from the start."""
        return max(0, int(since_start_us * self.rate // SECOND_US))

    def first_time_us(self, partition: int, offset: int) -> int:
        """Return the start of the slot of an event, in microseconds from the start of the stream."""
        return int((offset * self.partitions + partition) * SECOND_US / self.rate)

    def generate_block(self, partition: int, number: int) -> tuple[Int64, NDArray[np.float64]]:
        """Return the times (microseconds from the start) and the features, shape (n, D), of one block of events."""
        sequence = np.random.SeedSequence([self.seed, 1, partition, number])
        rng = np.random.default_rng(sequence)
        offsets = np.arange(number * BLOCK_EVENTS, (number + 1) * BLOCK_EVENTS)
        slots = offsets * self.partitions + partition + rng.random(BLOCK_EVENTS)
        times = (slots * (SECOND_US / self.rate)).astype(np.int64)
        return times, self._generate_features(times, rng)

    def _generate_features(self, times: Int64, rng: np.random.Generator) -> NDArray[np.float64]:
        weights, means, factors, deviations = self._mixture
        n, D = len(times), self.n_features
        component = rng.choice(N_COMPONENTS, n, p=weights)
        noise = rng.normal(size=(n, D))
        x = np.empty((n, D))
        for k in range(N_COMPONENTS):
            rows = component == k
            x[rows] = means[k] + noise[rows] @ factors[k].T
        if self.drift_after_us is not None:
            drifted = times >= self.drift_after_us
            moved = max(1, D // 4)
            x[np.ix_(drifted, np.arange(moved))] += self.drift_shift * deviations[:moved]
        direction = rng.normal(size=(n, D))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        distance = rng.uniform(6.0, 14.0, (n, 1))
        planted = self.in_burst(times) & (rng.random(n) < self.burst_share)
        centre = weights @ means
        x[planted] = (centre + direction * distance * deviations * np.sqrt(D))[planted]
        return np.round(x, DECIMALS)

    def in_burst(self, times_us: Int64) -> NDArray[np.bool_]:
        """Return a mask of the times, counted from the start, that are in a burst."""
        since = times_us - self.first_burst_us
        return (since >= 0) & (since % self.burst_every_us < self.burst_length_us)

    def planted_anomalies(self, start_us: int, until_us: int) -> list[PlantedAnomaly]:
        """Return the anomalies planted before a time, in order of start."""
        found: list[PlantedAnomaly] = []
        begin = start_us + self.first_burst_us
        while self.burst_share > 0 and begin < until_us:
            found.append(PlantedAnomaly(start_us=begin, end_us=begin + self.burst_length_us, kind="burst"))
            begin += self.burst_every_us
        if self.drift_after_us is not None and start_us + self.drift_after_us < until_us:
            found.append(PlantedAnomaly(start_us=start_us + self.drift_after_us, end_us=until_us, kind="drift"))
        return sorted(found, key=lambda each: each.start_us)


class JsonEventEncoder:
    """An encoder of events as JSON objects: {"ts": ..., "id": ..., "x0": ...}."""

    def __init__(self, feature_names: tuple[str, ...]) -> None:
        fields: list[Any] = [("ts", str), ("id", str), *((name, float) for name in feature_names)]
        self._row: Any = msgspec.defstruct("Row", fields, gc=False)
        self._encode = msgspec.json.Encoder().encode

    def encode(self, partition: int, offsets: Int64, times_us: Int64, x: NDArray[np.float64]) -> list[bytes]:
        """Return one JSON object for each event. The id consists of partition and offset."""
        stamps = np.datetime_as_string(times_us.astype("datetime64[us]"), timezone="UTC").tolist()
        ids = [f"{partition}-{offset}" for offset in offsets.tolist()]
        return list(map(self._encode, map(self._row, stamps, ids, *x.T.tolist())))
