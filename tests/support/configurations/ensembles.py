"""Configurations of ensembles: steps that exist, tensors that connect and fit."""

from __future__ import annotations

from configurations.case import Case, X, Y, model, refused, served, stricter, tensor, two

STEP = {
    "batching": served("batching", model()),
    "whole": served("whole", model(batch=0, x=X.replace("[ 2 ]", "[ -1, 2 ]"), y=Y.replace("[ 2 ]", "[ -1, 2 ]"))),
    "optional": served(
        "optional",
        model(x=two("input", "z", "optional: true")),
    ),
    "streaming": served("streaming", model("model_transaction_policy { decoupled: true }")),
    "wide": served("wide", model(x=X.replace("[ 2 ]", "[ -1 ]"), y=Y.replace("[ 2 ]", "[ -1 ]"))),
}
"""Models that the steps name."""


def step(source: str = "x", target: str = "y", *, of: str = "batching", version: int = -1, more: str = "") -> str:
    """One step."""
    return (
        f'step {{ model_name: "{of}" model_version: {version} input_map {{ key: "x" value: "{source}" }} '
        f'output_map {{ key: "y" value: "{target}" }} {more} }}'
    )


def ensemble(*steps: str, more: str = "", platform: str = 'platform: "ensemble"', **blocks) -> str:
    """An ensemble."""
    return model(f"ensemble_scheduling {{ {' '.join(steps)} }} {more}", backend=platform, **{"instances": "", **blocks})


S = "ensemble_scheduling.step"
WARM = 'model_warmup [ { name: "w" batch_size: 1 inputs { key: "x" value { dims: [ 2 ] zero_data: true } } } ]'

# fmt: off
CASES: list[Case] = [
    *STEP.values(),
    served("an ensemble", ensemble(step())),
    served("an ensemble of two steps", ensemble(step("x", "between"), step("between", "y"))),
    served("an ensemble whose steps are written backwards", ensemble(step("between", "y"), step("x", "between"))),
    served("an ensemble that takes a tensor twice",
        ensemble(step("x", "y"), step("x", "z"), y=two("output", "z"))),
    served("an ensemble of ensembles", ensemble(step(of="an_ensemble"))),
    refused("an ensemble of itself", "ensemble-cycle", f"{S}[0].model_name",
        ensemble(step(of="an_ensemble_of_itself"))),
    refused("an ensemble around another", "ensemble-cycle", f"{S}[0].model_name",
        ensemble(step(of="an_ensemble_around_the_first"))),
    refused("an ensemble around the first", "ensemble-cycle", f"{S}[0].model_name",
        ensemble(step(of="an_ensemble_around_another"))),
    refused("an ensemble with a cycle", "never-ready", f'{S}[0].input_map["x"].value',
        ensemble(step("b", "a"), step("a", "b"), step("x", "y"))),
    refused("an ensemble whose output waits for a cycle", "never-ready", f'{S}[0].input_map["x"].value',
        ensemble(step("b", "a"), step("a", "b"), step("a", "y"), x="")),
    refused("an ensemble with a step of its own output", "never-ready", f'{S}[0].input_map["x"].value',
        ensemble(step("y", "y"))),
    refused("an ensemble with an input that no step takes", "unused", "input[1]",
        ensemble(step(), x=two("input", "never"))),
    refused("an ensemble with a tensor that no step takes", "unused", f'{S}[1].output_map["y"].value',
        ensemble(step(), step("x", "never"))),
    refused("an ensemble with a tensor from nowhere", "never-ready", f'{S}[0].input_map["x"].value',
        ensemble(step("nowhere"))),
    refused("an ensemble with an output that no step makes", "never-ready", "output[0].name",
        ensemble(step("x", "other"), step("other", "more"))),
    served("an ensemble whose output is its input",
        ensemble(step(), y=two("output", "x"))),
    refused("an ensemble with a tensor made twice", "made-twice", f'{S}[1].output_map["y"].value',
        ensemble(step(), step())),
    stricter("an ensemble that makes its own input", "made-twice", f'{S}[1].output_map["y"].value',
        ensemble(step(), step("x", "x"))),
    refused("an ensemble without steps", "ensemble", "ensemble_scheduling", ensemble()),
    refused("an ensemble without scheduling", "ensemble", "ensemble_scheduling",
        model(backend='platform: "ensemble"', instances="")),
    refused("an ensemble of another platform", "ensemble", "platform", ensemble(step(), platform="")),
    refused("an ensemble with a backend", "ensemble", "backend",
        ensemble(step(), platform='platform: "ensemble" backend: "python"')),
    refused("an ensemble with instances", "ensemble", "instance_group",
        ensemble(step(), instances="instance_group [ { count: 1 kind: KIND_CPU } ]")),
    refused("an ensemble with a warm up", "ensemble", "model_warmup", ensemble(step(), more=WARM)),
    refused("an ensemble with an optimization", "ensemble", "optimization",
        ensemble(step(), more="optimization { priority: PRIORITY_MAX }")),
    refused("an ensemble with a dynamic batcher", "syntax", "", ensemble(step(), more="dynamic_batching { }")),
    refused("an ensemble without a version folder", "versions-present", "", ensemble(step()), {}),
    refused("a step without a model", "ensemble-step", f"{S}[0].model_name", ensemble(step(of=""))),
    refused("a step of an unknown model", "ensemble-step", f"{S}[0].model_name", ensemble(step(of="unknown"))),
    served("a step of a version", ensemble(step(version=1))),
    refused("a step of a version that is not served", "ensemble-step", f"{S}[0].model_version",
        ensemble(step(version=7))),
    refused("a step without inputs", "ensemble-step", f"{S}[0]",
        ensemble('step { model_name: "batching" model_version: -1 output_map { key: "y" value: "y" } }', x="")),
    refused("a step without outputs", "ensemble-step", f"{S}[0]",
        ensemble('step { model_name: "batching" model_version: -1 input_map { key: "x" value: "x" } }', y="")),
    refused("a step with an input that the model has not", "ensemble-step", f'{S}[0].input_map["z"]',
        ensemble(step(more='input_map { key: "z" value: "x" }'))),
    refused("a step with an output that the model has not", "ensemble-step", f'{S}[0].output_map["z"]',
       
        ensemble(step(more='output_map { key: "z" value: "z" }'), y=two("output", "z"))),
    refused("a step without an input of the model", "ensemble-step", f"{S}[0]",
        ensemble(step(of="optional").replace('key: "x"', 'key: "z"'))),
    served("a step without an optional input", ensemble(step(of="optional"))),
    refused("an ensemble with an input of another type", "fit", f'{S}[0].input_map["x"].value',
        ensemble(step(), x=X.replace("FP32", "INT32"))),
    refused("an ensemble with an input of another shape", "fit", f'{S}[0].input_map["x"].value',
        ensemble(step(), x=X.replace("[ 2 ]", "[ 3 ]"))),
    refused("an ensemble with an output of another type", "fit", "output[0]",
        ensemble(step(), y=Y.replace("FP32", "INT32"))),
    refused("an ensemble with an output of another shape", "fit", "output[0]",
        ensemble(step(), y=Y.replace("[ 2 ]", "[ 3 ]"))),
    served("a step that the graph completes", ensemble(step(of="no_configuration_beside_a_graph"), batch=4)),
    refused("a larger batch than a step that the graph completes", "ensemble-batch", "max_batch_size",
        ensemble(step(of="no_configuration_beside_a_graph"), batch=8)),
    served("a step that model.py completes", ensemble(step(of="a_model_py_that_completes_its_tensors"))),
    served("an ensemble with an input that is open", ensemble(step(), x=X.replace("[ 2 ]", "[ -1 ]"))),
    served("a step that is open", ensemble(step(of="wide"))),
    served("a batching step in an ensemble without batching",
        ensemble(step(), batch=0, x=X.replace("[ 2 ]", "[ -1, 2 ]"), y=Y.replace("[ 2 ]", "[ -1, 2 ]"))),
    served("a batching step in an ensemble without batching and with the step's dims", ensemble(step(), batch=0)),
    refused("a batching step in an ensemble of another rank", "fit", f'{S}[0].input_map["x"].value',
        ensemble(step(), batch=0, x=X.replace("[ 2 ]", "[ -1, 2, 2 ]"))),
    served("a whole step in an ensemble that batches", ensemble(step(of="whole"))),
    served("a whole and a batching step", ensemble(step("x", "between", of="whole"), step("between", "y"))),
    served("a larger batch than a whole step's", ensemble(step(of="whole"), batch=64)),
    refused("a larger batch than a step's", "ensemble-batch", "max_batch_size", ensemble(step(), batch=9)),
    served("a smaller batch than a step's", ensemble(step(), batch=4)),
    served("an ensemble with a reshaped input",
        ensemble(step(), x=tensor("input", "dims: [ 1, 2 ] reshape { shape: [ 2 ] }"))),
    served("an ensemble with a cache", ensemble(step(), more="response_cache { enable: true }")),
    served("an ensemble with a parameter",
        ensemble(step(), more='parameters { key: "any" value { string_value: "1" } }')),
    served("an ensemble of a step behind a streaming one",
        ensemble(step("x", "between", of="streaming"), step("between"))),
    refused("an ensemble of a step that streams meet in", "streams", f"{S}[1]",
        ensemble(step("x", "between", of="streaming"),
            step("between", of="optional", more='input_map { key: "z" value: "x" }'))),
    refused("an ensemble that streams meet in", "streams", "output",
        ensemble(step(of="streaming"), step("x", "z"), y=two("output", "z"))),
    served("an ensemble of a streaming step", ensemble(step(of="streaming"))),
]
# fmt: on
