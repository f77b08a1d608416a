"""Thin gRPC clients for a KServe-v2 inference server."""

from .async_client import AsyncClient, AsyncModel
from .classification import Classification
from .client import Client, Model
from .errors import (
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    ModelNotFoundError,
    ModelNotReadyError,
    OverloadedError,
    QueueTimeoutError,
    ServerError,
    UnreachableError,
)
from .life import UnusableClientError
from .metrics import Metrics
from .options import TLS, InsecureConnectionWarning, Retries
from .shared_memory import SharedMemoryUnavailableError
from .spec import ModelSpec, TensorSpec
from .tracing import trace_context

__all__ = [
    "TLS",
    "AsyncClient",
    "AsyncModel",
    "Classification",
    "Client",
    "DeadlineExceededError",
    "InferenceError",
    "InsecureConnectionWarning",
    "InvalidInputError",
    "Metrics",
    "Model",
    "ModelNotFoundError",
    "ModelNotReadyError",
    "ModelSpec",
    "OverloadedError",
    "QueueTimeoutError",
    "Retries",
    "ServerError",
    "SharedMemoryUnavailableError",
    "TensorSpec",
    "UnreachableError",
    "UnusableClientError",
    "trace_context",
]
