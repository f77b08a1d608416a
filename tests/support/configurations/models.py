"""Configurations of one model: names, tensors, instances, warm-up, metrics; python models, since the backend is no
matter."""

from __future__ import annotations

from configurations.case import MODEL_PY, Case, X, Y, model, refused, served, stricter, tensor, two

COMPLETES_PY = (
    MODEL_PY
    + """
    @staticmethod
    def auto_complete_config(config):
        config.set_max_batch_size(8)
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [2]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [2]})
        return config
"""
)


def warm(value: str, batch: int = 1, name: str = "x") -> str:
    """A warm-up sample of one input."""
    return f'model_warmup [ {{ name: "w" batch_size: {batch} inputs {{ key: "{name}" value {{ {value} }} }} }} ]'


ZERO = "data_type: TYPE_FP32 dims: [ 2 ] zero_data: true"

# fmt: off
IDENTITY = [
    served("a complete model", model()),
    refused("a name that is not the folder's", "name", "name", model('name: "other"')),
    refused("a negative batch", "max-batch-size", "max_batch_size", model(batch=-1)),
    refused("an unknown field", "syntax", "max_batch_sise", model("max_batch_sise: 8")),
    refused("a value of another type", "syntax", "", model(batch="x")),
    refused("an unknown value of an enum", "syntax", "", model(y=Y.replace("FP32", "FP31"))),
    refused("a field written twice", "syntax", "", model("max_batch_size: 4")),
    refused("both batchers", "syntax", "", model("dynamic_batching { } sequence_batching { }")),
    stricter("a parameter that model.py does not read", "python-model", 'parameters["loss"]',
        model('parameters { key: "loss" value { string_value: "1" } }')),
    served("a parameter that model.py reads", model('parameters { key: "gain" value { string_value: "1" } }')),
    refused("a model.py that is not Python", "python-model", "default_model_filename", model(), {"1/model.py": "def"}),
    refused("a model.py without a model", "python-model", "default_model_filename", model(), {"1/model.py": "pass"}),
    served("a model.py that completes its tensors",
        model(warm(ZERO), x="", y="", batch=0), {"1/model.py": COMPLETES_PY}),
    served("a decoupled model", model("model_transaction_policy { decoupled: true }")),
    refused("a cache of a decoupled model", "response-cache", "response_cache",
        model("response_cache { enable: true } model_transaction_policy { decoupled: true }")),
    refused("a cache of sequences", "response-cache", "response_cache",
        model("response_cache { enable: true } sequence_batching { }")),
    served("a cache", model("response_cache { enable: true }")),
    refused("an unknown repository agent", "agents", "model_repository_agents.agents[0].name",
        model('model_repository_agents { agents [ { name: "nobody" } ] }')),
]
# fmt: on

# fmt: off
TENSORS = [
    refused("an input without a name", "tensor-name", "input[0]", model(x=X.replace('name: "x"', ""))),
    refused("an output without a name", "tensor-name", "output[0]", model(y=Y.replace('name: "y"', ""))),
    refused("an input without a type", "data-type", "input[0]", model(x=X.replace("data_type: TYPE_FP32", ""))),
    refused("an input without dims", "dims", "input[0]", model(x=tensor("input", ""))),
    refused("a size of nothing", "dims", "input[0].dims[0]", model(x=tensor("input", "dims: [ 0 ]"))),
    refused("a size below minus one", "dims", "input[0].dims[0]", model(x=tensor("input", "dims: [ -2 ]"))),
    served("an open size", model(x=tensor("input", "dims: [ -1, 3 ]"))),
    stricter("an input written twice", "twice", "input[1].name", model(x=X + X)),
    served("an optional input", model(x=tensor("input", "dims: [ 2 ] optional: true"))),
    refused("a reshape of other elements", "reshape", "input[0].reshape.shape",
        model(x=tensor("input", "dims: [ 4 ] reshape { shape: [ 3 ] }"))),
    served("a reshape to a scalar", model(x=tensor("input", "dims: [ 1 ] reshape { shape: [ ] }"))),
    refused("a reshape to a scalar without batching", "reshape", "input[0].reshape",
        model(batch=0, x=tensor("input", "dims: [ 1 ] reshape { shape: [ ] }"))),
    refused("a reshape of two elements to a scalar", "reshape", "input[0].reshape.shape",
        model(x=tensor("input", "dims: [ 2 ] reshape { shape: [ ] }"))),
    refused("a reshape to no size", "reshape", "input[0].reshape.shape",
        model(x=tensor("input", "dims: [ 1 ] reshape { shape: [ 0 ] }"))),
    refused("a reshape of an open size to a whole one", "reshape", "input[0].reshape.shape",
        model(x=tensor("input", "dims: [ -1 ] reshape { shape: [ 4 ] }"))),
    refused("a reshape that opens a size more", "reshape", "input[0].reshape.shape",
        model(x=tensor("input", "dims: [ -1 ] reshape { shape: [ -1, -1 ] }"))),
    refused("a reshape across an open size", "reshape", "input[0].reshape.shape",
        model(x=tensor("input", "dims: [ 2, -1 ] reshape { shape: [ -1, 2 ] }"))),
    served("a reshape on each side of an open size",
        model(x=tensor("input", "dims: [ 2, 4, -1, 6 ] reshape { shape: [ 8, -1, 6 ] }"))),
    refused("a reshaped output of other elements", "reshape", "output[0].reshape.shape",
        model(y=tensor("output", "dims: [ 4 ] reshape { shape: [ 3 ] }"))),
    refused("an image format of one dim", "format", "input[0].format",
        model(x=tensor("input", "dims: [ 2 ] format: FORMAT_NHWC"))),
    served("an image format of three dims", model(x=tensor("input", "dims: [ 3, 4, 4 ] format: FORMAT_NCHW"))),
    refused("a shape tensor without TensorRT", "tensorrt-only", "input[0].is_shape_tensor",
        model(x=tensor("input", "dims: [ 2 ] is_shape_tensor: true"))),
    refused("a shape tensor as output without TensorRT", "tensorrt-only", "output[0].is_shape_tensor",
        model(y=tensor("output", "dims: [ 2 ] is_shape_tensor: true"))),
    refused("a non linear format without TensorRT", "tensorrt-only", "input[0].is_non_linear_format_io",
        model(x=tensor("input", "dims: [ 2, 2, 2 ] is_non_linear_format_io: true"))),
    served("a python model without tensors", model(x="", y="")),
    refused("labels that are missing", "labels", "output[0].label_filename",
        model(y=tensor("output", 'dims: [ 2 ] label_filename: "labels.txt"'))),
    served("labels for each element", model(y=tensor("output", 'dims: [ 2 ] label_filename: "labels.txt"')),
        {"1/model.py": MODEL_PY, "labels.txt": 'a\nb\n'}),
    stricter("labels for some elements", "labels", "output[0].label_filename",
        model(y=tensor("output", 'dims: [ 2 ] label_filename: "labels.txt"')),
        {"1/model.py": MODEL_PY, "labels.txt": 'a\n'}),
    stricter("labels from Windows", "labels", "output[0].label_filename",
        model(y=tensor("output", 'dims: [ 2 ] label_filename: "labels.txt"')),
        {"1/model.py": MODEL_PY, "labels.txt": 'a\r\nb\r\n'}),
]
# fmt: on

RAGGED_X = tensor("input", "dims: [ -1 ] allow_ragged_batch: true")
COUNT = 'batch_input [ {{ kind: {kind} target_name: "INDEX" data_type: {type} source_input: "{source}" }} ]'


def count(kind: str = "BATCH_ACCUMULATED_ELEMENT_COUNT", type: str = "TYPE_FP32", source: str = "x") -> str:
    """A batch input that counts elements."""
    return COUNT.format(kind=kind, type=type, source=source)


def scatter(target: str = '"y"', source: str = '"x"') -> str:
    """A batch output."""
    kind = "kind: BATCH_SCATTER_WITH_INPUT_SHAPE"
    return f"batch_output [ {{ {kind} target_name: [ {target} ] source_input: [ {source} ] }} ]"


# fmt: off
BATCH_IO = [
    served("ragged requests", model(f"{count()} {scatter()} dynamic_batching {{ }}", x=RAGGED_X)),
    served("ragged requests without a batch input", model("dynamic_batching { }", x=RAGGED_X)),
    refused("a batch input of another type", "batch-input", "batch_input[0].data_type",
        model(count(type="TYPE_INT64"), x=RAGGED_X)),
    refused("a batch input of two sources", "batch-input", "batch_input[0].source_input",
        model(count(source='x" source_input: "x'), x=RAGGED_X)),
    refused("a batch input of an unknown source", "batch-input", "batch_input[0].source_input",
        model(count(source="z"), x=RAGGED_X)),
    refused("a batch output of an unknown target", "batch-output", "batch_output[0].target_name",
        model(scatter('"z"'), x=RAGGED_X)),
    refused("a batch output of an unknown source", "batch-output", "batch_output[0].source_input",
        model(scatter(source='"z"'), x=RAGGED_X)),
    refused("a batch output of one target twice", "batch-output", "batch_output[0].target_name",
        model(scatter('"y", "y"'), x=RAGGED_X)),
    refused("a batch output of no source", "batch-output", "batch_output[0].source_input",
        model(scatter(source=""), x=RAGGED_X)),
]
# fmt: on

# fmt: off
INSTANCES = [
    served("a count of zero", model(instances="instance_group [ { count: 0 kind: KIND_CPU } ]")),
    stricter("a negative count", "instances", "instance_group[0].count",
        model(instances="instance_group [ { count: -1 kind: KIND_CPU } ]")),
    refused("GPUs of CPU instances", "instances", "instance_group[0].gpus",
        model(instances="instance_group [ { count: 1 kind: KIND_CPU gpus: [ 0 ] } ]")),
    refused("GPUs of the model's kind", "instances", "instance_group[0].gpus",
        model(instances="instance_group [ { count: 1 kind: KIND_MODEL gpus: [ 0 ] } ]")),
    refused("a GPU below zero", "instances", "instance_group[0].gpus[0]",
        model(instances="instance_group [ { count: 1 kind: KIND_GPU gpus: [ -1 ] } ]")),
    refused("a profile without TensorRT", "instances", "instance_group[0].profile",
        model(instances='instance_group [ { count: 1 kind: KIND_CPU profile: "0" } ]')),
    served("an accelerator that a python model does not read",
        model('optimization { execution_accelerators { gpu_execution_accelerator { name: "trt" } } }')),
]
# fmt: on

# fmt: off
WARMUP = [
    served("a warm up of zeros", model(warm(ZERO))),
    refused("a warm up of a larger batch", "warm-up", "model_warmup[0].batch_size", model(warm(ZERO, batch=9))),
    served("a warm up of no batch", model(warm(ZERO, batch=0))),
    served("a warm up without batching", model(warm(ZERO, batch=1), batch=0)),
    refused("a warm up of no input", "warm-up", 'model_warmup[0].inputs["z"]', model(warm(ZERO, name="z"))),
    refused("a warm up without its input", "warm-up", "model_warmup[0]",
        model('model_warmup [ { name: "w" batch_size: 1 } ]')),
    served("a warm up without an optional input",
        model(warm(ZERO), x=two("input", "z", "optional: true"))),
    refused("a warm up of another shape", "warm-up", 'model_warmup[0].inputs["x"].value.dims',
        model(warm(ZERO.replace("[ 2 ]", "[ 4 ]")))),
    refused("a warm up of another type", "warm-up", 'model_warmup[0].inputs["x"].value.data_type',
        model(warm(ZERO.replace("FP32", "INT32")))),
    refused("a warm up of an open size", "warm-up", 'model_warmup[0].inputs["x"].value.dims',
        model(warm(ZERO.replace("2 ]", "-1 ]")), x=tensor("input", "dims: [ -1 ]"))),
    refused("a warm up of nothing", "warm-up", 'model_warmup[0].inputs["x"]',
        model(warm(ZERO.replace("zero_data: true", "")))),
    refused("a warm up of a missing file", "warm-up", 'model_warmup[0].inputs["x"].value.input_data_file',
        model(warm(ZERO.replace("zero_data: true", 'input_data_file: "x.bin"')))),
    served("a warm up of a file", model(warm(ZERO.replace("zero_data: true", 'input_data_file: "x.bin"'))),
        {"1/model.py": MODEL_PY, "warmup/x.bin": "12345678"}),
]
# fmt: on

FAMILY = 'metric_identifier { family: "nv_inference_first_response_histogram_ms" }'
# fmt: off
METRICS = [
    served("metrics with buckets",
        model(f"model_metrics {{ metric_control {{ {FAMILY} histogram_options {{ buckets: [ 1, 2 ] }} }} }}"),
        gap="does not know the field (2.51)"),
    refused("metrics without an identifier", "metrics", "model_metrics.metric_control[0]",
        model("model_metrics { metric_control { histogram_options { buckets: [ 1 ] } } }")),
    refused("metrics without a family", "metrics", "model_metrics.metric_control[0].metric_identifier",
        model("model_metrics { metric_control { metric_identifier { } histogram_options { buckets: [ 1 ] } } }")),
    refused("metrics without options", "metrics", "model_metrics.metric_control[0]",
        model(f"model_metrics {{ metric_control {{ {FAMILY} }} }}")),
    refused("metrics without buckets", "metrics", "model_metrics.metric_control[0].histogram_options",
        model(f"model_metrics {{ metric_control {{ {FAMILY} histogram_options {{ }} }} }}")),
]
# fmt: on

# fmt: off
CASES: list[Case] = [
    *IDENTITY,
    *TENSORS,
    *BATCH_IO,
    *INSTANCES,
    *WARMUP,
    *METRICS,
]
# fmt: on
