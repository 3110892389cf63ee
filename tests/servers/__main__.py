"""Fetch the programs of the test servers (`python -m tests.servers`), so that no test waits for a download."""

import os
import subprocess
import sys

from tests.servers.browser import find_chromium
from tests.servers.downloads import find_java, kafka_jars, postgres_binaries
from tests.servers.process import ServerError


def main() -> int:
    """Fetch Kafka's jars if they are missing, find PostgreSQL and Chromium, and print their locations."""
    try:
        jars = kafka_jars()
        print(f"Kafka:      {len(list(jars.glob('*.jar')))} jars in {jars}, run by {find_java()}")
        postgres = postgres_binaries() / "postgres"
        version = subprocess.run([str(postgres), "--version"], capture_output=True, text=True, check=True)
        print(f"PostgreSQL: {version.stdout.strip()} in {postgres.parent}")
    except ServerError as error:
        print(f"tests.servers: {error}", file=sys.stderr)
        return 1
    return _find_browser()


def _find_browser() -> int:
    """Print the location of the browser. Without it the browser tests are skipped, except where CI is true."""
    try:
        print(f"Chromium:   {find_chromium()}")
    except ServerError as error:
        is_needed = os.environ.get("CI") == "true"
        print(f"tests.servers: {error}{'' if is_needed else '; they are skipped'}", file=sys.stderr)
        return 1 if is_needed else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
