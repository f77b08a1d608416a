"""What config.pbtxt leaves out, filled in from the graph as the official backend does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from fathom_session import add_operators, model_file, quiet_options
from fathom_signature import dims, triton_type

DEFAULT_MAX_BATCH_SIZE = 4
SETTING = "default-max-batch-size="


def completed_from_graph(config):
    """The completed configuration of the model that this stub process was started for; `config` is a dict.

    Raises TritonModelException where there is none.
    """
    # Triton does not say here where the model lies; its stub process has the file as first argument.
    path = model_file(Path(Path("/proc/self/cmdline").read_bytes().split(b"\0")[1].decode()), config["name"])
    options = quiet_options()
    add_operators(options, config)
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return pb_utils.ModelConfig(json.dumps(completed(config, session, default_max_batch_size())))


def completed(config, session, default_max_batch_size):
    """`config`, a dict, with inputs, outputs, max_batch_size and dynamic batching.

    Inputs are filled in where none is written, outputs likewise. Raises TritonModelException where max_batch_size asks
    for a batch axis that the graph lacks.
    """
    tensors = [*session.get_inputs(), *session.get_outputs()]
    batchable = all(tensor.shape and not isinstance(tensor.shape[0], int) for tensor in tensors)
    size = config["max_batch_size"]
    if size > 0 and not batchable:
        raise pb_utils.TritonModelException(
            f"max_batch_size is {size}, but the graph has no batch axis: write max_batch_size: 0"
        )
    if batchable:
        size = size or default_max_batch_size
        config = config | {"max_batch_size": size}
        if size > 1 and "sequence_batching" not in config:
            config.setdefault("dynamic_batching", {})
    if not config["input"] and not config.get("batch_input"):
        config["input"] = [_tensor(tensor, size > 0) for tensor in session.get_inputs()]
    if not config["output"]:
        config["output"] = [_tensor(tensor, size > 0) for tensor in session.get_outputs()]
    return config


def _tensor(tensor, batched):
    own = dims(tensor.shape)[1:] if batched else dims(tensor.shape)
    written = {"name": tensor.name, "data_type": triton_type(tensor), "dims": own or [1]}
    return written | {"reshape": {"shape": []}} if batched and not own else written


def default_max_batch_size():
    """What the server was started with, `--backend-config=onnxruntime,default-max-batch-size=N`, or 4.

    Triton tells a python backend nothing of it: the command line of the server, this process's parent, does.
    """
    arguments = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode(errors="replace").split("\0")
    settings = [argument.removeprefix("--backend-config=") for argument in arguments]
    for prefix in (f"onnxruntime,{SETTING}", SETTING):  # this backend's own goes before one for all
        for setting in reversed(settings):
            if setting.startswith(prefix):
                return max(0, int(setting.removeprefix(prefix)))
    return DEFAULT_MAX_BATCH_SIZE
