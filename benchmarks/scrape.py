"""The cost of a scrape and of a rendering of the metrics, of health reports and of their judgement, by streams.

`python -m benchmarks.scrape [STREAMS]` (default 500) stores that many streams in an SQLite file, with four partitions
and a report each, and prints medians of the CPU time in milliseconds. A scrape returns the rendered text; the job
`metrics` renders it, and the job `health` reports and judges, every 5 seconds.
"""

import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from config.metrics import MetricsSettings
from monitor.health.stream_health import judge_streams
from monitor.metrics.counters import StreamCounters
from monitor.metrics.endpoint import MetricsEndpoint
from monitor.metrics.exposition import Exposition, ProcessFacts, StreamProgress, render_metrics
from monitor.metrics.probes import ProbeResult
from monitor.notify.delivery_counts import DeliveryNumbers
from storage.control.health import HealthReport, HealthStore
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from storage.ledger.ledger import Ledger
from storage.ledger.sources import NewSource
from storage.queries.health import read_health, read_health_facts
from storage.queries.metric_facts import read_metric_facts

_PARTITIONS = 4
_REPEATS = 9


def main() -> None:
    """Measure and print the CPU times."""
    n_streams = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory() as folder, Database(f"sqlite:///{Path(folder) / 'outrider.db'}") as db:
        ids = store_streams(db, n_streams)
        names, store = list(ids), HealthStore(db)
        report = HealthReport(component="stream", state="running", since_us=db.now_us(), lag_events=0, waiting_s=0.0)
        reports = {each: [report] for each in ids.values()}
        print(f"{n_streams} streams, median CPU time of {_REPEATS} in ms")
        show("store reports", lambda: store.replace_reports("host:1:1", reports))
        show("read and judge health", lambda: judge_streams(read_health_facts(db, names)))
        show("view health", lambda: read_health(db))
        facts = read_metric_facts(db, names)
        show("read facts of metrics", lambda: read_metric_facts(db, names))
        health = judge_streams(read_health_facts(db, names))
        progress = {
            name: StreamProgress(waiting_s=0.0, lag_events=0, health=each.state) for name, each in health.items()
        }
        counters = {name: StreamCounters() for name in names}
        process = ProcessFacts(
            version="1",
            config_hashes=dict.fromkeys(names, "abc"),
            owner="host:1:1",
            last_reload_succeeded=True,
            with_partitions=False,
            deliveries=DeliveryNumbers(delivered={}, failed={}, dead={}, template_failures={}),
            job_runs={},
        )
        show("render", lambda: render_metrics(counters, progress, facts, process))
        exposition = render_metrics(counters, progress, facts, process)
        series = sum(1 for line in exposition.text.splitlines() if not line.startswith(b"#"))
        print(f"{series / n_streams:.0f} series a stream, {len(exposition.text) / 1e6:.1f} MB")
        measure_scrape(exposition)


def store_streams(db: Database, n_streams: int) -> dict[str, int]:
    """Store streams with partitions; return their ids by name."""
    upgrade(db)
    ledger, ids = Ledger(db), {}
    for number in range(n_streams):
        name = f"stream-{number:04}"
        ids[name] = ledger.open_stream(name, window_size_us=60_000_000, lead_us=600_000_000).id
        new = [NewSource(topic=name, partition=p, identity="1", next_offset=0) for p in range(_PARTITIONS)]
        sources = ledger.register_sources(ids[name], new)
        ledger.claim_sources([each.source_id for each in sources], "host:1:1:1")
    return ids


def measure_scrape(exposition: Exposition) -> None:
    """Scrape an endpoint with the exposition, over HTTP on the loopback."""
    healthy = ProbeResult(is_ok=True, lines=["ok"])
    endpoint = MetricsEndpoint(MetricsSettings(listen="127.0.0.1:0"), live=lambda: healthy, ready=lambda: healthy)
    endpoint.publish(exposition)
    show("answer a scrape (CPU of the daemon)", lambda: endpoint.answer("/metrics", "text/plain"))
    endpoint.start()
    try:
        show("scrape over HTTP", lambda: urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics").read())
    finally:
        endpoint.stop()


def show(name: str, work: Callable[[], object]) -> None:
    """Print the median CPU time of some work."""
    cpu_ms = []
    for _ in range(_REPEATS):
        started_s = time.process_time()
        work()
        cpu_ms.append((time.process_time() - started_s) * 1e3)
    print(f"{name}: {statistics.median(cpu_ms):.2f}")


if __name__ == "__main__":
    main()
