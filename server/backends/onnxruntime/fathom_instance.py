"""One instance of a model: its ONNX Runtime session, and how requests are run on it, joined or each alone."""

from __future__ import annotations

import json
import time
from pathlib import Path

import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from fathom_device_io import DeviceIO
from fathom_host_io import HostIO, InputError, has_bfloat16
from fathom_rows import AUTO, measured_rows
from fathom_session import (
    DEVICE_TENSORS,
    MODEL_FILE,
    ROWS_PER_RUN,
    add_operators,
    execution_providers,
    model_file,
    refuse_fallback,
    session_options,
    whole_number,
)
from fathom_signature import check_inputs, check_outputs
from fathom_split import PROVING, SplitError, same_first_axis


class Instance:
    """Loads the model, or raises TritonModelException with the reason why it cannot be served."""

    def __init__(self, args):
        config = json.loads(args["model_config"])
        self.name = config["name"]
        folder = Path(args["model_repository"]) / args["model_version"]
        path = model_file(folder / (config["default_model_filename"] or MODEL_FILE), self.name)
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        on_gpu = args["model_instance_kind"] == "GPU"
        device_id = int(args["model_instance_device_id"])
        try:
            options = session_options(config, parameters)
            add_operators(options, config)
            providers = execution_providers(config, parameters, on_gpu, device_id)
            if on_gpu and hasattr(ort, "preload_dlls"):
                ort.preload_dlls()  # CUDA's libraries from the nvidia-* packages, which no search path names
            session = ort.InferenceSession(str(path), options, providers=providers)
        except pb_utils.TritonModelException:
            raise
        except Exception as error:
            raise pb_utils.TritonModelException(
                f"ONNX Runtime {ort.__version__} cannot load '{path}': {error}"
            ) from error
        refuse_fallback(self.name, providers, session.get_providers())
        check_inputs(config, session)
        check_outputs(config, session)
        self.joins = config["max_batch_size"] > 0  # until a run shows that its outputs cannot be split
        self.proving = 0 if same_first_axis(session) else PROVING
        on_device = parameters.get(DEVICE_TENSORS) == "no"
        if (on_device or has_bfloat16(session)) and DeviceIO.takes(session, config):
            device = ("cuda", device_id) if on_device and on_gpu else ("cpu", 0)
            self.io = DeviceIO(session, *device, config)
            pb_utils.Logger.log_info(f"'{self.name}' takes and gives tensors on {device[0]}:{device[1]}")
        else:
            self.io = HostIO(session, config, _rows_per_run(session, config, parameters, on_gpu))
        # Triton's batchers drop cancelled requests themselves; asking costs 0.1 ms, a message to the server and back.
        self.asks_if_cancelled = "dynamic_batching" not in config and "sequence_batching" not in config
        self.decoupled = config.get("model_transaction_policy", {}).get("decoupled", False)
        self.run_options = None
        shrink = parameters.get("memory.enable_memory_arena_shrinkage")
        if shrink:
            self.run_options = ort.RunOptions()
            self.run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", shrink)

    def execute(self, requests):
        """Run all requests as one batch; if that fails, each alone, so that only the guilty one gets the error."""
        live, responses = [], [None] * len(requests)
        for index, request in enumerate(requests):
            if self.asks_if_cancelled and request.is_cancelled():
                responses[index] = _failed("the client cancelled the request", pb_utils.TritonError.CANCELLED)
            else:
                live.append(index)
        for index, answer in zip(live, self._answers([requests[index] for index in live]), strict=True):
            responses[index] = answer
        if not self.decoupled:
            return responses
        for request, response in zip(requests, responses, strict=True):
            sender = request.get_response_sender()
            sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return None

    def _answers(self, batch):
        if len(batch) > 1 and self.joins and not self.proving:
            try:
                return self._run(batch)
            except SplitError as error:
                self._join_no_more(error)
            except Exception:  # of one request or of their joining: each alone shows which
                pass
        return [self._run_alone(request) for request in batch]

    def _run_alone(self, request):
        try:
            answer = self._run([request])[0]
            self.proving = max(0, self.proving - 1)
            return answer
        except SplitError as error:
            self._join_no_more(error)
            return _failed(f"'{self.name}': {error}", pb_utils.TritonError.INTERNAL)
        except InputError as error:
            return _failed(f"'{self.name}': {error}", pb_utils.TritonError.INVALID_ARG)
        except Exception as error:
            return _failed(f"ONNX Runtime could not run '{self.name}': {error}", pb_utils.TritonError.INTERNAL)

    def _join_no_more(self, error):
        """From now on each request is run alone: of such a graph, equal sums of rows would prove nothing."""
        if self.joins:
            self.joins = False
            pb_utils.Logger.log_warn(f"'{self.name}' runs each request alone from now on: {error}")

    def _run(self, requests):
        """The responses, of one run for all requests. Raises InputError, SplitError, and whatever ONNX Runtime does."""
        return [pb_utils.InferenceResponse(tensors) for tensors in self.io.run(requests, self.run_options)]


def _rows_per_run(session, config, parameters, on_gpu):
    auto = parameters.get(ROWS_PER_RUN) == AUTO
    given = 0 if auto else whole_number(parameters, ROWS_PER_RUN, " of rows, 0 for all at once, or auto")
    if config["max_batch_size"] == 0:
        return 0
    if not auto:
        return given
    own_thread = not on_gpu and session.get_session_options().intra_op_num_threads == 1
    return measured_rows(session, config, time.thread_time if own_thread else time.perf_counter)


def _failed(message, code):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
