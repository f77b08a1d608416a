"""Model folders with the inputs and outputs of other people's generation servers: vLLM's and TensorRT-LLM's for Triton.

Both count: of `max_tokens` pieces of text the first is "1", and the others are " 2", " 3", ... `pause_s` apart.
"""

from __future__ import annotations

from pathlib import Path

from python_models import write_python

OPTIONAL = 'input [ {{ name: "{}" data_type: TYPE_{} dims: [ {} ] optional: true }} ]\n'
OUTPUT = 'output [ {{ name: "{}" data_type: TYPE_{} dims: [ {} ] }} ]\n'
DECOUPLED = """
backend: "python"
model_transaction_policy { decoupled: true }
instance_group [ { count: 1 kind: KIND_CPU } ]
"""

VLLM_CONFIG = (
    DECOUPLED
    + 'max_batch_size: 0\ninput [ { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] } ]\n'
    + OPTIONAL.format("image", "STRING", -1)
    + OPTIONAL.format("stream", "BOOL", 1)
    + OPTIONAL.format("sampling_parameters", "STRING", 1)
    + OPTIONAL.format("exclude_input_in_output", "BOOL", 1)
    + OPTIONAL.format("return_finish_reason", "BOOL", 1)
    + OPTIONAL.format("return_num_input_tokens", "BOOL", 1)
    + OPTIONAL.format("return_num_output_tokens", "BOOL", 1)
    + OUTPUT.format("text_output", "STRING", -1)
    + OUTPUT.format("finish_reason", "STRING", -1)
    + OUTPUT.format("cumulative_logprob", "FP32", -1)
    + OUTPUT.format("num_input_tokens", "UINT32", 1)
    + OUTPUT.format("num_output_tokens", "UINT32", -1)
)

# All requests run side by side, the last piece carries the final flag, and an output that nobody asked for is left out.
VLLM = """
import asyncio
import json
import threading

import numpy as np
import triton_python_backend_utils as pb_utils

PAUSE_S = {pause_s}
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


def given(request, name, default):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return default if tensor is None else tensor.as_numpy()[0]


class TritonPythonModel:
    def initialize(self, args):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def execute(self, requests):
        for request in requests:
            asyncio.run_coroutine_threadsafe(self.answer(request, request.get_response_sender()), self.loop)

    async def answer(self, request, sender):
        try:
            await self.generate(request, sender)
        except Exception as error:
            sender.send(self.failed(f"Error generating stream: {{error}}"), FINAL)

    async def generate(self, request, sender):
        prompt, stream = given(request, "text_input", b"").decode(), given(request, "stream", False)
        if stream and not given(request, "exclude_input_in_output", True):
            raise ValueError("When streaming, `exclude_input_in_output` = False is not allowed.")
        count = int(json.loads(given(request, "sampling_parameters", b"{{}}")).get("max_tokens", 16))
        if count < 1:
            raise ValueError(f"max_tokens must be at least 1, got {{count}}.")
        whole = "" if stream or given(request, "exclude_input_in_output", False) else prompt
        for number in range(1, count + 1):
            await asyncio.sleep(PAUSE_S)
            if sender.is_cancelled():
                sender.send(self.failed("Request was cancelled", pb_utils.TritonError.CANCELLED), FINAL)
                return
            text = f"{{number}}" if number == 1 else f" {{number}}"
            whole += text
            if stream:
                last = number == count
                sender.send(self.piece(request, text, 1, "length" if last else "None"), FINAL if last else 0)
        if not stream:
            sender.send(self.piece(request, whole, count, "length"), FINAL)

    def piece(self, request, text, tokens, reason):
        found = {{"text_output": np.array([text.encode()], object)}}
        if given(request, "return_finish_reason", False):
            found["finish_reason"] = np.array([reason.encode()], object)
        if given(request, "return_num_input_tokens", False):
            found["num_input_tokens"] = np.asarray(len(given(request, "text_input", b"").split()), np.uint32)
        if given(request, "return_num_output_tokens", False):
            found["num_output_tokens"] = np.array([tokens], np.uint32)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in found.items()])

    def failed(self, message, *code):
        tensor = pb_utils.Tensor("text_output", np.array([b"N/A"], object))
        return pb_utils.InferenceResponse([tensor], error=pb_utils.TritonError(message, *code))

    def finalize(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
"""

TENSORRT_LLM_CONFIG = (
    DECOUPLED
    + 'max_batch_size: 4\ninput [ { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] } ]\n'
    + 'input [ { name: "max_tokens" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
    + OPTIONAL.format("stop_words", "STRING", -1)
    + OPTIONAL.format("exclude_input_in_output", "BOOL", 1)
    + OPTIONAL.format("top_p", "FP32", 1)
    + OPTIONAL.format("temperature", "FP32", 1)
    + OPTIONAL.format("seed", "UINT64", 1)
    + OPTIONAL.format("stream", "BOOL", 1)
    + OUTPUT.format("text_output", "STRING", -1)
    + OUTPUT.format("cum_log_probs", "FP32", -1)
    + OUTPUT.format("sequence_index", "INT32", 1)
)

# Requests have a batch axis, pieces may have none; one request runs at a time, and the final flag comes by itself.
TENSORRT_LLM = """
import time
import traceback

import numpy as np
import triton_python_backend_utils as pb_utils

PAUSE_S = {pause_s}
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


def given(request, name, default):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return default if tensor is None else tensor.as_numpy().ravel()[0]


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            try:
                self.generate(request, sender)
            except Exception:
                sender.send(pb_utils.InferenceResponse([], error=pb_utils.TritonError(traceback.format_exc())))
            sender.send(flags=FINAL)

    def generate(self, request, sender):
        count, stream = int(given(request, "max_tokens", 0)), given(request, "stream", False)
        if count < 1:
            raise ValueError("max_tokens must be positive")
        excluded = stream or given(request, "exclude_input_in_output", False)
        whole = "" if excluded else given(request, "text_input", b"").decode()
        for number in range(1, count + 1):
            time.sleep(PAUSE_S)
            if sender.is_cancelled():
                return
            text = f"{{number}}" if number == 1 else f" {{number}}"
            whole += text
            if stream:
                sender.send(self.piece(text))
        if not stream:
            sender.send(self.piece(whole))

    def piece(self, text):
        tensors = [
            pb_utils.Tensor("text_output", np.array([text.encode()], object)),
            pb_utils.Tensor("sequence_index", np.array([[0]], np.int32)),
        ]
        return pb_utils.InferenceResponse(tensors)
"""


def write_vllm(repository: Path, name: str = "vllm", *, pause_s: float = 0.0) -> Path:
    """A model that is asked like one of Triton's vLLM image: `text_input`, `stream`, `sampling_parameters` (JSON with
    `max_tokens`), ...; returns its folder."""
    return write_python(repository / name, VLLM_CONFIG, VLLM.format(pause_s=pause_s))


def write_tensorrt_llm(repository: Path, name: str = "tensorrt_llm", *, pause_s: float = 0.0) -> Path:
    """A model that is asked like one of Triton's TensorRT-LLM image: `text_input`, `max_tokens`, `stream`, ..., with a
    batch axis; returns its folder."""
    return write_python(repository / name, TENSORRT_LLM_CONFIG, TENSORRT_LLM.format(pause_s=pause_s))
