"""Draft the config.pbtxt of an added model: its names, types and dims, a bounded queue, threads and warm-up."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from export.added.input_generators import InputRule
from export.graph.signature import Signature, TensorSpec

QUEUE_SIZE, QUEUE_TIMEOUT_US = 256, 2_000_000
INSTANCES, THREADS = 2, 1


@dataclass(frozen=True)
class Draft:
    """What a draft is made of: `max_batch_size` is 0 for a model without a batch axis; `warmup_files`
    name the file of the warm-up folder for inputs that zeros may be no values of, `label_files` those of outputs."""

    name: str
    summary: str
    signature: Signature
    rules: Mapping[str, InputRule]
    max_batch_size: int
    warmup_files: Mapping[str, str]
    cpu_only: bool = False
    label_files: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The file."""
        blocks = [self._head(), self._tensors(), self._queue(), self._instances(), _PARAMETERS, self._warmup()]
        return "\n".join(blocks)

    def _head(self) -> str:
        lines = [
            f"# {one_line(self.summary)}.",
            "# Drafted by `fathom add`; it is yours to edit, and `fathom check` holds it to the graph.",
            f"name: {quoted(self.name)}",
            'backend: "onnxruntime"',
            'default_model_filename: "model.onnx"',
        ]
        note = (
            "rows that share one run at most"
            if self.max_batch_size
            else "no batch axis: dims are whole shapes, each request runs alone"
        )
        lines.append(f"max_batch_size: {self.max_batch_size}".ljust(34) + f" # {note}")
        return "\n".join(lines) + "\n"

    def _tensors(self) -> str:
        lines = []
        for kind, specs in (("input", self.signature.inputs), ("output", self.signature.outputs)):
            lines.append(f"{kind} [")
            for index, spec in enumerate(specs):
                dims = f"dims: {dims_text(self._dims(spec))}"
                note = self._note(spec, index) if kind == "input" else ""
                lines += [
                    "  {",
                    f"    name: {quoted(spec.name)}",
                    f"    data_type: {spec.data_type}",
                    f"    {dims.ljust(30)} # {note}" if note else f"    {dims}",
                    *self._labels(spec, kind),
                    "  }" + ("," if index < len(specs) - 1 else ""),
                ]
            lines.append("]")
        return "\n".join(lines) + "\n"

    def _note(self, spec: TensorSpec, index: int) -> str:
        if self.max_batch_size and index == 0:
            return "the batch axis is not written here"
        return "-1 is a length that may vary" if -1 in self._dims(spec) else ""

    def _labels(self, spec: TensorSpec, kind: str) -> list[str]:
        file = self.label_files.get(spec.name) if kind == "output" else None
        return [f"    label_filename: {quoted(file)}"] if file else []

    def _queue(self) -> str:
        words = (
            "# Whatever waits when an instance becomes free is taken as one batch; nothing is delayed in the hope of "
            "company."
            if self.max_batch_size
            else "# Nothing is batched: the block is here for the bound of its queue."
        )
        return f"""\
{words}
dynamic_batching {{
  default_queue_policy {{
    max_queue_size: {QUEUE_SIZE}                   # a full queue refuses (UNAVAILABLE) instead of growing without bound
    default_timeout_microseconds: {QUEUE_TIMEOUT_US} # a request that waited 2 s is refused, not served late
    timeout_action: REJECT
    allow_timeout_override: true          # a client may ask for less
  }}
}}
"""

    def _instances(self) -> str:
        words = (
            "# On the CPU on every host: ONNX Runtime has no GPU kernels for these operators."
            if self.cpu_only
            else "# A GPU where there is one, else the CPU. Each instance has its own ONNX Runtime session and weights."
        )
        kind = "KIND_CPU" if self.cpu_only else "KIND_AUTO"
        return f"{words}\ninstance_group [\n  {{\n    count: {INSTANCES}\n    kind: {kind}\n  }}\n]\n"

    def _warmup(self) -> str:
        sizes = sorted({1, self.max_batch_size}) if self.max_batch_size else [0]
        samples = []
        for size in sizes:
            lines = ["  {", f'    name: "batch {size}"' if size else '    name: "one request"']
            if size:
                lines.append(f"    batch_size: {size}")
            lines += [self._warm(name, rule) for name, rule in self.rules.items()]
            samples.append("\n".join([*lines, "  }"]))
        head = "# Ready only after these have run once.\n"
        return head + "model_warmup [\n" + ",\n".join(samples) + "\n]\n"

    def _warm(self, name: str, rule: InputRule) -> str:
        data = "random_data: true" if rule.generator.kind == "normal" else "zero_data: true"
        if name in self.warmup_files:
            data = f"input_data_file: {quoted(self.warmup_files[name])}"
        value = f"{{ data_type: {rule.data_type} dims: {dims_text(rule.shape)} {data} }}"
        return f"    inputs {{ key: {quoted(name)} value {value} }}"

    def _dims(self, spec: TensorSpec) -> Sequence[int]:
        return spec.dims[1:] if self.max_batch_size else spec.dims


_PARAMETERS = f"""\
# Threads per session for what runs on the CPU: instances x threads should equal the cores that Triton may use.
parameters {{ key: "intra_op_thread_count" value {{ string_value: "{THREADS}" }} }}
parameters {{ key: "inter_op_thread_count" value {{ string_value: "1" }} }}
"""


def dims_text(dims: Sequence[int]) -> str:
    """`[ 3, 224, 224 ]`."""
    return f"[ {', '.join(map(str, dims))} ]"


def quoted(text: str) -> str:
    """A string of the protobuf text format; beyond ASCII as it is, control characters escaped."""
    escaped = json.dumps(text, ensure_ascii=False)
    return re.sub(r"\\u00([0-9a-f]{2})", r"\\x\1", escaped)


def one_line(text: str) -> str:
    """Text for a comment."""
    return " ".join(text.split())
