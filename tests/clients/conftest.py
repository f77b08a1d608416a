"""Servers that the client tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from complete_server import complete_server
from generation_models import write_tensorrt_llm, write_vllm
from python_models import write_counter, write_nap, write_total
from small_models import DOUBLE_CONFIG, write_double

from server import TritonServer


@pytest.fixture(scope="session")
def python_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A running Triton with the models of `python_models` and `generation_models`: `counter`, `total`, `nap`,
    `brief_nap`, `vllm` and `tensorrt_llm`."""
    repository = tmp_path_factory.mktemp("python") / "model_repository"
    write_counter(repository)
    write_total(repository)
    write_nap(repository)
    write_nap(repository, "brief_nap", queue_timeout_us=300_000)
    write_vllm(repository)
    write_tensorrt_llm(repository)
    with complete_server(repository) as server:
        yield server


@pytest.fixture(scope="session")
def double_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`double` alone, which starts in a second."""
    repository = tmp_path_factory.mktemp("double") / "model_repository"
    write_double(repository / "double", DOUBLE_CONFIG)
    return repository
