"""MediaPipe's SSD-MobileNetV2 for 300x300 pixels, read from the TensorFlow Lite file in the npm package that has it.

The package @mediapipe/objectron (Apache-2.0) comes with a detector of 23 everyday classes of Open Images, among them
Person, Bicycle, Car and Vehicle. Its file has six kinds of operators, which are run here by torch. How its boxes follow
from anchors is not in the file but in MediaPipe's `object_detection_oid_v4_cpu.pbtxt`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import RecipeError
from export.models.pictures.images import Preprocessor
from export.recipe.recipe import Array, Weights

FILE = "objectron_solution_packed_assets.data"
_MARK, _MARK_AT = b"TFL3", 4
_STRIDES, _SCALES, _RATIOS = (16, 32, 64, 128, 256, 512), (0.2, 0.95), (1.0, 2.0, 1 / 2, 3.0, 1 / 3)
_CENTRE_SCALE, _SIZE_SCALE = 10.0, 5.0
_NONE, _RELU6 = 0, 3
"""Activations, as the format numbers them."""


@dataclass(frozen=True)
class Layer:
    """One operator: tensors are numbers, activations [n, channels, height, width] but behind a reshape."""

    kind: str
    inputs: tuple[int, ...]
    output: int
    weight: Array | None = None
    bias: Array | None = None
    stride: int = 1
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    relu6: bool = False
    last: int = 0


def weights(folder: Path) -> Weights:
    """The package's folder as weights."""
    description = "SSD-MobileNetV2 (Open Images) from the npm package @mediapipe/objectron"
    found = {FILE: folder / FILE}
    return Weights(description, found, folder, custom=True, explicit=True, licence="Apache-2.0")


def load(folder: Path) -> tuple[Any, Preprocessor, tuple[str, ...]]:
    """The detector as a torch module from pixels to candidates, its preprocessor and its classes.

    Raises RecipeError for a file that is not understood.
    """
    content = (folder / FILE).read_bytes()
    begin = content.find(_MARK) - _MARK_AT
    if begin < 0:
        raise RecipeError(f"{FILE} holds no TensorFlow Lite file", file=folder / FILE, expected=_MARK)
    labels = tuple(content[:begin].decode().split("\n"))[1:-1]  # the first is for nothing
    layers, given, outputs, side = _read(content[begin:])
    preprocessor = Preprocessor(size={"height": side, "width": side})
    return _module(layers, given, outputs, anchors(side), preprocessor), preprocessor, labels


def anchors(side: int) -> Array:
    """The boxes that the encodings are relative to: FP32 [places, 4], x and y of the centre, width, height."""
    low, high = _SCALES
    scales = [low + (high - low) * layer / (len(_STRIDES) - 1) for layer in range(len(_STRIDES))] + [1.0]
    made = []
    for layer, stride in enumerate(_STRIDES):
        shapes = [(ratio, scales[layer]) for ratio in _RATIOS] + [(1.0, math.sqrt(scales[layer] * scales[layer + 1]))]
        if layer == 0:
            shapes = [(1.0, 0.1), (2.0, scales[0]), (0.5, scales[0])]
        cells = math.ceil(side / stride)
        middles = [((x + 0.5) / cells, (y + 0.5) / cells) for y in range(cells) for x in range(cells)]
        sizes = [(scale * math.sqrt(ratio), scale / math.sqrt(ratio)) for ratio, scale in shapes]
        made += [(*middle, *size) for middle in middles for size in sizes]
    return np.array(made, np.float32)


def _read(content: bytes) -> tuple[list[Layer], int, list[int], int]:
    """The operators in their order, the input, the outputs (boxes, scores), and the pixels of a side."""
    import tflite  # type: ignore[import-not-found, import-untyped, unused-ignore]

    model = tflite.Model.GetRootAsModel(content, 0)
    graph = model.Subgraphs(0)
    names = {number: name for name, number in vars(tflite.BuiltinOperator).items() if isinstance(number, int)}
    halves: dict[int, int] = {}

    def shape(tensor: int) -> tuple[int, ...]:
        return tuple(graph.Tensors(tensor).ShapeAsNumpy().tolist())

    def constant(tensor: int) -> Array:
        stored = graph.Tensors(halves[tensor])
        values = model.Buffers(stored.Buffer()).DataAsNumpy().view(np.float16)
        return np.asarray(values.reshape(shape(tensor)), np.float32)

    def layers() -> Iterator[Layer]:
        for number in range(graph.OperatorsLength()):
            operator = graph.Operators(number)
            kind = names[model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()]
            inputs, output = operator.InputsAsNumpy().tolist(), int(operator.Outputs(0))
            if kind == "DEQUANTIZE":
                halves[output] = inputs[0]
            elif kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
                options = tflite.Conv2DOptions() if kind == "CONV_2D" else tflite.DepthwiseConv2DOptions()
                options.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
                # Stored as [outputs, height, width, inputs], or as [1, height, width, channels] of channels alone.
                weight = constant(inputs[1]).transpose((0, 3, 1, 2) if kind == "CONV_2D" else (3, 0, 1, 2))
                stride, size = int(options.StrideH()), weight.shape[2]
                missing = max((shape(output)[1] - 1) * stride + size - shape(inputs[0])[1], 0)
                yield Layer(
                    kind,
                    (inputs[0],),
                    output,
                    np.ascontiguousarray(weight),
                    constant(inputs[2]),
                    stride,
                    (missing // 2, missing - missing // 2) * 2,
                    weight.shape[0] if kind == "DEPTHWISE_CONV_2D" else 1,
                    _is_relu6(options.FusedActivationFunction()),
                )
            elif kind == "RESHAPE":
                yield Layer(kind, (inputs[0],), output, last=shape(output)[-1])
            elif kind in ("ADD", "CONCATENATION"):
                yield Layer(kind, tuple(inputs), output)
            else:
                raise RecipeError(f"{FILE} has the operator {kind}, which is not read", field="operator", found=kind)

    found = list(layers())
    given = int(graph.InputsAsNumpy()[0])
    return found, given, graph.OutputsAsNumpy().tolist(), shape(given)[1]


def _is_relu6(activation: int) -> bool:
    if activation not in (_NONE, _RELU6):
        raise RecipeError(f"{FILE} has the activation {activation}, which is not read", found=activation)
    return activation == _RELU6


def _module(layers: list[Layer], given: int, outputs: list[int], boxes: Array, rule: Preprocessor) -> Any:
    import torch
    from torch.nn import functional

    class Ssd(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for number, layer in enumerate(layers):
                if layer.weight is not None and layer.bias is not None:
                    self.register_buffer(f"weight_{number}", torch.from_numpy(layer.weight))
                    self.register_buffer(f"bias_{number}", torch.from_numpy(layer.bias))
            self.register_buffer("anchors", torch.from_numpy(boxes))

        def forward(self, pixels: Any) -> Any:
            scaled = pixels.permute(0, 3, 1, 2).to(torch.float32) * (rule.scale / rule.std[0])
            values = {given: scaled - rule.mean[0] / rule.std[0]}
            for number, layer in enumerate(layers):
                values[layer.output] = self.run(number, layer, [values[name] for name in layer.inputs])
            encoded, raw = (values[output] for output in outputs)
            middle = encoded[..., [1, 0]] / _CENTRE_SCALE * self.anchors[:, 2:] + self.anchors[:, :2]
            half = (encoded[..., [3, 2]] / _SIZE_SCALE).exp() * self.anchors[:, 2:] / 2
            corners = (middle - half).clamp(0, 1), (middle + half).clamp(0, 1)
            return torch.cat([*corners, raw[..., 1:].sigmoid()], dim=-1)

        def run(self, number: int, layer: Layer, inputs: list[Any]) -> Any:
            if layer.kind == "ADD":
                return inputs[0] + inputs[1]
            if layer.kind == "CONCATENATION":
                return torch.cat(inputs, dim=1)
            if layer.kind == "RESHAPE":
                (x,) = inputs
                return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).reshape(x.shape[0], -1, layer.last)
            weight, bias = getattr(self, f"weight_{number}"), getattr(self, f"bias_{number}")
            x = functional.conv2d(
                functional.pad(inputs[0], layer.padding), weight, bias, layer.stride, 0, 1, layer.groups
            )
            return x.clamp(0, 6) if layer.relu6 else x

    return Ssd().eval()
