"""Named numpy arrays to request bytes and back: the part of a client that does no I/O, in one name."""

from clients.answers import Classification, decode, decode_classes, decode_part, unpack_bytes
from clients.inputs import check_inputs, check_outputs
from clients.requests import Placement, Region, encode, encode_as_before, pack_bytes, pack_texts, write

__all__ = [
    "Classification",
    "Placement",
    "Region",
    "check_inputs",
    "check_outputs",
    "decode",
    "decode_classes",
    "decode_part",
    "encode",
    "encode_as_before",
    "pack_bytes",
    "pack_texts",
    "unpack_bytes",
    "write",
]
