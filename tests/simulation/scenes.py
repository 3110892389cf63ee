"""Random logs of several partitions, drawn so that hypothesis can shrink them, and the rules of their stream."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from hypothesis import strategies as st

from config.settings import Settings
from consumers.batch import Partition
from tests.simulation.log import ConsumerGroup, LogRecord, PartitionLog

T0_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
START_US = T0_US - DAY_US
"""The clock before the log is complete: earlier than every event, so that it decides on no future time."""
END_US = T0_US + DAY_US
TOPIC = "payments"
MAX_FUTURE_US = 30 * SECOND_US
IDLE_TIMEOUT_S = 600
FEATURES = ("x", "y")
FILTERED_X = 777.0
"""The feature of records that the filter leaves out."""

_NORMAL = np.random.default_rng(0).normal(size=(997, 2)).round(4).tolist()


class Kind(Enum):
    """The kinds of record batches of a log."""

    EVENTS = "events"
    BURST = "burst"
    """Each event is an outlier."""
    LATE = "late"
    """Events further back than the grace period."""
    DEAD = "dead"
    """Records that no codec can read."""
    STRAY = "stray"
    """One event whose clock is ahead, among events with right clocks."""
    WRONG_CLOCK = "wrong clock"
    """All events of the batch have the clock of one machine, which is ahead."""
    FILTERED = "filtered"
    """Records that the filter of the stream leaves out; the times of some are not valid."""
    HOLE = "hole"
    """Offsets without records: an aborted transaction, or compaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """One record batch: `n` records, `step_s` after the batch before, in event time; `far_s` for jumps of its kind."""

    kind: Kind
    n: int
    step_s: int
    far_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFile:
    """The settings in the configuration file of a replica that differ between the files of one stream."""

    size_s: int
    percentile: float

    def make_settings(self, stream: str) -> Settings:
        """Return all settings of the file."""
        source = {"type": "kafka", "topics": [TOPIC]}
        streams = {stream: {"source": source, **self._stream()}}
        return Settings.model_validate({"streams": streams, "notify": {"max_age": "10y"}})

    def _stream(self) -> dict[str, Any]:
        return {
            "event": {"time": {"field": "ts", "unit": "us"}, "features": list(FEATURES)},
            "window": {
                "size": f"{self.size_s}s",
                "grace": "5s",
                "ahead": "40s",
                "max_future": f"{MAX_FUTURE_US // SECOND_US}s",
                "idle_timeout": f"{IDLE_TIMEOUT_S}s",
            },
            "threshold": {"percentile": self.percentile, "refresh": "30s", "look_back": "5m", "adopt_after": "5m"},
            "alerts": {
                "false_alarms": "1000/week",
                "min_outliers": 2,
                "resolve_after": 2,
                "repeat_interval": "1m",
                "drift": {"horizons": ["1m"]},
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The log of a topic, and the files of the replicas that read it: all run with the first one until a deployment.

    `ends` is True if the partitions end like files, False if they become idle at their end. `append_time` is True if
    the broker's clock sets the timestamps of the records, `derives` if the model derives features.
    """

    files: tuple[StreamFile, StreamFile]
    partitions: Sequence[Sequence[BatchPlan]]
    ends: bool
    append_time: bool = False
    derives: bool = False

    def make_group(self, *, complete: bool) -> ConsumerGroup:
        """Return the consumer group of the topic, with all records produced or none."""
        group = ConsumerGroup(
            logs={
                Partition(topic=TOPIC, partition=number): build_log(number, plans, append_time=self.append_time)
                for number, plans in enumerate(self.partitions)
            },
            ends=self.ends,
        )
        if complete:
            for partition in group.logs:
                group.produce(partition, 10**9)
        return group


def build_log(number: int, plans: Sequence[BatchPlan], *, append_time: bool) -> PartitionLog:
    """Return the log of one partition."""
    records: list[LogRecord] = []
    offset, now_s = 0, 0
    for plan in plans:
        now_s += plan.step_s
        if plan.kind is Kind.HOLE:
            offset += plan.n
            continue
        base = offset
        for i in range(plan.n):
            time_s = now_s + i * plan.step_s / (2 * plan.n)
            stray = plan.kind is Kind.WRONG_CLOCK or (plan.kind is Kind.STRAY and i == 0)
            if stray:
                time_s += plan.far_s
            elif plan.kind is Kind.LATE:
                time_s -= plan.far_s
            time_us = T0_US + round(time_s * SECOND_US)
            value = b"{" if plan.kind is Kind.DEAD else encode_event(number, offset, time_us, plan.kind)
            records.append(
                LogRecord(
                    offset=offset,
                    batch_offset=base,
                    stamp_us=T0_US + now_s * SECOND_US if append_time else time_us,
                    has_append_time=append_time,
                    value=value,
                )
            )
            offset += 1
    return PartitionLog(records=records, end=offset)


def encode_event(number: int, offset: int, time_us: int, kind: Kind) -> bytes:
    """Return an event whose features depend on its kind and its place in the log only."""
    if kind is Kind.FILTERED:
        return json.dumps({"x": FILTERED_X, "y": offset % 3, "ts": time_us}).encode()
    x, y = _NORMAL[(number * 331 + offset) % len(_NORMAL)]
    scale = 9 if kind is Kind.BURST else 1
    return json.dumps({"x": x * scale, "y": y * scale, "ts": time_us}).encode()


_BATCHES = st.builds(
    BatchPlan,
    kind=st.sampled_from([Kind.EVENTS, Kind.EVENTS, Kind.EVENTS, Kind.EVENTS, *Kind]),
    n=st.integers(1, 6),
    step_s=st.sampled_from([0, 1, 2, 4, 7, 7, 15]),
    far_s=st.sampled_from([8, 20, 35, 90, 1000]),
)


_FILES = st.builds(StreamFile, size_s=st.sampled_from([10, 7, 15]), percentile=st.sampled_from([95.0, 90.0]))


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Draw a scene of one to three partitions."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    partitions = [draw(st.lists(_BATCHES, min_size=n, max_size=n)) for n in sizes]
    return Scene(
        files=(draw(_FILES), draw(_FILES)),
        partitions=partitions,
        ends=draw(st.booleans()),
        append_time=draw(st.booleans()),
        derives=draw(st.booleans()),
    )
