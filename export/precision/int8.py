"""INT8: explicit QuantizeLinear and DequantizeLinear nodes, with ranges found on calibration data.

Weights are INT8 with one scale per channel. Activations are UINT8, the pair that x86 processors with VNNI multiply
natively, or for TensorRT INT8 with a zero point of 0, which is all that it takes.
What is quantised is chosen by what measured faster (docs/guides/precision.md):

- MatMul and Gemm with constant weights, their results left in FP32, and tables that a Gather looks rows up in;
- convolutions, and the additions, clips and pools between them, so that a chain of them stays in INT8;
- not a convolution over a picture's few channels: it is cheap, the most sensitive, and keeps what stands before it
  in the fast layout;
- for TensorRT no tables and no biases, which it reads in floating point;
- nothing else: normalisation, softmax and the products of two activations stay in FP32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from export.errors import ExportError
from export.graph import edit, onnx_file, onnx_stream
from export.precision import memory
from export.precision.precision import CPU, TENSORRT, kept_float
from export.recipe.limits import Reduced
from export.recipe.recipe import Arrays, Evaluation, Progress, no_progress

METHOD = "onnxruntime static quantization, QDQ"
WEIGHTS = "fp32.data"
FEW_CHANNELS = 4
PER_CHANNEL_OPSET = 13
BATCH = 2
"""Few rows at a time: attention takes memory by the square of the length."""

_PRODUCTS = ("MatMul", "Gemm")
_BETWEEN_CONVOLUTIONS = ("Add", "Clip", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool")
_FLOAT_RESULT = (*_PRODUCTS, "Gather")


class Quantization:
    """One FP32 graph with the ranges of its tensors and the nodes to quantise.

    Raises ExportError when nothing in the graph can be quantised.
    """

    def __init__(
        self,
        full: Path,
        calibration: Evaluation,
        rule: Reduced,
        excluded: Sequence[str],
        room: Path,
        on_progress: Progress = no_progress,
        runtime: str = CPU,
        *,
        keep_bytes: int = onnx_stream.LARGE,
    ) -> None:
        self.symmetric = runtime == TENSORRT
        self._room = room
        self._graph = model = onnx_stream.take_apart(full, room / WEIGHTS, keep_bytes=keep_bytes)
        opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
        if opset < PER_CHANNEL_OPSET:
            raise ExportError(
                f"the graph has opset {opset}, and INT8 with a scale per channel needs {PER_CHANNEL_OPSET}",
                remedy="export the model with that, or convert it with onnx.version_converter.convert_version",
                field="opset",
                found=opset,
                expected=PER_CHANNEL_OPSET,
            )
        keep = rule.keep_float
        if self.symmetric and rule.keep_float_symmetric is not None:
            keep = rule.keep_float_symmetric
        self.kept = kept_float(model, keep, excluded)
        names = chosen_nodes(model, self.kept, tables=not self.symmetric)
        if not names:
            raise ExportError(
                "nothing in the graph can be quantised: it has no convolution or product with weights",
                field="precision",
                found="int8",
            )
        self.candidates = {node.name: str(node.op_type) for node in model.graph.node if node.name in names}
        """The nodes to quantise, with their operator types."""
        with onnx_file.quiet():
            types = sorted(set(self.candidates.values()))
            self._ranges = _ranges(model, types, calibration, room, on_progress)
        self._calibration = {
            "method": "min-max",
            "rows": len(calibration),
            "sha256": _sha256(calibration.inputs),
        }

    def write(self, target: Path, only: str | None = None) -> None:
        """Write the graph with its chosen nodes quantised; with `only`, that one alone."""
        with onnx_file.quiet(), _weights_read_from(self._room):
            from onnx.shape_inference import infer_shapes
            from onnxruntime.quantization import QuantType
            from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
            from onnxruntime.quantization.quant_utils import add_infer_metadata

            model = infer_shapes(self._graph)
            add_infer_metadata(model)
            quantizer = QDQQuantizer(
                model,
                True,  # per channel
                False,  # all 8 bits: without VNNI our sessions ask for exact products instead
                QuantType.QInt8,
                QuantType.QInt8 if self.symmetric else QuantType.QUInt8,
                self._ranges,
                list(self.candidates) if only is None else [only],
                [],
                sorted(set(self.candidates.values())),
                {
                    "OpTypesToExcludeOutputQuantization": list(_FLOAT_RESULT),
                    "ActivationSymmetric": self.symmetric,
                    "QuantizeBias": not self.symmetric,
                },
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
            edit.declare_as(quantizer.model.model, self._graph)
        onnx_file.finish(quantizer.model.model, self._room, target)

    def record(self) -> dict[str, Any]:
        """The reduction as the manifest records it."""
        types = list(self.candidates.values())
        return {
            "method": METHOD,
            "weights": "int8 per channel",
            "activations": "int8 symmetric" if self.symmetric else "uint8",
            "made_for": TENSORRT if self.symmetric else CPU,
            "calibration": self._calibration,
            "quantised": {kind: types.count(kind) for kind in sorted(set(types))},
            "kept_float": sorted(self.kept),
        }


def chosen_nodes(model: Any, kept: Collection[str], *, tables: bool = True) -> list[str]:
    """The names of the nodes to quantise, in the order of the graph; none of `kept`, and `tables` only if wanted."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    floats = {tensor.name for tensor in model.graph.initializer if tensor.data_type == 1}
    in_chain: set[str] = set()  # results of quantised convolutions and of what stands between them
    chosen = []
    for node in model.graph.node:
        if node.name in kept or not node.name:
            continue
        if node.op_type == "Conv" and node.input[1] in floats:
            groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
            take = shapes[node.input[1]][1] * groups > FEW_CHANNELS
        elif node.op_type in _BETWEEN_CONVOLUTIONS:
            take = all(name in in_chain or name in shapes or not name for name in node.input)
        elif node.op_type == "Gather":
            take = tables and node.input[0] in floats and len(shapes[node.input[0]]) == 2
        else:
            take = node.op_type in _PRODUCTS and node.input[1] in floats
        if take:
            chosen.append(node.name)
        if take and node.op_type not in _FLOAT_RESULT:
            in_chain.update(node.output)
    return chosen


def _ranges(graph: Any, types: list[str], calibration: Evaluation, room: Path, on_progress: Progress) -> Any:
    """The smallest and largest value of every tensor around nodes of these types over the calibration rows.

    ONNX Runtime adds what it watches to a graph without large weights; the session maps them from their file.
    """
    import onnx
    from onnxruntime.quantization.calibrate import MinMaxCalibrater

    bare, watched = room / "bare.onnx", room / "calibration.onnx"
    places = _without_data(graph, bare)
    calibrator = MinMaxCalibrater(bare, types, str(watched))
    calibrator.augment_graph()
    model = onnx.load(str(watched))
    for tensor in model.graph.initializer:
        if tensor.name in places:
            tensor.CopyFrom(places[tensor.name])
    onnx.save(model, str(watched))
    calibrator.infer_session = _Watching(watched)
    calibrator.collect_data(_reader(_with_progress(calibration, on_progress)))
    found = calibrator.compute_data()
    for path in (bare, watched):
        path.unlink()
    del calibrator
    memory.release()
    return found


class _Watching:
    """A session as the calibrator uses one; `frugal`, so that the watched tensors of a run are not all kept to its
    end."""

    def __init__(self, path: Path) -> None:
        self._session = onnx_file.session(path, frugal=True)

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name=name) for name in self._session.outputs]

    def run(self, names: None, inputs: Arrays) -> list[Any]:
        return list(self._session(inputs).values())


def _without_data(graph: Any, path: Path) -> dict[str, Any]:
    """Write the graph without its external tensors' bytes and where they are; returns those tensors."""
    import onnx

    places = {}
    bare = onnx.ModelProto()
    bare.CopyFrom(graph)
    for tensor, own in zip(graph.graph.initializer, bare.graph.initializer, strict=True):
        if tensor.data_location == tensor.EXTERNAL:
            places[tensor.name] = tensor
            own.ClearField("data_location")
            del own.external_data[:]
    onnx.save(bare, str(path))
    return places


@contextmanager
def _weights_read_from(room: Path) -> Iterator[None]:
    """Let ONNX Runtime's quantizer read each weight from the file it lies in when it wants it, and keep none."""
    import numpy as np
    import onnx
    from onnxruntime.quantization import base_quantizer, qdq_quantizer, quant_utils

    before = quant_utils.tensor_proto_to_array

    def to_array(tensor: Any) -> Any:
        if tensor.data_location != tensor.EXTERNAL:
            return before(tensor)
        place = {entry.key: entry.value for entry in tensor.external_data}
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        count = int(place["length"]) // kind.itemsize
        values = np.fromfile(room / place["location"], kind, count, offset=int(place["offset"]))
        return values.reshape(tuple(tensor.dims))

    modules = (base_quantizer, qdq_quantizer, quant_utils)
    for module in modules:
        module.tensor_proto_to_array = to_array
    try:
        yield
    finally:
        for module in modules:
            module.tensor_proto_to_array = before


def _with_progress(calibration: Evaluation, on_progress: Progress) -> Iterator[dict[str, Any]]:
    done, total = 0, len(calibration)
    on_progress("calibrate", done, total)
    for batch in calibration.batches(BATCH):
        yield batch
        done = min(done + BATCH, total)
        on_progress("calibrate", done, total)


def _reader(batches: Iterator[dict[str, Any]]) -> Any:
    """The batches as ONNX Runtime reads them; a class made here because its base needs onnxruntime."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(batches, None)

    return Reader()


def _sha256(arrays: Arrays) -> str:
    """One hash over named arrays, their types and shapes."""
    digest = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
