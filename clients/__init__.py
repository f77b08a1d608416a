"""Thin gRPC clients for a KServe-v2 inference server."""

from clients.async_client import AsyncClient, AsyncModel
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
from clients.options import TLS, InsecureConnectionWarning, Retries
from clients.shared_memory import SharedMemoryUnavailable
from clients.spec import ModelSpec, TensorSpec

__all__ = [
    "TLS",
    "AsyncClient",
    "AsyncModel",
    "Classification",
    "Client",
    "DeadlineExceeded",
    "InferenceError",
    "InsecureConnectionWarning",
    "InvalidInput",
    "Model",
    "ModelNotFound",
    "ModelNotReady",
    "ModelSpec",
    "Overloaded",
    "Retries",
    "ServerError",
    "SharedMemoryUnavailable",
    "TensorSpec",
    "Unreachable",
]
