"""What a ModelStreamInferResponse says, read from its first bytes: an error in words, a part of an answer, or nothing.

Triton 2.51 gives every message of a decoupled model its name, version and the parameter `triton_final_response`. A
message without outputs is no part: it only marks the end, where the request asked for that. An answer that ends without
the mark was cut off. An error comes without a gRPC status, which is found in its words as the clients do.
"""

from __future__ import annotations

import functools

from clients import (
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    ModelNotFoundError,
    ModelNotReadyError,
    OverloadedError,
    QueueTimeoutError,
)
from clients.failures import Sent, from_text
from loadtests.records.record import DEADLINE_EXCEEDED, UNAVAILABLE

# As protobuf writes field and type: `error_message` (1) and `infer_response` (2), and of the latter `outputs` (5) and
# `raw_output_contents` (6); and of one of its `parameters` (4) the name, and the value `bool_param` (1).
_ERROR_MESSAGE, _INFER_RESPONSE = 0x0A, 0x12
_OUTPUTS = (0x2A, 0x32)
_PARAMETER, _FINAL, _TRUE = 0x22, b"\x0a\x15triton_final_response", b"\x12\x02\x08\x01"
_TYPE, _WITH_LENGTH = 0x07, 2
_MORE = 0x80
_GRPC_INVALID_ARGUMENT, _GRPC_NOT_FOUND, _GRPC_INTERNAL = 3, 5, 13
_STATUS: dict[type[InferenceError], int] = {
    OverloadedError: UNAVAILABLE,
    QueueTimeoutError: UNAVAILABLE,
    ModelNotReadyError: UNAVAILABLE,
    DeadlineExceededError: DEADLINE_EXCEEDED,
    InvalidInputError: _GRPC_INVALID_ARGUMENT,
    ModelNotFoundError: _GRPC_NOT_FOUND,
}


def error_of(message: bytes) -> str | None:
    """The words of an error; None where it is none."""
    if not message or message[0] != _ERROR_MESSAGE:
        return None
    length, start = _length(message, 1)
    return message[start : start + length].decode("utf-8", "replace")


def read_part(message: bytes) -> tuple[bool, bool | None]:
    """Whether it is a part of an answer, and whether it is the model's final response; None where it does not say. The
    beginning of a long message is enough."""
    if not message or message[0] != _INFER_RESPONSE:
        return bool(message), None
    length, position = _length(message, 1)
    whole, final = position + length, None
    end = min(whole, len(message)) - 1
    while position < end:
        field = message[position]
        if field in _OUTPUTS or field & _TYPE != _WITH_LENGTH:
            return True, final
        length, position = message[position + 1], position + 2
        if length & _MORE:
            length, position = _length(message, position - 1)
        if field == _PARAMETER and message.startswith(_FINAL, position):
            final = message[position + len(_FINAL) : position + length] == _TRUE
        position += length
    return position != whole, final


def _length(message: bytes, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and where it ends; a number that is cut off ends there."""
    value = shift = 0
    for byte in message[position : position + 10]:
        position += 1
        value |= (byte & ~_MORE) << shift
        if not byte & _MORE:
            break
        shift += 7
    return value, position


@functools.lru_cache(1000)
def failure_of(words: str) -> tuple[int, str]:
    """The gRPC status that an error in a stream stands for, and the words without its name."""
    found = from_text(words, Sent())
    return _STATUS.get(type(found), _GRPC_INTERNAL), found.details
