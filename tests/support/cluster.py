"""Resources of deploy/kubernetes as kustomize makes them, their schemas, and a plan for 20,000 requests a second."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from debian import needs

from loadtests.sizing import DeploymentPlan

CRDS = Path(__file__).parents[1] / "deploy" / "crds"
# Of KEDA and the Prometheus operator, which the validator does not carry: their schemas lie in crds/.
CUSTOM = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}
needs_kubectl = needs("kubectl", "kubectl 1.21 or newer, which is not Debian's kubernetes-client")
PLAN = DeploymentPlan(
    model="image_classifier",
    slo="p99=50ms",
    rate_per_s=20_000,
    replica_per_s=800,
    basis="proven",
    proven_per_s=800,
    headroom=0.2,
    spare=1,
    replicas=33,
    load_per_s=20_000 / 33,
    load_without_spare_per_s=625,
    expected_p99_ms=25.0,
    expected_p99_without_spare_ms=26.0,
    p99_is_upper_bound=False,
    p99_of="latency",
    max_queue_size=32,
    queue_timeout_us=40_000,
    cost_per_hour=None,
    cost_per_million=None,
    assumptions=(),
    doubts=(),
)


def build(folder: Path) -> dict[str, dict[str, Any]]:
    """The resources by kind."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}


def validate(resource: dict[str, Any]) -> None:
    """Hold a resource to the schema of its kind, in which every field is known."""
    if resource["kind"] in CUSTOM:
        jsonschema.validate(resource, json.loads((CRDS / f"{resource['kind']}.json").read_text()))
    else:
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
