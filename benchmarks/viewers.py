"""Events per second of a daemon whose server has 50 viewers, against one without viewers.

Each viewer follows the live events and reads the overview every two seconds, as an open page does. Runs alternate:
`python -m benchmarks.viewers [--viewers 50] [--events 2000000] [--rounds 3] [--beside]`. With `--beside` the server
runs in a process of its own.
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import httpx2
import numpy as np
import yaml

_PAUSE_S = 2.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", action="store_true")
    parser.add_argument("--load", metavar="URL", help="Be the viewers of a server.")
    options = parser.parse_args()
    if options.load:
        asyncio.run(view_all(options.load, options.viewers, _PAUSE_S))
    rates: dict[int, list[float]] = {0: [], options.viewers: []}
    for _ in range(options.rounds):
        for viewers, found in rates.items():
            rate = run_once(options.events, viewers, beside=options.beside)
            found.append(rate)
            print(f"{viewers:3} viewers: {rate:,.0f} events/s", flush=True)
    without, watched = (float(np.median(each)) for each in rates.values())
    print(f"ratio {watched / without:.3f} (median of {options.rounds}); cost {100 * (1 - watched / without):.1f}%")


def run_once(events: int, viewers: int, *, beside: bool) -> float:
    """Return the events per second between a tenth and the end of a run."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "outrider.yaml"
        listen = "127.0.0.1:18080"
        config.write_text(yaml.safe_dump(build_settings(folder, events, None if beside else listen)))
        command = [sys.executable, "-m", "monitor.cli.main", "-c", str(config)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        others = []
        with subprocess.Popen([*command, "run"], **quiet) as daemon:
            if beside:
                wait_for_file(Path(folder) / "o.db")
                others.append(subprocess.Popen([*command, "serve", "--listen", listen], **quiet))
            wait_for_server(f"http://{listen}/api/v1/streams")
            if viewers:
                load = [sys.executable, __file__, "--load", f"http://{listen}", "--viewers", str(viewers)]
                others.append(subprocess.Popen(load, **quiet))
            rate = measure(Path(folder) / "o.db", events, daemon)
            daemon.wait(120)
        for each in others:
            each.terminate()
            each.wait(20)
        return rate


def build_settings(folder: str, events: int, listen: str | None) -> dict[str, object]:
    source = {"type": "synthetic", "seed": 1, "rate": 100, "events": events, "speed": 0, "partitions": 1}
    stream = {"source": source, "event": {"time": {"field": "ts"}}, "model": {"n_components": 2, "warm_up": 5_000}}
    server = {} if listen is None else {"server": {"listen": listen}}
    return {"database": {"url": f"sqlite:///{folder}/o.db"}, "streams": {"payments": stream}} | server


def measure(file: Path, events: int, daemon: "subprocess.Popen[bytes]") -> float:
    """Return the rate between the first tenth of the events and their end, by the position in the database."""
    began: tuple[float, int] | None = None
    position = 0
    while daemon.poll() is None and position < events:
        position = read_position(file)
        if began is None and position >= events // 10:
            began = time.perf_counter(), position
        time.sleep(0.02)
    assert began is not None and began[1] < events // 2, "the server started too late; use more --events"
    return (position - began[1]) / (time.perf_counter() - began[0])


def read_position(file: Path) -> int:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)) as connection:
        try:
            row = connection.execute("SELECT max(next_offset) FROM positions").fetchone()
        except sqlite3.OperationalError:
            return 0
        return int(row[0] or 0)


def wait_for_file(file: Path) -> None:
    while not file.exists():
        time.sleep(0.05)


def wait_for_server(url: str) -> None:
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)


async def view_all(base: str, viewers: int, pause_s: float) -> None:
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=base, timeout=60, limits=limits) as client:
        await asyncio.gather(*(view(client, number, pause_s) for number in range(viewers)))


async def view(client: httpx2.AsyncClient, number: int, pause_s: float) -> None:
    await asyncio.sleep(number * pause_s / 50)
    await asyncio.gather(follow(client), read_pages(client, pause_s))


async def follow(client: httpx2.AsyncClient) -> None:
    while True:
        try:
            async with client.stream("GET", "/api/v1/live") as answer:
                async for _ in answer.aiter_lines():
                    pass
        except httpx2.HTTPError:
            await asyncio.sleep(1)


async def read_pages(client: httpx2.AsyncClient, pause_s: float) -> None:
    while True:
        with contextlib.suppress(httpx2.HTTPError):
            await client.get("/", headers={"Accept": "text/html"})
        await asyncio.sleep(pause_s)


if __name__ == "__main__":
    main()
