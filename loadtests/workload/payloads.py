"""Requests for a model nobody wrote a recipe for: inputs of the right type and shape, made from its metadata."""

from __future__ import annotations

import math
import re
import struct
import zlib
from typing import Any

import numpy as np

from clients import codec
from clients.datatypes import NUMPY_TYPE
from loadtests.errors import BadRequestError
from loadtests.target.client import Target
from loadtests.target.parameters import Payload
from loadtests.workload import generation

POOL_SIZE = 32
_IN_SEQUENCE = 10
"""The number of requests in each sequence that is made up."""
_FREE_DIMENSION = 16
_TEXT = (
    "the quick brown fox jumps over a lazy dog while seven wizards play jazz near the old harbour and rain falls on "
    "quiet streets after a long summer day"
)
_WORDS = _TEXT.split()
_TEXT_BYTES = 128
"""About the memory of a made-up text, in its list."""
_PICTURES = frozenset({"image", "images", "img", "jpeg", "jpg", "photo", "picture", "pictures", "png"})
_MOST_AXES = 32
"""Of a tensor of numpy's."""
_SIDE, _BLOCK = 224, 32
"""Pixels of a made picture's side, and of the squares it is made of: a few kilobytes, as a drawing has."""


def made_for(target: Target, *, seed: int) -> tuple[list[Payload], str]:
    """Payloads for a model, of one that keeps state sequences, and what they assume (see `assumptions`).

    Raises what `from_metadata` raises.
    """
    metadata, config = target.metadata(), target.config()
    assumed = assumptions(metadata, config)
    if not target.keeps_state:
        return list(from_metadata(metadata, config, seed=seed)), assumed
    requests = from_metadata(metadata, config, seed=seed, count=POOL_SIZE * _IN_SEQUENCE)
    sequences: list[Payload] = [tuple(requests[at : at + _IN_SEQUENCE]) for at in range(0, len(requests), _IN_SEQUENCE)]
    each = f"sequences of {target.model} have {_IN_SEQUENCE} requests each"
    return sequences, "; ".join(filter(None, (assumed, each)))


def from_metadata(
    metadata: Any, config: Any | None, *, seed: int, count: int = POOL_SIZE, most_bytes: int = 1 << 28
) -> list[bytes]:
    """`count` different encoded ModelInferRequests, one item each, from ModelMetadataResponse and ModelConfig.

    Numbers are uniform: 0..255 for 8-bit integers, 0 and 1 for other integers (valid as a token, class or flag), 0..1
    for floats; text is a few English words, or a PNG file where the input's name says that it is a picture. A dimension
    that is free is 16, the batch dimension 1. Without a ModelConfig the first dimension counts as the batch where it is
    free in every input. The shapes are a server's word: fewer are made where so many
    would take more than `most_bytes`, and BadRequestError is raised where one does. A model that generates text gets
    prompts, and asks for answers, of different lengths (see `generation`).
    """
    from tritonclient.grpc import service_pb2

    rng = np.random.default_rng([seed, 2])
    if generates := generation.generates(config):
        metadata = generation.without_options(metadata, config)
    shapes = _shapes(metadata, config)
    size = sum(_about_bytes(tensor, shape) for tensor, shape in zip(metadata.inputs, shapes, strict=True))
    if size > most_bytes or any(len(shape) > _MOST_AXES for shape in shapes):
        raise BadRequestError(
            f"a request of {metadata.name} would have {size:,} bytes and {max(map(len, shapes))} axes by the server's "
            f"word, and at most {most_bytes:,} bytes and {_MOST_AXES} axes are made up; give payloads of your own",
            field="payloads",
        )
    payloads = []
    for _ in range(min(count, most_bytes // max(size, 1))):
        request: Any = service_pb2.ModelInferRequest(model_name=metadata.name)
        drawn = generation.drawn(rng) if generates else {}
        for tensor, shape in zip(metadata.inputs, shapes, strict=True):
            value = drawn.get(tensor.name, drawn.get("prompt") if tensor.datatype == "BYTES" else None)
            request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
            request.raw_input_contents.append(
                _content(tensor, shape, rng) if value is None else _filled(tensor, shape, value)
            )
        payloads.append(request.SerializeToString())
    return payloads


def assumptions(metadata: Any, config: Any | None) -> str:
    """What made-up requests assume about the model, for a person; empty where the server tells all of their shapes."""
    batched = config is not None and config.max_batch_size > 0
    if generation.generates(config):
        metadata = generation.without_options(metadata, config)
    if not any(size < 0 for tensor in metadata.inputs for size in tensor.shape[1 if batched else 0 :]):
        return ""
    shapes = zip(metadata.inputs, _shapes(metadata, config), strict=True)
    made = ", ".join(f"{tensor.name} {tensor.datatype} {shape}" for tensor, shape in shapes)
    first = _first_is_batch(metadata) if config is None else batched
    why = "the server does not tell its configuration, so " if config is None else ""
    rows = "the first dimension counts as the batch" if first else "no dimension counts as a batch"
    return f"inputs of {metadata.name} are made up as {made}: {why}{rows}"


def _shapes(metadata: Any, config: Any | None) -> list[list[int]]:
    """The shape of one item of each input."""
    batched = _first_is_batch(metadata) if config is None else config.max_batch_size > 0
    return [
        [
            size if size >= 0 else 1 if batched and axis == 0 else _FREE_DIMENSION
            for axis, size in enumerate(tensor.shape)
        ]
        for tensor in metadata.inputs
    ]


def _first_is_batch(metadata: Any) -> bool:
    return all(len(tensor.shape) and tensor.shape[0] < 0 for tensor in metadata.inputs)


def _about_bytes(tensor: Any, shape: list[int]) -> int:
    """The most that the tensor of a made-up request may take, its name included."""
    width = NUMPY_TYPE[tensor.datatype].itemsize if tensor.datatype in NUMPY_TYPE else _TEXT_BYTES
    return 64 + len(tensor.name) + math.prod(shape) * width


def _content(tensor: Any, shape: list[int], rng: np.random.Generator) -> bytes:
    if tensor.datatype == "BYTES":
        is_picture = _PICTURES & {*re.split(r"[^a-z]+", tensor.name.lower())}
        items = [_picture(rng) if is_picture else _words(rng) for _ in range(int(np.prod(shape)))]
        return codec.pack_bytes(np.array(items, object))
    if tensor.datatype not in NUMPY_TYPE:
        raise BadRequestError(
            f"input {tensor.name} has type {tensor.datatype}, for which no input can be made; "
            "give payloads of your own",
            field="payloads",
        )
    dtype = NUMPY_TYPE[tensor.datatype]
    if dtype.kind in "fV":  # V: bfloat16
        return rng.random(shape, np.float64 if dtype.itemsize == 8 else np.float32).astype(dtype).tobytes()
    highest = {"UINT8": 256, "INT8": 128}.get(tensor.datatype, 2)
    return rng.integers(0, highest, shape, dtype.type).tobytes()


def _filled(tensor: Any, shape: list[int], value: Any) -> bytes:
    """With one value throughout."""
    if tensor.datatype == "BYTES":
        return codec.pack_bytes(np.full(shape, str(value).encode(), object))
    return np.full(shape, value, NUMPY_TYPE[tensor.datatype]).tobytes()


def _words(rng: np.random.Generator) -> bytes:
    return " ".join(rng.choice(_WORDS, rng.integers(4, 13))).encode()


def _picture(rng: np.random.Generator) -> bytes:
    """A PNG file of coloured squares, written here because load generators need no imaging library."""
    squares = rng.integers(0, 256, (_SIDE // _BLOCK, _SIDE // _BLOCK, 3), np.uint8)
    pixels = squares.repeat(_BLOCK, 0).repeat(_BLOCK, 1).reshape(_SIDE, -1)
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)  # each begins with its filter: none
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    )
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
