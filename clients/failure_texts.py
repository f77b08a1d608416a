"""The gRPC status of a failure inside a stream, for which Triton sends a text alone."""

from __future__ import annotations

import re

import grpc

_CODE = grpc.StatusCode
# A model can begin its text with the name that pb_utils.TritonError has for the status, and a colon.
_NAMED = {
    "INVALID_ARG": _CODE.INVALID_ARGUMENT,
    "NOT_FOUND": _CODE.NOT_FOUND,
    "UNAVAILABLE": _CODE.UNAVAILABLE,
    "UNSUPPORTED": _CODE.UNIMPLEMENTED,
    "ALREADY_EXISTS": _CODE.ALREADY_EXISTS,
    "CANCELLED": _CODE.CANCELLED,
    "INTERNAL": _CODE.INTERNAL,
    "UNKNOWN": _CODE.UNKNOWN,
}
_BEFORE = r"(?:\[request id: [^]]*\] |in ensemble '[^']*', )*"  # what Triton itself puts before a text
_NAME = re.compile(f"{_BEFORE}({'|'.join(_NAMED)}): ")
# Triton's own, and the status that comes with each outside of streams; the first that is found decides.
_TEXTS = (
    (r"^Request for unknown model: .* is not found$", _CODE.NOT_FOUND),
    (r"^Request for unknown model: ", _CODE.UNAVAILABLE),
    (r"Exceeds maximum queue size|Request timeout expired", _CODE.UNAVAILABLE),
    (r"stopped accepting new inference requests", _CODE.UNAVAILABLE),
    (
        rf"^{_BEFORE}(expected \d+ inputs? but got|unexpected (shape for input|inference (input|output))|"
        r"inference input '.*' data-type is|inference request batch-size must be|input byte size mismatch|"
        r"unable to find data for input tensor)",
        _CODE.INVALID_ARGUMENT,
    ),
)


def split(text: str) -> tuple[grpc.StatusCode | None, str]:
    """The status, None where the text does not tell, and the text without its name."""
    if named := _NAME.match(text):
        return _NAMED[named[1]], text[: named.start(1)] + text[named.end() :]
    return next((status for words, status in _TEXTS if re.search(words, text)), None), text
