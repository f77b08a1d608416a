"""deploy/kubernetes, put together by the real kustomize and validated against the schemas of the Kubernetes API."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from cluster import CUSTOM, PLAN, build, needs_kubectl, validate
from debian import needs
from replica import ROOT

from deploy.kubernetes import rules
from fathom import kubernetes
from server.command import container_options, triton_command

pytestmark = pytest.mark.process

FOLDER = ROOT / "deploy" / "kubernetes"
BASE, GPU, MODELS = FOLDER / "base", FOLDER / "overlays" / "gpu", FOLDER / "models"


@needs_kubectl
@pytest.mark.parametrize("folder", [BASE, GPU], ids=["base", "gpu"])
def test_the_api_schemas_accept_every_resource(folder: Path) -> None:
    resources = build(folder)
    assert resources.keys() == CUSTOM | {
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
    }
    for resource in resources.values():
        validate(resource)


def misspelt(name: str, *path: str | int) -> dict[str, Any]:
    """A resource of the base with one more field, which does not exist, at `path`."""
    resource: dict[str, Any] = yaml.safe_load((BASE / f"{name}.yaml").read_text())
    place: Any = resource
    for step in path:
        place = place[step]
    place["periodSecond"] = 1
    return resource


@pytest.mark.parametrize(
    "resource",
    [
        pytest.param(misspelt("deployment", "spec", "template", "spec", "containers", 0, "livenessProbe"), id="core"),
        pytest.param(misspelt("scaledobject", "spec", "advanced", "horizontalPodAutoscalerConfig"), id="KEDA"),
        pytest.param(misspelt("servicemonitor", "spec", "endpoints", 0), id="operator"),
    ],
)
def test_the_validators_can_fail(resource: dict[str, Any]) -> None:
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError), match="periodSecond"):
        validate(resource)


@needs("promtool", "prometheus")
def test_prometheus_accepts_the_operators_copy_of_the_rules(tmp_path: Path) -> None:
    """The operator makes one file of it, in which no two groups may have one name."""
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules.resource()["spec"]))
    done = subprocess.run(["promtool", "check", "rules", "rules.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_number_where_keda_wants_text_is_refused() -> None:
    resource = yaml.safe_load((BASE / "scaledobject.yaml").read_text())
    resource["spec"]["triggers"][0]["metadata"]["threshold"] = 100
    with pytest.raises(jsonschema.ValidationError, match="100"):
        validate(resource)


@needs_kubectl
@pytest.mark.parametrize("folder", [BASE, GPU], ids=["base", "gpu"])
def test_the_pod_starts_stops_and_is_confined_as_triton_needs(folder: Path) -> None:
    pod = build(folder)["Deployment"]["spec"]["template"]["spec"]
    (triton,) = pod["containers"]
    assert triton["args"] == triton_command(
        container_options(
            config_name="gpu",
            admin_token="$(TRITON_ADMIN_TOKEN)",
            exit_timeout_s=30,
            trace_url="http://traces:4318/v1/traces",
        )
    )
    assert triton["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    assert triton["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    startup = triton["startupProbe"]
    assert startup["httpGet"]["path"] == "/v2/health/ready"
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600
    pre_stop_s = int(triton["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= pre_stop_s + 30 + 10
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert triton["securityContext"]["readOnlyRootFilesystem"] is True
    assert triton["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert all(mount["readOnly"] for mount in triton["volumeMounts"] if mount["name"] == "models")


@needs_kubectl
def test_the_overlay_adds_one_gpu_and_takes_nothing_away() -> None:
    base, gpu = build(BASE), build(GPU)
    pod = gpu["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"].pop("nvidia.com/gpu") == "1"
    del pod["tolerations"]
    assert gpu == base


@needs_kubectl
def test_a_pod_reaches_the_clusters_dns_and_the_traces_alone() -> None:
    resources = build(GPU)
    egress = resources["NetworkPolicy"]["spec"]["egress"]
    assert [sorted({port["port"] for port in rule["ports"]}) for rule in egress] == [[53], [4318]]
    assert all(rule["to"] for rule in egress)
    assert resources["PodDisruptionBudget"]["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@needs_kubectl
def test_selectors_select_the_pods_and_ports_exist() -> None:
    resources = build(GPU)
    labels = resources["Deployment"]["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for port in resources["Deployment"]["spec"]["template"]["spec"]["containers"][0]["ports"]}
    service = resources["Service"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= labels.items()
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports
    for kind, key in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        assert resources[kind]["spec"][key]["matchLabels"].items() <= labels.items()
    monitor = resources["ServiceMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= {
        port["name"] for port in service["spec"]["ports"]
    }
    assert resources["ScaledObject"]["spec"]["scaleTargetRef"]["name"] == resources["Deployment"]["metadata"]["name"]


@pytest.mark.parametrize("file", [BASE / "deployment.yaml", MODELS / "pod.yaml"], ids=lambda file: file.stem)
def test_the_image_is_the_one_that_compose_builds(file: Path) -> None:
    tag = re.search(r"^TRITON_TAG=(\S+)$", (ROOT / ".env.example").read_text(), re.M)[1]
    assert f"image: fathom/triton:{tag}\n" in file.read_text()


@needs_kubectl
def test_the_models_lie_in_the_claim_that_the_replicas_mount() -> None:
    models, pod = build(MODELS), build(BASE)["Deployment"]["spec"]["template"]["spec"]
    for resource in models.values():
        validate(resource)
    claim = models["PersistentVolumeClaim"]["metadata"]["name"]
    for mounting in (pod, models["Pod"]["spec"]):
        (volume,) = [each for each in mounting["volumes"] if each["name"] == "models"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim
        assert mounting["securityContext"] == pod["securityContext"]


@needs_kubectl
def test_a_plan_becomes_a_patch_that_kustomize_takes(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes" / "overlays" / "planned"
    (overlay / "plan.yaml").write_text(kubernetes.patch(PLAN))
    resources = build(overlay)
    scaled = resources["ScaledObject"]["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"], scaled["fallback"]["replicas"]) == (2, 33, 33)
    (trigger,) = scaled["triggers"]
    (unplanned,) = build(GPU)["ScaledObject"]["spec"]["triggers"]
    assert trigger["metadata"].keys() == unplanned["metadata"].keys()
    threshold = float(trigger["metadata"]["threshold"])
    assert threshold == 640
    kept = float(trigger["metadata"]["query"].rsplit("+", 1)[1])
    # What KEDA asks for: the query over the threshold, rounded up.
    assert math.ceil((20_000 + kept) / threshold) == PLAN.replicas
    assert math.ceil((1 + kept) / threshold) == 2
    annotations = resources["Deployment"]["metadata"]["annotations"]
    assert annotations["fathom/max-queue-size"] == "32"
    assert annotations["fathom/queue-timeout-microseconds"] == "40000"
    (triton,) = resources["Deployment"]["spec"]["template"]["spec"]["containers"]
    (unplanned_triton,) = build(GPU)["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert triton["readinessProbe"]["httpGet"] == {"path": "/v2/models/image_classifier/ready", "port": "http"}
    assert triton["startupProbe"] == unplanned_triton["startupProbe"]
    for resource in resources.values():
        validate(resource)
    assert scaled["advanced"] == build(GPU)["ScaledObject"]["spec"]["advanced"]
