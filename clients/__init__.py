"""Thin gRPC clients for a KServe-v2 inference server."""

from .async_client import AsyncClient, AsyncModel
from .classification import Classification
from .client import Client, Model
from .errors import (
    DeadlineExceeded,
    InferenceError,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    ServerError,
    Unreachable,
)
from .life import UnusableClient
from .metrics import Metrics
from .options import TLS, InsecureConnectionWarning, Retries
from .shared_memory import SharedMemoryUnavailable
from .spec import ModelSpec, TensorSpec
from .tracing import trace_context

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
    "Metrics",
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
    "UnusableClient",
    "trace_context",
]
