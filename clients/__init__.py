"""Thin gRPC clients for a KServe-v2 inference server."""

from clients.client import Client, Model
from clients.codec import Classification
from clients.errors import (
    DeadlineExceeded,
    InferenceError,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    ServerError,
    Unreachable,
)
from clients.spec import ModelSpec, TensorSpec

__all__ = [
    "Classification",
    "Client",
    "DeadlineExceeded",
    "InferenceError",
    "InvalidInput",
    "Model",
    "ModelNotFound",
    "ModelNotReady",
    "ModelSpec",
    "Overloaded",
    "ServerError",
    "TensorSpec",
    "Unreachable",
]
