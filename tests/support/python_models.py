"""Small models of Triton's python backend for tests: one that streams, one that remembers, one that is slow."""

from __future__ import annotations

from pathlib import Path

COUNTER_CONFIG = """
backend: "python"
max_batch_size: 0
input [
  { name: "count" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "pause_s" data_type: TYPE_FP32 dims: [ 1 ] }
]
output [ { name: "number" data_type: TYPE_INT32 dims: [ 1 ] } ]
model_transaction_policy { decoupled: true }
"""

COUNTER = """
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            count = int(pb_utils.get_input_tensor_by_name(request, "count").as_numpy()[0])
            pause_s = float(pb_utils.get_input_tensor_by_name(request, "pause_s").as_numpy()[0])
            for number in range(abs(count)):
                if sender.is_cancelled():
                    break
                tensor = pb_utils.Tensor("number", np.array([number], np.int32))
                sender.send(pb_utils.InferenceResponse([tensor]))
                time.sleep(pause_s)
            if count < 0:
                sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError("the count ran out")))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""

TELLER_CONFIG = """
backend: "python"
max_batch_size: 0
input [ { name: "pauses_s" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "number" data_type: TYPE_INT32 dims: [ 1 ] } ]
model_transaction_policy { decoupled: true }
"""

TELLER = """
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.families = [
            pb_utils.MetricFamily(
                name=f"fathom_generation_{name}", description=name, kind=getattr(pb_utils.MetricFamily, kind)
            )
            for name, kind in (("slots_in_use", "GAUGE"), ("tokens_total", "COUNTER"), ("cancelled_total", "COUNTER"))
        ]
        self.slots, self.tokens, self.cancelled = (family.Metric(labels={}) for family in self.families)
        self.lock = threading.Lock()
        self.threads = []

    def execute(self, requests):
        for request in requests:
            pauses_s = pb_utils.get_input_tensor_by_name(request, "pauses_s").as_numpy().tolist()
            self.threads.append(threading.Thread(target=self.tell, args=(request.get_response_sender(), pauses_s)))
            self.threads[-1].start()

    def tell(self, sender, pauses_s):
        self.count(self.slots, 1)
        for number, pause_s in enumerate(pauses_s):
            time.sleep(abs(pause_s))
            if sender.is_cancelled():
                self.count(self.cancelled, 1)
                break
            if pause_s < 0:
                sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError("Exceeds maximum queue size")))
                break
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("number", np.array([number], np.int32))]))
            self.count(self.tokens, 1)
        self.count(self.slots, -1)
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def count(self, metric, change):
        with self.lock:  # Triton 2.51 dies of metrics that change in several threads at once
            metric.increment(change)

    def finalize(self):
        for thread in self.threads:
            thread.join()
"""

TOTAL_CONFIG = """
backend: "python"
max_batch_size: 4
input [ { name: "x" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "total" data_type: TYPE_INT32 dims: [ 1 ] } ]
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  oldest { max_candidate_sequences: 4 }
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] },
    { name: "END" control [ { kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] } ] },
    { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }
  ]
}
instance_group [ { kind: KIND_CPU count: 1 } ]
"""

TOTAL = """
import numpy as np
import triton_python_backend_utils as pb_utils


def value(request, name):
    return int(pb_utils.get_input_tensor_by_name(request, name).as_numpy().ravel()[0])


class TritonPythonModel:
    def initialize(self, args):
        self.totals = {}

    def execute(self, requests):
        responses = []
        for request in requests:
            sequence = value(request, "CORRID")
            if value(request, "START"):
                self.totals[sequence] = 0
            self.totals[sequence] += value(request, "x")
            total = np.array([[self.totals[sequence]]], np.int32)
            if value(request, "END"):
                del self.totals[sequence]
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("total", total)]))
        return responses
"""

NAP_CONFIG = """
backend: "python"
max_batch_size: 1
input [ { name: "seconds" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "slept" data_type: TYPE_FP32 dims: [ 1 ] } ]
dynamic_batching { default_queue_policy { max_queue_size: 4 default_timeout_microseconds: %d } }
"""

NAP = """
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            seconds = pb_utils.get_input_tensor_by_name(request, "seconds").as_numpy()
            end = time.monotonic() + float(seconds[0, 0])
            while time.monotonic() < end and not request.is_cancelled():
                time.sleep(0.01)
            if request.is_cancelled():
                error = pb_utils.TritonError("cancelled", pb_utils.TritonError.CANCELLED)
                responses.append(pb_utils.InferenceResponse(error=error))
            else:
                responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("slept", seconds)]))
        return responses
"""


def write_python(folder: Path, config: str, model: str) -> Path:
    """A folder with a python model; returns it."""
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)
    (folder / "1" / "model.py").write_text(model)
    return folder


def write_counter(repository: Path) -> None:
    """`counter`, decoupled: answers `count` (INT32 [1]) numbers, `pause_s` apart; below 0 an error comes last."""
    write_python(repository / "counter", COUNTER_CONFIG, COUNTER)


def write_teller(repository: Path) -> None:
    """`teller`, decoupled, many at a time: a number after each of `pauses_s` (FP32 [n]); below 0 it is overloaded."""
    write_python(repository / "teller", TELLER_CONFIG, TELLER)


def write_total(repository: Path) -> None:
    """`total`, stateful: the sum of `x` (INT32 [n, 1]) over one sequence, of which four have a slot."""
    write_python(repository / "total", TOTAL_CONFIG, TOTAL)


def write_nap(repository: Path, name: str = "nap", *, queue_timeout_us: int = 0) -> None:
    """A model that sleeps, one request at a time, and wakes when its request is cancelled; 4 may wait."""
    write_python(repository / name, NAP_CONFIG % queue_timeout_us, NAP)
