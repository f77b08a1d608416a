"""A detector in a TensorFlow Lite file, read and run by torch, against the same arithmetic written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
import tflite
import torch
from torch.nn import functional

from export.errors import RecipeError
from export.models.road import ssd_mobilenet
from export.models.road.detections import SCORES
from export.models.road.road_scene import RoadScene

SIDE, PLACES, CLASSES = 16, 33, 2
OPERATORS = tflite.BuiltinOperator
SAME, RELU6 = tflite.Padding.SAME, tflite.ActivationFunctionType.RELU6


class File:
    """Writes a TensorFlow Lite file, tensor by tensor and operator by operator."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1 << 16)
        self.buffers, self.tensors, self.codes, self.operators = [b""], [], [], []

    def tensor(self, shape: tuple[int, ...], values: np.ndarray | None = None) -> int:
        """A value, or a constant in half precision; returns its number."""
        if values is not None:
            self.buffers.append(values.astype(np.float16).tobytes())
        kind = tflite.TensorType.FLOAT32 if values is None else tflite.TensorType.FLOAT16
        self.tensors.append((shape, kind, 0 if values is None else len(self.buffers) - 1))
        return len(self.tensors) - 1

    def constant(self, values: np.ndarray) -> int:
        """A constant as such files have it: halves, and an operator that makes floats of them."""
        half = self.tensor(values.shape, values)
        return self.operator(OPERATORS.DEQUANTIZE, [half], values.shape)

    def operator(self, kind: int, inputs: list[int], shape: tuple[int, ...], **options: int) -> int:
        """Returns the number of its output."""
        output = self.tensor(shape)
        self.operators.append((kind, inputs, output, options))
        return output

    def finished(self, given: int, outputs: list[int]) -> bytes:
        """The file."""
        make = self.builder

        def numbers(values: Any, kind: Any = np.int32) -> int:
            return int(make.CreateNumpyVector(np.array(values, kind)))

        def offsets(values: list[int], start: Any) -> int:
            start(make, len(values))
            for value in reversed(values):
                make.PrependUOffsetTRelative(value)
            return int(make.EndVector())

        def table(start: Any, end: Any, **fields: int) -> int:
            name = start.__name__.removesuffix("Start")
            start(make)
            for field, value in fields.items():
                getattr(tflite, f"{name}Add{field}")(make, value)
            return int(end(make))

        buffers = []
        for content in self.buffers:
            data = numbers(np.frombuffer(content, np.uint8), np.uint8)
            buffers.append(table(tflite.BufferStart, tflite.BufferEnd, Data=data))
        tensors = []
        for shape, kind, buffer in self.tensors:
            sizes = numbers(shape)
            tensors.append(table(tflite.TensorStart, tflite.TensorEnd, Shape=sizes, Type=kind, Buffer=buffer))
        kinds = sorted({kind for kind, *_ in self.operators})
        codes = [
            table(tflite.OperatorCodeStart, tflite.OperatorCodeEnd, DeprecatedBuiltinCode=kind, BuiltinCode=kind)
            for kind in kinds
        ]
        operators = []
        for kind, inputs, output, options in self.operators:
            depthwise = kind == OPERATORS.DEPTHWISE_CONV_2D
            name = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
            made = {"Inputs": numbers(inputs), "Outputs": numbers([output]), "OpcodeIndex": kinds.index(kind)}
            if options:
                start, end = getattr(tflite, f"{name}Start"), getattr(tflite, f"{name}End")
                made["BuiltinOptions"] = table(start, end, **options)
                made["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, name)
            operators.append(table(tflite.OperatorStart, tflite.OperatorEnd, **made))
        graph = {
            "Tensors": offsets(tensors, tflite.SubGraphStartTensorsVector),
            "Operators": offsets(operators, tflite.SubGraphStartOperatorsVector),
            "Inputs": numbers([given]),
            "Outputs": numbers(outputs),
        }
        graphs = [table(tflite.SubGraphStart, tflite.SubGraphEnd, **graph)]
        model = {
            "Subgraphs": offsets(graphs, tflite.ModelStartSubgraphsVector),
            "OperatorCodes": offsets(codes, tflite.ModelStartOperatorCodesVector),
            "Buffers": offsets(buffers, tflite.ModelStartBuffersVector),
        }
        make.Finish(table(tflite.ModelStart, tflite.ModelEnd, **model), file_identifier=b"TFL3")
        return bytes(make.Output())


def constants() -> dict[str, np.ndarray]:
    """Weights as the format lays them out: [outputs, height, width, inputs]."""
    rng = np.random.default_rng(0)
    shapes = {"each": (1, 3, 3, 3), "boxes": (PLACES * 4, 3, 3, 3), "scores": (PLACES * (CLASSES + 1), 1, 1, 3)}
    made = {name: rng.normal(0, 0.3, shape) for name, shape in shapes.items()}
    biases = {f"{name}_bias": rng.normal(0, 0.3, 3 if name == "each" else len(made[name])) for name in shapes}
    return {name: values.astype(np.float16) for name, values in {**made, **biases}.items()}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder as the npm package unpacks to, with a tiny detector."""
    file, of = File(), constants()
    given = file.tensor((1, SIDE, SIDE, 3))
    inputs = [given, file.constant(of["each"]), file.constant(of["each_bias"])]
    half = (1, SIDE // 2, SIDE // 2, 3)
    options = {"Padding": SAME, "StrideW": 2, "StrideH": 2, "FusedActivationFunction": RELU6}
    x = file.operator(OPERATORS.DEPTHWISE_CONV_2D, inputs, half, **options)
    x = file.operator(OPERATORS.ADD, [x, x], half)
    outputs = []
    for name, each in (("boxes", 4), ("scores", CLASSES + 1)):
        inputs = [x, file.constant(of[name]), file.constant(of[f"{name}_bias"])]
        options = {"Padding": SAME, "StrideW": 8, "StrideH": 8}
        y = file.operator(OPERATORS.CONV_2D, inputs, (1, 1, 1, PLACES * each), **options)
        y = file.operator(OPERATORS.RESHAPE, [y], (1, PLACES, each))
        outputs.append(file.operator(OPERATORS.CONCATENATION, [y], (1, PLACES, each)))
    (tmp_path / ssd_mobilenet.FILE).write_bytes(b"???\nBus\nTram\n" + file.finished(given, outputs))
    return tmp_path


def test_the_file_is_read_and_run_as_its_operators_say(package: Path) -> None:
    pixels = torch.randint(0, 256, (2, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    module, preprocessor, labels = ssd_mobilenet.load(package)

    of = {name: torch.from_numpy(values.astype(np.float32)) for name, values in constants().items()}
    x = functional.pad(pixels.permute(0, 3, 1, 2) / 127.5 - 1, (0, 1, 0, 1))  # of one missing pixel, behind
    x = functional.conv2d(x, of["each"].permute(3, 0, 1, 2), of["each_bias"], 2, groups=3).clamp(0, 6) * 2
    encoded = functional.conv2d(x, of["boxes"].permute(0, 3, 1, 2), of["boxes_bias"], 8).reshape(2, PLACES, 4)
    raw = functional.conv2d(x, of["scores"].permute(0, 3, 1, 2), of["scores_bias"], 8).reshape(2, PLACES, -1)
    centre_x, centre_y, width, height = torch.from_numpy(ssd_mobilenet.anchors(SIDE)).T
    y, x, h, w = encoded.unbind(-1)
    middle_x, middle_y = x / 10 * width + centre_x, y / 10 * height + centre_y
    half_w, half_h = (w / 5).exp() * width / 2, (h / 5).exp() * height / 2
    sides = [middle_x - half_w, middle_y - half_h, middle_x + half_w, middle_y + half_h]
    expected = torch.cat([torch.stack(sides, dim=-1).clamp(0, 1), raw[..., 1:].sigmoid()], dim=-1)

    assert (labels, preprocessor.height_width) == (("Bus", "Tram"), (SIDE, SIDE))
    assert torch.allclose(module(pixels), expected, atol=1e-5)


def test_it_is_a_road_scene_detector_at_its_own_size_with_its_own_classes(package: Path) -> None:
    recipe = RoadScene()
    weights = recipe.resolve(str(package))
    source = recipe.load(weights)

    answer = source.predict({"pixels": source.evaluation.inputs["pixels"][:3]})

    assert weights.licence == "Apache-2.0"
    assert source.evaluation.inputs["pixels"].shape[1:] == (SIDE, SIDE, 3)
    assert source.files["1/labels.txt"] == b"Bus\nTram\n"
    assert (answer[SCORES] > 0).any()


def test_the_anchors_are_those_of_mediapipe() -> None:
    """Six layers of 19, 10, 5, 3, 2 and 1 cells a side; three boxes for a cell of the first, six for the others."""
    found = ssd_mobilenet.anchors(300)
    assert len(found) == 19 * 19 * 3 + (10 * 10 + 5 * 5 + 3 * 3 + 2 * 2 + 1) * 6
    assert found[0] == pytest.approx([0.5 / 19, 0.5 / 19, 0.1, 0.1])
    assert found[1] == pytest.approx([0.5 / 19, 0.5 / 19, 0.2 * 2**0.5, 0.2 / 2**0.5])
    assert found[-1] == pytest.approx([0.5, 0.5, 0.95**0.5, 0.95**0.5])


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / ssd_mobilenet.FILE).write_bytes(b"no such thing")
    with pytest.raises(RecipeError):
        ssd_mobilenet.load(tmp_path)
