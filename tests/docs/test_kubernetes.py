"""The manifests in deploy/kubernetes are what Kubernetes takes, and fit to each other and to the app."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from edda import EddaApp
from edda.http.routes import Health, Readiness, route_of
from tests.docs.pages import ROOT

MANIFESTS = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
MOUNTED_AT = "/workflows"


def manifest(name: str) -> Any:
    return yaml.safe_load((ROOT / "deploy" / "kubernetes" / f"{name}.yaml").read_text(encoding="utf-8"))


def test_each_manifest_is_valid() -> None:
    command = Path(sys.executable).with_name("kubernetes-validate")
    subprocess.run([command, "--strict", *MANIFESTS], check=True, capture_output=True, timeout=60)


def test_the_selectors_find_the_pods() -> None:
    labels = manifest("deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("deployment")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("service")["spec"]["selector"] == labels
    assert manifest("pdb")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("hpa")["spec"]["scaleTargetRef"]["name"] == manifest("deployment")["metadata"]["name"]


def test_the_probes_ask_what_the_app_answers() -> None:
    (container,) = manifest("deployment")["spec"]["template"]["spec"]["containers"]
    routes = {probe: route(container[probe]["httpGet"]["path"]) for probe in ("livenessProbe", "readinessProbe")}
    assert routes == {"livenessProbe": Health(), "readinessProbe": Readiness()}


def route(path: str) -> object:
    return route_of("GET", path.removeprefix(MOUNTED_AT), handshake=False)


def test_a_pod_has_longer_to_end_than_everything_that_it_waits_for() -> None:
    pod = manifest("deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    command = container["command"]
    pre_stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    requests = int(command[command.index("--timeout-graceful-shutdown") + 1])
    activities = inspect.signature(EddaApp).parameters["shutdown_grace_seconds"].default
    assert pod["terminationGracePeriodSeconds"] > pre_stop + requests + activities
