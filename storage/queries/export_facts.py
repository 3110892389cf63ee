"""The facts that decide which hours of a stream an export writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from config.errors import ConfigError
from storage.database.engine import Database
from storage.database.tables import commit_ranges, positions, sources, streams

SourceKey = tuple[str, int, int]
"""Topic, partition and incarnation of a source: the same in every copy of a database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LateRange:
    """A range of commits of one source that has late events: its last offset, and the times of the late events."""

    source: SourceKey
    last_offset: int
    min_late_us: int
    max_late_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFacts:
    """The state of a stream at one moment.

    Attributes:
        sealed_until_us: End of the sealed windows: all further events before it are late. None before the first seal.
        first_us: The earliest event time of the stored ranges of commits; None without any.
        positions: The stored position of each source: the scores before it are stored.
        late_ranges: The ranges of commits with late events.
    """

    sealed_until_us: int | None
    first_us: int | None
    positions: Mapping[SourceKey, int]
    late_ranges: Sequence[LateRange]


def read_export_facts(db: Database, stream: str) -> ExportFacts:
    """Read the state of a stream in one transaction.

    Raises:
        ConfigError: The stream does not exist.
    """
    source_key = (sources.c.topic, sources.c.partition, sources.c.incarnation)
    ranges = commit_ranges.c
    with db.read() as conn:
        row = conn.execute(sa.select(streams.c.id, streams.c.sealed_until_us).where(streams.c.name == stream)).first()
        if row is None:
            known = ", ".join(conn.scalars(sa.select(streams.c.name).order_by(streams.c.name))) or "none"
            raise ConfigError(f"there is no stream {stream!r} in {db.address}; its streams are: {known}")
        own = sources.c.stream_id == row.id
        stored = conn.execute(
            sa.select(*source_key, positions.c.next_offset)
            .join(positions, positions.c.source_id == sources.c.id)
            .where(own)
        )
        offsets = {(topic, partition, incarnation): offset for topic, partition, incarnation, offset in stored}
        of_stream = sa.select(sources.c.id).where(own)
        earliest = conn.execute(
            sa.select(sa.func.min(ranges.min_time_us), sa.func.min(ranges.min_late_us)).where(
                ranges.source_id.in_(of_stream)
            )
        ).one()
        late = conn.execute(
            sa.select(*source_key, ranges.last_offset, ranges.min_late_us, ranges.max_late_us)
            .join(sources, sources.c.id == ranges.source_id)
            .where(own, ranges.max_late_us.is_not(None))
        )
        return ExportFacts(
            sealed_until_us=row.sealed_until_us,
            first_us=min((each for each in earliest if each is not None), default=None),
            positions=offsets,
            late_ranges=[
                LateRange(
                    source=(topic, partition, incarnation),
                    last_offset=last_offset,
                    min_late_us=min_late_us,
                    max_late_us=max_late_us,
                )
                for topic, partition, incarnation, last_offset, min_late_us, max_late_us in late
            ],
        )
