"""A deployment plan as a kustomize patch for deploy/kubernetes: replicas, what to scale on, and the queue's limits."""

from __future__ import annotations

from loadtests.sizing import DeploymentPlan

_PATCH = """\
# {replicas} replicas of {model} sustain {rate:g}/s under {slo}, each for {each:.6g}/s ({basis}; fathom plan).
# deploy/kubernetes/overlays/planned lists a file plan.yaml beside it as its patch.{queue_note}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: triton
spec:
  minReplicaCount: {fewest}
  maxReplicaCount: {replicas}
  fallback: {{ failureThreshold: 4, replicas: {replicas} }}
  triggers:
    - type: prometheus
      metricType: AverageValue
      metadata:
        serverAddress: http://prometheus-operated.monitoring:9090
        # That rate less {headroom:.0%} of headroom; the last term of the query keeps {spare} spare.
        threshold: "{threshold:.6g}"
        ignoreNullValues: "false"
        query: >-
          sum(rate(nv_inference_request_success{{model="{model}"}}[1m]))
          + sum(rate(nv_inference_request_failure{{model="{model}",reason="REJECTED"}}[1m]))
          + {kept:.6g}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: triton
  annotations:
    fathom/planned-for: "{model} {rate:g}/s {slo}"{queue_annotations}
spec:
  template:
    spec:
      containers:
        - name: triton
          # The model's own readiness: unlike the server's it is false when a python model has crashed. Triton waits
          # up to 5 s for the answer of a python model, which may be busy.
          readinessProbe:
            httpGet: {{ path: /v2/models/{model}/ready, port: http }}
            timeoutSeconds: 6
            failureThreshold: 3
"""

_QUEUE_NOTE = """ The queue's limits are Triton's:
# in config.pbtxt of {model} set max_queue_size {queue} and default_timeout_microseconds {timeout}
# of default_queue_policy; the annotations record what was planned."""
_QUEUE_ANNOTATIONS = """
    fathom/max-queue-size: "{queue}"
    fathom/queue-timeout-microseconds: "{timeout}\""""


def patch(plan: DeploymentPlan) -> str:
    """The text of the patch. At the planned rate it asks for exactly the planned replicas."""
    threshold = plan.replica_per_s * (1 - plan.headroom)
    queue = {"model": plan.model, "queue": plan.max_queue_size, "timeout": plan.queue_timeout_us}
    limited = plan.max_queue_size is not None
    return _PATCH.format(
        model=plan.model,
        slo=plan.slo,
        rate=plan.rate_per_s,
        each=plan.replica_per_s,
        basis=plan.basis,
        headroom=plan.headroom,
        spare=plan.spare,
        replicas=plan.replicas,
        fewest=min(plan.spare + 1, plan.replicas),
        threshold=threshold,
        kept=plan.spare * threshold,
        queue_note=_QUEUE_NOTE.format(**queue) if limited else "",
        queue_annotations=_QUEUE_ANNOTATIONS.format(**queue) if limited else "",
    )
