"""The manifests in `deploy/`, compared with the server's real options and paths."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ripieno.server import Limits, build_app
from ripieno.types import Bundle
from tests.server.stand_in import ROOT, StandIn

DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def objects() -> dict[str, dict[str, Any]]:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML to read the Kubernetes manifests")
    found = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    return {one["kind"]: one for one in found}


def options_of(words: list[str]) -> set[str]:
    return {word for word in words if word.startswith("--")}


@pytest.fixture(scope="module")
def known_options() -> set[str]:
    from typer.main import get_command

    from ripieno.cli.main import app

    serve = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return {name for parameter in serve.params for name in parameter.opts}


def test_probes_ask_for_what_is_there_and_needs_no_token(objects: dict[str, Any], bundle: Bundle) -> None:
    from ripieno.server.app import OPEN

    container = objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    paths = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    paths |= set(re.findall(r":8000(/[^']+)'", (DEPLOY / "Dockerfile").read_text()))
    engine = StandIn(bundle)
    routes = {route.path for route in build_app(engine).router.routes}  # type: ignore[attr-defined]
    engine.close()
    assert paths <= routes & OPEN


def test_the_grace_period_is_longer_than_the_drain(objects: dict[str, Any]) -> None:
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    before = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= before + Limits().grace + 5
    stop = re.search(r"TimeoutStopSec=(\d+)", (DEPLOY / "ripieno.service").read_text())
    assert stop is not None
    assert int(stop[1]) >= Limits().grace + 5


def test_selectors_and_ports_agree(objects: dict[str, Any]) -> None:
    deployment, service = objects["Deployment"]["spec"], objects["Service"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels == service["selector"]
    names = {port["name"] for port in deployment["template"]["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["ports"]} == names


def test_the_commands_have_only_options_that_exist(known_options: set[str]) -> None:
    service = re.search(r"ExecStart=(.*)", (DEPLOY / "ripieno.service").read_text())
    entry = re.search(r"ENTRYPOINT \[(.*)\]", (DEPLOY / "Dockerfile").read_text())
    assert service is not None
    assert entry is not None
    assert options_of(shlex.split(service[1])) <= known_options
    assert options_of(shlex.split(entry[1].replace(",", " "))) <= known_options


def test_what_the_image_copies_is_there() -> None:
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY") and "--from" not in line:
            assert all((ROOT / name).exists() for name in line.split()[1:-1]), line


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    unit = (DEPLOY / "ripieno.service").read_text().replace("/opt/ripieno/bin/ripieno", "/bin/true")
    (tmp_path / "ripieno.service").write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "ripieno.service")], capture_output=True, text=True, timeout=60
    )
    complaints = [line for line in done.stderr.splitlines() if "ripieno.service" in line]
    assert complaints == []
