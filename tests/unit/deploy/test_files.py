"""The files of `deploy/` parse and name commands, settings, ports, paths and secrets that exist."""

import configparser
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.loading import load
from config.metrics import split_address
from config.settings import Settings
from monitor.cli.main import COMMANDS

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
KUBERNETES: dict[str, dict[str, Any]] = {
    each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes" / "outrider.yaml").read_text())
}
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
PROBES = {"/livez", "/readyz", "/metrics"}


@pytest.fixture
def load_trial(tmp_path: Path) -> Callable[..., Settings]:
    """Return a function that loads a configuration with secrets in `tmp_path`."""

    def load_text(text: str, **environment: str) -> Settings:
        for name in ("database-url", "token", "link-secret"):
            (tmp_path / name).write_text("postgresql://a@b/c" if name == "database-url" else name * 8)
        file = tmp_path / "outrider.yaml"
        file.write_text(text.replace("/run/secrets/outrider", str(tmp_path)))
        return load(file, environment)

    return load_text


def test_the_configuration_of_the_trial_loads_and_its_ports_are_those_of_the_files(
    load_trial: Callable[..., Settings],
) -> None:
    settings = load_trial((DEPLOY / "compose" / "outrider.yaml").read_text(), OUTRIDER_TOKEN="t" * 32)
    assert settings.metrics is not None
    assert settings.server is not None
    metrics, page = split_address(settings.metrics.listen)[1], split_address(settings.server.listen)[1]
    prometheus = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())
    assert prometheus["scrape_configs"][0]["static_configs"][0]["targets"] == [f"outrider:{metrics}"]
    assert COMPOSE["services"]["outrider"]["ports"] == [f"127.0.0.1:{page}:{page}"]
    assert f"EXPOSE {page} {metrics}" in DOCKERFILE
    assert f":{metrics}/livez" in DOCKERFILE
    assert settings.kafka.bootstrap_servers == ("kafka:9092",)
    topic = next(each for each in COMPOSE["services"]["topic"]["command"] if each.startswith("--topic="))
    assert topic == f"--topic={settings.streams['payments'].source.topics[0]}"  # type: ignore[union-attr]


def test_the_files_and_services_that_the_trial_names_exist() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
        for other in service.get("depends_on", ()):
            assert other in COMPOSE["services"]
        for config in service.get("configs", ()):
            assert (DEPLOY / COMPOSE["configs"][config["source"]]["file"]).is_file()
    sources = yaml.safe_load((DEPLOY / "compose/grafana/provisioning/datasources/outrider.yaml").read_text())
    dashboard = (DEPLOY / "mixin/dashboards/outrider.json").read_text()
    for each in sources["datasources"]:
        assert f'"{each["type"]}"' in dashboard


def test_the_container_of_the_trial_has_no_rights_that_it_does_not_need() -> None:
    outrider = COMPOSE["services"]["outrider"]
    assert outrider["read_only"] is True
    assert outrider["cap_drop"] == ["ALL"]
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_image_copies_what_exists_and_runs_a_command_that_exists() -> None:
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / each).exists() for each in line.split()[:-1]), line
    assert 'ENTRYPOINT ["outrider"]' in DOCKERFILE
    assert 'CMD ["run"]' in DOCKERFILE
    assert "run" in COMMANDS
    extras = re.search(r'"\.\[([a-z,]+)\]"', DOCKERFILE)
    assert extras is not None
    optional = re.search(
        r"\[project.optional-dependencies\]\n(.*?)\n\[", (ROOT / "pyproject.toml").read_text(), re.DOTALL
    )
    assert optional is not None
    assert all(re.search(rf"^{extra} = ", optional[1], re.MULTILINE) for extra in extras[1].split(","))


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_no_problem() -> None:
    done = subprocess.run(["hadolint", str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_configuration_of_kubernetes_loads_and_its_probes_and_ports_exist(
    load_trial: Callable[..., Settings],
) -> None:
    settings = load_trial(KUBERNETES["ConfigMap"]["data"]["outrider.yaml"])
    assert settings.metrics is not None
    assert settings.server is not None
    pod = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {
        "page": split_address(settings.server.listen)[1],
        "metrics": split_address(settings.metrics.listen)[1],
    }
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = container[name]["httpGet"]
        assert probe["path"] in PROBES
        assert probe["port"] == "metrics"
    assert container["args"][0] in COMMANDS
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    assert {each["targetPort"] for each in KUBERNETES["Service"]["spec"]["ports"]} == set(ports)


def test_kubernetes_selects_the_pods_and_keeps_one_running() -> None:
    deployment = KUBERNETES["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    assert KUBERNETES["Service"]["spec"]["selector"].items() <= labels.items()
    budget = KUBERNETES["PodDisruptionBudget"]["spec"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    assert budget["minAvailable"] < deployment["replicas"]
    container = deployment["template"]["spec"]["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert deployment["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    assert "memory" in container["resources"]["limits"]


def read_unit() -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DEPLOY / "systemd" / "outrider.service")
    return dict(parser["Service"])


def test_the_unit_runs_a_command_that_exists_and_waits_for_its_ready_message() -> None:
    unit = read_unit()
    program, *arguments = unit["ExecStart"].split()
    assert Path(program).name == "outrider"
    assert arguments[0] == "--config"
    assert arguments[2] in COMMANDS
    assert (unit["Type"], unit["NotifyAccess"]) == ("notify", "main")
    assert unit["WatchdogSec"] == "60s"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit_and_rates_its_exposure_below_2(tmp_path: Path) -> None:
    program = tmp_path / "outrider"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "outrider.service"
    text = (DEPLOY / "systemd" / "outrider.service").read_text()
    unit.write_text(text.replace("/opt/outrider/bin/outrider", str(program)))
    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
    rated = subprocess.run(command, capture_output=True, text=True, check=False)
    assert rated.returncode == 0, rated.stdout
