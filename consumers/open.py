"""Construction of a stream's source from the settings."""

from typing import assert_never

from config.errors import ConfigError
from config.settings import Settings
from config.sources import FileSourceSettings, KafkaSourceSettings, SyntheticSourceSettings
from config.units import to_us
from consumers.files.source import FileSource
from consumers.source import Source
from consumers.synthetic.plan import SyntheticPlan
from consumers.synthetic.source import SyntheticSource


def open_source(stream_name: str, settings: Settings, *, group: bool, identity: str | None = None) -> Source:
    """Build the source of a stream. No broker is contacted before the first call of the source.

    Args:
        stream_name: The name of a stream in the settings.
        settings: All settings, including those shared by the streams.
        group: Share Kafka's partitions with other processes through the consumer group. Without it the source
            reads all partitions, and the group is only used to publish positions for lag monitors.
        identity: The identity of the partition from an earlier process. A synthetic stream uses its start time.

    Raises:
        ConfigError: The stream does not exist, or its source cannot be opened as configured.
    """
    stream = settings.streams.get(stream_name)
    if stream is None:
        known = ", ".join(settings.streams)
        raise ConfigError(f"there is no stream {stream_name!r}; known streams: {known}")
    source = stream.source
    match source:
        case KafkaSourceSettings():
            # Imported here, so that file streams start without loading the Kafka client (0.3 s).
            from consumers.kafka.client import ReadLimits  # noqa: PLC0415
            from consumers.kafka.source import KafkaSource  # noqa: PLC0415

            return KafkaSource(
                source.topics,
                settings.kafka.bootstrap_servers,
                settings.kafka.client,
                group_id=source.group_id,
                join=group,
                limits=ReadLimits(max_decompressed_bytes=settings.kafka.max_decompressed_size),
            )
        case FileSourceSettings():
            return FileSource(source.path, max_event_bytes=stream.event.max_size)
        case SyntheticSourceSettings():
            return _open_synthetic(source, identity)
        case _:
            assert_never(source)


def _open_synthetic(source: SyntheticSourceSettings, identity: str | None) -> SyntheticSource:
    plan = SyntheticPlan(
        seed=source.seed,
        rate=source.rate,
        n_features=source.features,
        partitions=source.partitions,
        first_burst_us=to_us(source.first_burst),
        burst_every_us=to_us(source.burst_every),
        burst_length_us=to_us(source.burst_length),
        burst_share=source.burst_share,
        drift_after_us=None if source.drift_after is None else to_us(source.drift_after),
        drift_shift=source.drift_shift,
    )
    return SyntheticSource(plan, events=source.events, speed=source.speed, start_us=source.start, identity=identity)
