"""Fetch the programs of the test servers (`python -m tests.servers`), so that no test waits for a download."""

import subprocess
import sys

from tests.servers.downloads import find_java, kafka_jars, postgres_binaries
from tests.servers.process import ServerError


def main() -> int:
    """Fetch Kafka's jars if they are missing, find PostgreSQL, and print their locations."""
    try:
        jars = kafka_jars()
        print(f"Kafka:      {len(list(jars.glob('*.jar')))} jars in {jars}, run by {find_java()}")
        postgres = postgres_binaries() / "postgres"
        version = subprocess.run([str(postgres), "--version"], capture_output=True, text=True, check=True)
        print(f"PostgreSQL: {version.stdout.strip()} in {postgres.parent}")
    except ServerError as error:
        print(f"tests.servers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
