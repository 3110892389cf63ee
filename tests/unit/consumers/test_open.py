"""Construction of sources from the settings."""

from pathlib import Path

import pytest

from config.errors import ConfigError
from config.settings import Settings
from consumers.files.source import FileSource
from consumers.kafka.source import KafkaSource
from consumers.open import open_source
from consumers.synthetic.source import SyntheticSource


def settings(source: dict[str, object], **event: object) -> Settings:
    return Settings.model_validate({"streams": {"payments": {"source": source, "event": event}}})


def test_kafka_source_is_built_without_contacting_a_broker() -> None:
    source = open_source("payments", settings({"type": "kafka", "topics": ["a"]}), group=True)
    assert isinstance(source, KafkaSource)
    assert source.layout == "lines"


def test_file_source_is_built_from_a_path(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_text("x\n1\n")
    source = open_source("payments", settings({"type": "file", "path": str(file)}), group=False)
    assert isinstance(source, FileSource)
    assert source.layout == "table"
    source.close()


def test_synthetic_source_is_built_from_its_settings() -> None:
    described = {"type": "synthetic", "seed": 7, "rate": 50, "features": 3, "partitions": 2, "burst_share": 0}
    source = open_source("payments", settings(described), group=False)
    assert isinstance(source, SyntheticSource)
    assert (source.plan.seed, source.plan.rate, source.plan.n_features) == (7, 50, 3)
    assert len(source.discover()) == 2
    assert source.plan.planted_anomalies(0, 10**12) == []


def test_synthetic_source_continues_with_the_start_of_an_earlier_process() -> None:
    described = settings({"type": "synthetic", "start": "2026-01-31T08:00:00Z"})
    earlier = open_source("payments", described, group=False).discover()[0].identity
    later = open_source("payments", described, group=False, identity=earlier)
    assert later.discover()[0].identity == earlier


def test_unknown_stream_error_lists_the_existing_ones() -> None:
    with pytest.raises(ConfigError, match="payments"):
        open_source("payment", settings({"type": "synthetic"}), group=False)
