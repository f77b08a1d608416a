"""The embedded ONNX Runtime backend does with each kind of model what docs/server.md says beside the official one."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from backend_case import REFUSED, Ask, f32, write_case
from backend_cases import CASES, DEFAULT_BATCH, JOINED, table
from backend_sequence_cases import numbers
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
    with (
        TritonServer(repository, stop_timeout_s=0, ready_timeout_s=300, extra=(*LOAD_ALL, setting)) as server,
        triton.InferenceServerClient(server.grpc_url) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def loaded(client: triton.InferenceServerClient) -> set[str]:
    return {model.name for model in client.get_model_repository_index().models if model.state == "READY"}


def test_the_models_that_load_are_those_that_are_answered(loaded: set[str]) -> None:
    assert loaded == {name for name, case in CASES.items() if case.asks != REFUSED}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.asks != REFUSED])
def test_a_model_answers_as_written(name: str, client: triton.InferenceServerClient) -> None:
    for ask in CASES[name].asks:
        assert isinstance(ask, Ask)
        found = answer(client, name, ask)
        if isinstance(ask.answer, str):
            assert found == ask.answer
            continue
        assert not isinstance(found, str), found
        assert {output: array.shape for output, array in found.items()} == {
            output: np.shape(expected) for output, expected in ask.answer.items()
        }
        for output, expected in ask.answer.items():
            assert found[output].tolist() == np.asarray(expected).tolist()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.completed])
def test_what_is_left_out_is_completed(name: str, client: triton.InferenceServerClient) -> None:
    config = client.get_model_config(name).config
    found = {"max_batch_size": config.max_batch_size, "dynamic_batching": config.HasField("dynamic_batching")}
    assert found == CASES[name].completed


def test_ragged_requests_are_computed_together(client: triton.InferenceServerClient) -> None:
    """Two in one batch begin at 0 and 3 and end at 5, so 8 is added to both; 32 requests come first, each run alone."""
    name = next(name for name, case in CASES.items() if case is JOINED)
    asks = [Ask({"x": f32([1, 2, 3])}, {"flat": []}), Ask({"x": f32([4, 5])}, {"flat": []})]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(17):
            found = [flat["flat"].tolist() for flat in pool.map(lambda ask: answer(client, name, ask), asks)]
    assert found == [[[9, 10, 11]], [[12, 13]]]


@pytest.mark.parametrize("what", ["from zero", "direct strategy"])
def test_sequences_side_by_side_keep_their_own_states(what: str, client: triton.InferenceServerClient) -> None:
    """More sequences than slots, in batches that Triton makes and, with the direct strategy, fills up."""
    name = next(name for name, case in CASES.items() if (case.feature, case.what) == ("implicit state", what))

    def totals(sequence: int) -> list[float]:
        asks = numbers("total", [0] * 10, sequence=sequence)
        return [answer(client, name, ask)["total"].item() for ask in asks]

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(totals, range(1, 13))) == [[1, 3, 6, 10, 15, 21, 28, 36, 45, 55]] * 12


def test_the_documentation_prints_the_comparison() -> None:
    assert table() in (Path(__file__).parents[2] / "docs" / "server.md").read_text()


def answer(client: triton.InferenceServerClient, name: str, ask: Ask) -> Mapping[str, np.ndarray[Any, Any]] | str:
    """The outputs that `ask` names, or the status code of the error."""
    inputs = []
    for key, value in ask.inputs.items():
        array = (
            np.array([[text if isinstance(text, bytes) else text.encode() for text in row] for row in value], object)
            if isinstance(value, list)
            else value
        )
        inputs.append(triton.InferInput(key, array.shape, np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    outputs = None if isinstance(ask.answer, str) else [triton.InferRequestedOutput(output) for output in ask.answer]
    arguments: dict[str, Any] = {"outputs": outputs}
    if ask.sequence:
        arguments |= {"sequence_id": ask.sequence, "sequence_start": ask.start, "sequence_end": ask.end}
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
