"""The network of the road scene detector: pixels to a class score and a box for each cell of a grid.

It is anchor-free: a cell of 8x8 pixels that lies in the middle of an object has a high score for the object's class,
and gives the distances from its own centre to the four sides of the object's box.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.recipe.recipe import Array

WIDTH, HEIGHT = 320, 192
"""Of the pixels that the network takes; a multiple of 32."""
STRIDE = 8
"""Pixels to a cell of the grid, each way."""


def centres() -> Array:
    """The middle of each cell in pixels, x and y: FP32 [cells, 2], row by row."""
    ys, xs = np.mgrid[0 : HEIGHT // STRIDE, 0 : WIDTH // STRIDE]
    return np.asarray(np.stack([xs.ravel(), ys.ravel()], axis=1) * STRIDE + STRIDE / 2, np.float32)


def build(classes: int) -> Any:
    """A torch module with random weights: FP32 [n, 3, HEIGHT, WIDTH] in 0..1 -> raw scores [n, classes, rows, columns]
    and distances in cells [n, 4, rows, columns] (left, top, right, bottom)."""
    import torch
    from torch import nn
    from torch.nn import functional

    def conv(inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> Any:
        layers = (
            nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )
        return nn.Sequential(*layers)

    class Network(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.at_8 = nn.Sequential(conv(3, 16, stride=2), conv(16, 24, stride=2), conv(24, 48, stride=2))
            self.more_8 = conv(48, 48)
            self.at_16 = nn.Sequential(conv(48, 80, stride=2), conv(80, 80))
            self.at_32 = nn.Sequential(conv(80, 112, stride=2), conv(112, 112))
            self.from_32, self.from_16, self.from_8 = conv(112, 48, size=1), conv(80, 48, size=1), conv(48, 48, size=1)
            self.joined_16, self.head = conv(48, 48), nn.Sequential(conv(48, 48), conv(48, 64))
            self.scores, self.distances = nn.Conv2d(64, classes, 1), nn.Conv2d(64, 4, 1)
            nn.init.constant_(self.scores.bias, -4.6)  # a cell in a hundred at first
            nn.init.constant_(self.distances.bias, 0.5)

        def forward(self, pixels: Any) -> tuple[Any, Any]:
            at_8 = self.at_8(pixels)
            at_8 = at_8 + self.more_8(at_8)
            at_16 = self.at_16(at_8)
            wide = self.joined_16(_twice(self.from_32(self.at_32(at_16))) + self.from_16(at_16))
            x = self.head(_twice(wide) + self.from_8(at_8))
            return self.scores(x), self.distances(x).clamp(-4, 4).exp()

    def _twice(x: Any) -> Any:
        return functional.interpolate(x, scale_factor=2.0, mode="nearest")

    torch.manual_seed(0)
    return Network()


def detector(network: Any) -> Any:
    """The network as a module from pixels UINT8 [n, HEIGHT, WIDTH, 3] to candidates FP32 [n, cells, 4 + classes]: boxes
    as shares of the picture, and scores (see `export.models.road.detections`)."""
    import torch

    class Detector(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.register_buffer("size", torch.tensor([WIDTH, HEIGHT], dtype=torch.float32))
            self.register_buffer("centres", torch.from_numpy(centres()) / self.size)

        def forward(self, pixels: Any) -> Any:
            given = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
            raw, distances = self.network(given)
            scores = raw.flatten(2).transpose(1, 2).sigmoid()
            sides = distances.flatten(2).transpose(1, 2) * STRIDE
            first = self.centres - sides[..., :2] / self.size
            last = self.centres + sides[..., 2:] / self.size
            return torch.cat([first.clamp(0, 1), last.clamp(0, 1), scores], dim=-1)

    return Detector().eval()
