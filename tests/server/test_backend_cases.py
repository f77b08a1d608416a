"""The embedded ONNX Runtime backend does with each kind of model what docs/reference/backend.md says."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from backend_case import Refused, Request, f32, write_case
from backend_cases import CASES, DEFAULT_BATCH, table
from backend_ragged_cases import JOINED
from backend_sequence_cases import numbers
from complete_server import HEADERS, TOKEN
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from server import TritonServer

pytestmark = pytest.mark.process

LOAD_ALL = ("--model-control-mode=explicit", "--load-model=*", "--exit-on-error=false", "--strict-readiness=false")
DEADLINE_S = 30


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[triton.InferenceServerClient]:
    """All cases in one server, which is ready when each is loaded or refused."""
    repository = tmp_path_factory.mktemp("backend") / "model_repository"
    for name, case in CASES.items():
        write_case(repository, name, case)
    setting = f"--backend-config=onnxruntime,default-max-batch-size={DEFAULT_BATCH}"
    options = {"stop_timeout_s": 0, "ready_timeout_s": 300, "admin_token": TOKEN, "extra": (*LOAD_ALL, setting)}
    with (
        TritonServer(repository, **options) as server,
        triton.InferenceServerClient(server.grpc_url) as client,
    ):
        yield client


LOADED = [name for name, case in CASES.items() if not isinstance(case.requests, Refused)]


def test_models_load_or_are_refused_for_their_reason(client: triton.InferenceServerClient) -> None:
    index = {model.name: model for model in client.get_model_repository_index(headers=HEADERS).models}
    assert [name for name in CASES if index[name].state == "READY"] == LOADED
    for name, case in CASES.items():
        if isinstance(case.requests, Refused):
            missing = [word for word in case.requests.names if word not in index[name].reason]
            assert not missing, index[name].reason


@pytest.mark.parametrize("name", [name for name in LOADED if CASES[name].requests])
def test_a_model_answers_as_written(name: str, client: triton.InferenceServerClient) -> None:
    for request in CASES[name].requests:
        assert isinstance(request, Request)
        found = infer(client, name, request)
        if isinstance(request.response, str):
            assert found == request.response
            continue
        assert not isinstance(found, str), found
        assert {output: array.shape for output, array in found.items()} == {
            output: np.shape(expected) for output, expected in request.response.items()
        }
        for output, expected in request.response.items():
            assert found[output].tolist() == np.asarray(expected).tolist()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.completed])
def test_what_is_left_out_is_completed(name: str, client: triton.InferenceServerClient) -> None:
    config = client.get_model_config(name).config
    found = {"max_batch_size": config.max_batch_size, "dynamic_batching": config.HasField("dynamic_batching")}
    assert found == CASES[name].completed


def test_ragged_requests_are_computed_together(client: triton.InferenceServerClient) -> None:
    """Two in one batch begin at 0 and 3, or 0 and 2 in the other order, and end at 5, so 8 or 7 is added to both; 32
    requests come first, each run alone."""
    name = next(name for name, case in CASES.items() if case is JOINED)
    requests = [Request({"x": f32([1, 2, 3])}, {"flat": []}), Request({"x": f32([4, 5])}, {"flat": []})]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(17):
            found = [flat["flat"].tolist() for flat in pool.map(lambda request: infer(client, name, request), requests)]
    assert found in ([[[1 + added, 2 + added, 3 + added]], [[4 + added, 5 + added]]] for added in (8, 7))


@pytest.mark.parametrize("what", ["from zero", "direct strategy"])
def test_sequences_side_by_side_keep_their_own_states(what: str, client: triton.InferenceServerClient) -> None:
    """More sequences than slots, in batches that Triton makes and, with the direct strategy, fills up."""
    name = next(name for name, case in CASES.items() if (case.feature, case.what) == ("implicit state", what))

    def totals(sequence: int) -> list[float]:
        requests = numbers("total", [0] * 10, sequence=sequence)
        return [infer(client, name, request)["total"].item() for request in requests]

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(totals, range(1, 13))) == [[1, 3, 6, 10, 15, 21, 28, 36, 45, 55]] * 12


def test_the_documentation_prints_the_comparison() -> None:
    assert table() in (Path(__file__).parents[2] / "docs" / "reference" / "backend.md").read_text()


def infer(client: triton.InferenceServerClient, name: str, request: Request) -> Mapping[str, np.ndarray] | str:
    """The outputs that `request` names, or the status code of the error."""
    inputs = []
    for key, array in request.inputs.items():
        inputs.append(triton.InferInput(key, array.shape, np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    expected = () if isinstance(request.response, str) else request.response
    arguments: dict[str, Any] = {"outputs": [triton.InferRequestedOutput(output) for output in expected] or None}
    if request.sequence:
        arguments |= {"sequence_id": request.sequence, "sequence_start": request.start, "sequence_end": request.end}
    try:
        if client.get_model_config(name).config.model_transaction_policy.decoupled:
            result = streamed(client, name, inputs, arguments)
        else:
            result = client.infer(name, inputs, client_timeout=DEADLINE_S, **arguments)
    except InferenceServerException as error:
        return str(error.status()).removeprefix("StatusCode.")
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def streamed(client: triton.InferenceServerClient, name: str, inputs: list[Any], arguments: dict[str, Any]) -> Any:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer(name, inputs, **arguments)
    result, error = answers.get(timeout=DEADLINE_S)
    client.stop_stream()
    if error:
        raise error
    return result
