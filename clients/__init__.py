"""Thin gRPC clients for a KServe-v2 inference server."""

from clients.async_client import AsyncClient, AsyncModel
from clients.classification import Classification
from clients.client import Client, Model
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
from clients.life import UnusableClient
from clients.metrics import Metrics
from clients.options import TLS, InsecureConnectionWarning, Retries
from clients.shared_memory import SharedMemoryUnavailable
from clients.spec import ModelSpec, TensorSpec
from clients.tracing import trace_context

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
