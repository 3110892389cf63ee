"""`outrider fit STREAM` without a file, on a real broker: the events that it reads, and the end of its waiting."""

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from consumers.kafka.source import KafkaSource
from storage.control.models import ModelStore
from storage.database.engine import Database
from storage.ledger.ledger import Ledger
from tests.daemon.events import BurstStream, produce_records
from tests.servers.kafka import KafkaServer

RECORDS = BurstStream(events=3_000, seconds=3_000).records()
TIMEOUT_S = 90.0
HOME = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitBench:
    """A configuration with stream `payments` of one topic."""

    folder: Path
    topic: str

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'outrider.db'}"

    def fit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `outrider fit payments`; it must end by itself."""
        command = [sys.executable, "-m", "monitor.cli.main", "-c", str(self.folder / "outrider.yaml")]
        return subprocess.run(
            [*command, "fit", "payments", "--n-components", "1", *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            cwd=HOME,
            check=False,
        )

    def fitted_events(self) -> list[int]:
        """Return the number of training events of each stored model."""
        with Database(self.url) as db:
            stream_id = Ledger(db).find_stream("payments")
            assert stream_id is not None
            return [model.summary["events"] for model in ModelStore(db).list(stream_id)]


@pytest.fixture
def make_bench(tmp_path: Path, kafka_server: KafkaServer, kafka_topic: Callable[..., str]) -> Callable[..., FitBench]:
    def make(records: list[bytes], *, partitions: int = 2, start: str = "earliest", warm_up: int = 10_000) -> FitBench:
        topic = kafka_topic(partitions)
        produce_records(kafka_server, topic, records, partitions)
        bench = FitBench(folder=tmp_path, topic=topic)
        (tmp_path / "outrider.yaml").write_text(
            f"""
database: {{url: '{bench.url}'}}
kafka: {{bootstrap_servers: ["{kafka_server.bootstrap}"]}}
streams:
  payments:
    source: {{type: kafka, topics: ["{topic}"], start: {start}}}
    event: {{time: {{field: ts}}, id: id}}
    model: {{warm_up: {warm_up}}}
"""
        )
        return bench

    return make


def test_fit_ends_at_the_end_of_the_topic_and_says_how_many_events_it_has(make_bench: Callable[..., FitBench]) -> None:
    bench = make_bench(RECORDS)
    done = bench.fit()
    assert done.returncode == 0, done.stderr
    assert "reading its first 10,000 events" in done.stderr
    assert f"{bench.topic}[0] (offsets 0 to 1,500)" in done.stderr
    assert "the log has 3,000 usable events up to its end, not 10,000" in done.stderr
    assert bench.fitted_events() == [3_000]


def test_fit_on_too_few_events_exits_with_2_and_names_the_rejected_records(
    make_bench: Callable[..., FitBench],
) -> None:
    done = make_bench([*RECORDS[:40], *[b"{"] * 30]).fit()
    assert done.returncode == 2
    assert "there are 40 usable events (30 records were rejected: not_json 30" in done.stderr
    assert "needs at least 50: wait for more events" in done.stderr


def test_fit_on_an_empty_topic_exits_with_2(make_bench: Callable[..., FitBench]) -> None:
    done = make_bench([]).fit()
    assert done.returncode == 2
    assert "no record is retained" in done.stderr


def test_fit_of_a_stream_that_starts_at_the_end_takes_retained_events(make_bench: Callable[..., FitBench]) -> None:
    bench = make_bench(RECORDS, start="latest", warm_up=500)
    done = bench.fit()
    assert done.returncode == 0, done.stderr
    assert "reading the newest 500 retained events" in done.stderr
    assert bench.fitted_events() == [500]


def test_fit_of_a_stream_with_a_model_takes_the_newest_events(
    make_bench: Callable[..., FitBench], kafka_server: KafkaServer
) -> None:
    bench = make_bench(RECORDS, warm_up=400)
    assert bench.fit().returncode == 0
    with Database(bench.url) as db, closing(KafkaSource([bench.topic], [kafka_server.bootstrap])) as source:
        # The daemon has read the topic to its end.
        stream_id = Ledger(db).find_stream("payments")
        assert stream_id is not None
        ends = {each.partition.partition: each.end for each in source.discover()}
        with db.write() as conn:
            for each in Ledger(db).active_sources(stream_id):
                conn.exec_driver_sql(f"UPDATE positions SET next_offset = {ends[each.partition]}")
    done = bench.fit()
    assert done.returncode == 0, done.stderr
    assert "reading the newest 400 retained events" in done.stderr
    assert bench.fitted_events() == [400, 400]


def test_last_and_since_choose_retained_events(make_bench: Callable[..., FitBench]) -> None:
    bench = make_bench(RECORDS, partitions=3)
    for arguments in (("--last", "700"), ("--since", "10m"), ("--since", "10m", "--last", "100")):
        done = bench.fit(*arguments)
        assert done.returncode == 0, done.stderr
        assert re.search(r"reading the (newest \d+ )?retained events", done.stderr)
    last, since, both = bench.fitted_events()
    assert (last, both) == (700, 100)
    assert 500 < since < 700, "one event a second"
