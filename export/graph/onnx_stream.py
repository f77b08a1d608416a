"""ONNX files of any size, written and read without their weights passing through memory.

An ONNX file is one protobuf message, and protobuf holds a message whole, twice while it reads or writes. Most of it is
the weights, which are plain bytes in known places: here they are copied from file to file, or stepped over.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from export import files
from export.errors import ContractError, LimitError
from export.graph.runtime import setting

LARGEST_MESSAGE = 2**31 - 1
"""What protobuf can read; weights beyond it stay in a file beside the model."""

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # field numbers of ModelProto, GraphProto and TensorProto (onnx.proto)
_VARINT, _64_BIT, _BYTES, _32_BIT = 0, 1, 2, 5
_CHUNK = 1 << 20
_ALIGNMENT = 64
"""Of a tensor in a file of weights, which ONNX Runtime maps into memory."""

PARTS, MOST_PARTS = "FATHOM_GRAPH_PARTS", 250_000
"""Each node, tensor and value is a Python object in what follows; the largest language models have some 100,000."""

_SMALL = 256
"""Bytes: a node of fewer is not looked into, since hardly a graph fits."""

_DEEPEST = 100
"""Messages in messages, of protobuf's own parsers."""

_INSIDE = {
    "model": {_GRAPH: "graph", 25: "function"},
    "graph": {1: "node"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {6: "graph", 11: "graph"},
}
"""Where nodes lie, by field numbers of onnx.proto."""

LARGE = 1 << 16
"""Bytes: what is smaller is read with the graph, since it may decide shapes."""


def write(model: Any, home: Path, target: Path, *, largest: int = LARGEST_MESSAGE) -> None:
    """Write a model whose external tensors lie in files of `home`, as one file of up to `largest` bytes.

    A larger one keeps them in one file beside it, `<target's name>.data`. `model` is changed. Raises ContractError for
    a data file that is missing or too short.
    """
    sources = [_Data.of(tensor, home) for tensor in model.graph.initializer]
    if sum(source.length for source in sources if source) + model.ByteSize() > largest:
        _write_beside(model, sources, target)
        return
    heads = []
    for tensor, source in zip(model.graph.initializer, sources, strict=True):
        if source is not None:
            tensor.ClearField("data_location")
            del tensor.external_data[:]
        heads.append(tensor.SerializeToString(deterministic=True))
    del model.graph.initializer[:]
    graph = model.graph.SerializeToString(deterministic=True)
    model.ClearField("graph")
    tails = [_key(_RAW_DATA, _BYTES) + _varint(source.length) if source else b"" for source in sources]
    lengths = [
        len(head) + len(tail) + (source.length if source else 0)
        for head, tail, source in zip(heads, tails, sources, strict=True)
    ]
    prefixes = [_key(_INITIALIZER, _BYTES) + _varint(length) for length in lengths]
    whole = len(graph) + sum(map(len, prefixes)) + sum(lengths)
    with target.open("wb") as file:
        file.write(model.SerializeToString(deterministic=True))
        file.write(_key(_GRAPH, _BYTES) + _varint(whole) + graph)
        for prefix, head, tail, source in zip(prefixes, heads, tails, sources, strict=True):
            file.write(prefix + head + tail)
            if source is not None:
                source.copy(file)


def take_apart(path: Path, data: Path, *, keep_bytes: int = LARGE) -> Any:
    """The model with its initializers of more than `keep_bytes` in the file `data`, which is written, and to which it
    refers by name."""
    places: dict[str, tuple[int, int]] = {}
    model = read_without_weights(path, keep_bytes=keep_bytes, places=places)
    with data.open("wb") as file:
        for tensor in model.graph.initializer:
            if tensor.name in places:
                begin, end = places[tensor.name]
                _append(_Data(path, begin, end - begin), file, tensor)
            elif (source := _Data.of(tensor, path.parent)) is not None:
                _append(source, file, tensor)
    return model


def read_without_weights(path: Path, *, keep_bytes: int = 0, places: dict[str, tuple[int, int]] | None = None) -> Any:
    """The model with every initializer's name, type and shape, and without its raw bytes if more than `keep_bytes`.

    `places` is filled with where those that were left out begin and end in the file, by name. Raises ValueError
    (protobuf's DecodeError among them) for a file that is no ONNX model, and LimitError for one of too many parts.
    """
    import onnx

    check_parts(path)
    model = onnx.ModelProto()
    with files.open_file(path) as file:
        rest = bytearray()
        for number, start, begin, end in _fields(file, path.stat().st_size):
            if number == _GRAPH:
                _read_graph(file, begin, end, model.graph, keep_bytes, {} if places is None else places)
            else:
                rest += _slice(file, start, end)
            file.seek(end)
        try:
            model.MergeFromString(bytes(rest))
        except Exception as error:  # DecodeError's class differs by protobuf's implementation
            raise ValueError(f"not an ONNX model: {error}") from error
    return model


def check_parts(path: Path) -> None:
    """Raise LimitError for a model of more nodes, tensors and values than FATHOM_GRAPH_PARTS, without parsing it.

    Raises ValueError for a file that is no ONNX model.
    """
    with files.open_file(path) as file:
        if _count(file, path.stat().st_size, "model", most_parts()) < 0:
            raise too_many_parts(path.name)


def most_parts() -> int:
    """How many nodes, tensors and values a model may have."""
    return int(setting(PARTS) or MOST_PARTS)


def too_many_parts(name: str) -> LimitError:
    """The error of a model that has more."""
    return LimitError(
        f"{name} has more than {most_parts():,} nodes, tensors and values",
        remedy=f"allow more with {PARTS}",
        field=PARTS,
        expected=most_parts(),
    )


def _count(file: BinaryIO, end: int, kind: str, left: int, depth: int = 0) -> int:
    """`left` less the parts of the message that the file stands at; below 0 counting stops."""
    if depth > _DEEPEST:
        raise ValueError("more graphs in graphs than protobuf reads")
    counted = kind not in ("node", "attribute")
    for number, _, begin, stop in _fields(file, end):
        inner = _INSIDE[kind].get(number)
        left -= counted
        if inner and (inner != "node" or stop - begin > _SMALL):
            file.seek(begin)
            left = _count(file, stop, inner, left, depth + 1)
        if left < 0:
            break
        file.seek(stop)
    return left


class _Data:
    """Where a tensor's bytes lie."""

    def __init__(self, path: Path, offset: int, length: int) -> None:
        self.path, self.offset, self.length = path, offset, length

    @staticmethod
    def of(tensor: Any, home: Path) -> _Data | None:
        """None for a tensor that carries its own bytes."""
        if tensor.data_location != tensor.EXTERNAL:
            return None
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = files.find(home, entries.get("location", ""))
        size = path.stat().st_size
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", size - offset))
        if offset + length > size or min(offset, length) < 0:
            raise ContractError(
                f"{path.name} has {size} bytes, tensor '{tensor.name}' lies at {offset + length} and before",
                remedy="write the model again",
                file=path.name,
                tensor=tensor.name,
                found=size,
                expected=offset + length,
            )
        return _Data(path, offset, length)

    def copy(self, file: BinaryIO) -> None:
        """Append the bytes to a file."""
        left = self.length
        with files.open_file(self.path) as source:
            source.seek(self.offset)
            while left:
                chunk = source.read(min(_CHUNK, left))
                if not chunk:
                    raise ContractError(
                        f"{self.path.name} became shorter while it was read", remedy="write the model again"
                    )
                file.write(chunk)
                left -= len(chunk)


def _write_beside(model: Any, sources: list[_Data | None], target: Path) -> None:
    """Keep the weights external, all in one file named after the model."""
    data = target.with_name(target.name + ".data")
    with data.open("wb") as file:
        for tensor, source in zip(model.graph.initializer, sources, strict=True):
            if source is not None:
                _append(source, file, tensor)
    target.write_bytes(model.SerializeToString(deterministic=True))


def _append(source: _Data, file: BinaryIO, tensor: Any) -> None:
    """Copy a tensor's bytes to the end of a file and let it refer to them."""
    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
    refer(tensor, Path(file.name).name, file.tell(), source.length)
    source.copy(file)


def refer(tensor: Any, location: str, offset: int, length: int) -> None:
    """Let a tensor's bytes be those of a file beside the model."""
    tensor.data_location = tensor.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _read_graph(
    file: BinaryIO, begin: int, end: int, graph: Any, keep_bytes: int, places: dict[str, tuple[int, int]]
) -> None:
    file.seek(begin)
    rest = bytearray()
    tensors: list[tuple[bytes, tuple[int, int] | None]] = []
    for number, start, inner, stop in _fields(file, end):
        if number == _INITIALIZER:
            head = bytearray()
            place = None
            file.seek(inner)
            for part, first, value, last in _fields(file, stop):
                if part != _RAW_DATA or last - value <= keep_bytes:
                    head += _slice(file, first, last)
                else:
                    place = (value, last)
                file.seek(last)
            tensors.append((bytes(head), place))
        else:
            rest += _slice(file, start, stop)
        file.seek(stop)
    try:
        graph.MergeFromString(bytes(rest))
        for head_of, place in tensors:
            tensor = graph.initializer.add()
            tensor.MergeFromString(head_of)
            if place is not None:
                places[tensor.name] = place
    except Exception as error:
        raise ValueError(f"not an ONNX graph: {error}") from error


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, start of the field, begin and end of its value) from where the file stands up to `end`.

    Seek to a field's end before asking for the next.
    """
    while (start := file.tell()) < end:
        key = _read_varint(file)
        number, kind = key >> 3, key & 7
        begin = file.tell()
        if kind == _BYTES:
            length = _read_varint(file)
            begin = file.tell()
            stop = begin + length
        elif kind == _VARINT:
            _read_varint(file)
            stop = file.tell()
        elif kind in (_64_BIT, _32_BIT):
            stop = begin + (8 if kind == _64_BIT else 4)
        else:
            raise ValueError(f"no protobuf field at byte {start}")
        if number == 0 or stop > end:
            raise ValueError(f"a field at byte {start} does not fit its message")
        yield number, start, begin, stop


def _slice(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


def _read_varint(file: BinaryIO) -> int:
    value = shift = 0
    while shift < 70:
        byte = file.read(1)
        if not byte:
            raise ValueError("the file ends within a field")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
    raise ValueError("a number of more than 64 bits")


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)
