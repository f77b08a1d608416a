"""The embedded server: readiness, coexistence, and one clear sentence for everything that can keep it from starting."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from complete_server import complete_server
from python_models import write_nap
from small_models import DOUBLE_CONFIG, write_double
from waiting import until

from clients import AsyncClient, Client, ModelNotFoundError
from server import ServerDiedError, ServerStartError, TritonServer, TritonServerError

pytestmark = pytest.mark.process


def leftovers(tag: str) -> list[Path]:
    return [*Path("/dev/shm").glob(f"fathom-*-{tag}-*"), *Path("/tmp").glob(f"fathom-triton-*-{tag}-*")]


def processes_mentioning(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in command:
            found.append(command)
    return found


def test_two_servers_on_one_machine_answer_side_by_side(small_server, tmp_path):
    write_double(tmp_path / "double", DOUBLE_CONFIG)
    with complete_server(tmp_path) as second:
        assert second.grpc_url != small_server.grpc_url
        for server in (small_server, second):
            with Client(server.grpc_url) as client:
                assert client.model("double")(x=[[1.0, 2.0]])["y"].tolist() == [[2.0, 4.0]]


def test_a_batch_is_computed_in_runs_of_so_many_rows(small_server):
    """Each row of `together` says how many rows were computed with it."""
    with Client(small_server.grpc_url) as client:
        answers = client.model("in_runs")(x=np.arange(5, dtype=np.float32)[:, None])
    assert answers["together"].ravel().tolist() == [2, 2, 2, 2, 1]
    assert answers["same"].ravel().tolist() == [0, 1, 2, 3, 4]


def test_requests_that_wait_are_joined_into_such_runs(small_server):
    async def ask():
        async with AsyncClient(small_server.grpc_url) as client:
            in_runs = await client.model("in_runs")
            return await asyncio.gather(*(in_runs(x=[[n]]) for n in range(4)))

    answers = asyncio.run(ask())
    assert [answer["together"].item() for answer in answers] == [2, 2, 2, 2]
    assert [answer["same"].item() for answer in answers] == [0, 1, 2, 3]


def test_it_listens_on_the_loopback_interface_only(small_server):
    connections = psutil.Process(small_server.pid).net_connections()
    listening = [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]
    assert len(listening) == 3
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def test_a_stop_answers_what_is_in_flight_and_leaves_nothing_behind(tmp_path):
    write_nap(tmp_path)
    server = TritonServer(tmp_path).start()
    pid, tag = server.pid, str(os.getpid())
    own = [path for path in leftovers(tag) if path.name in str(server.log_path) or "shm" in str(path)]
    assert own
    assert processes_mentioning(str(tmp_path))
    with Client(server.grpc_url) as client, ThreadPoolExecutor(1) as beside:
        asked = beside.submit(client.model("nap"), seconds=[1.5])
        time.sleep(0.5)
        server.stop()
        assert asked.result()["slept"].tolist() == [[1.5]]
    assert not Path(f"/proc/{pid}").exists()
    assert not processes_mentioning(str(tmp_path))
    assert not any(path.exists() for path in own if "fathom-triton" in path.name)


def test_a_named_configuration_is_selected(tmp_path):
    folder = write_double(tmp_path / "double")
    (folder / "configs").mkdir()
    tensors = 'input [{name: "x" data_type: TYPE_FP32 dims: [2]}] output [{name: "y" data_type: TYPE_FP32 dims: [2]}]'
    (folder / "configs" / "cpu.pbtxt").write_text(f'backend: "onnxruntime" max_batch_size: 3 {tensors}')
    with TritonServer(tmp_path, config_name="cpu", stop_timeout_s=0) as server, Client(server.grpc_url) as client:
        assert client.model("double").spec.max_batch_size == 3


def test_a_configuration_that_leaves_out_tensors_is_completed_from_the_graph(tmp_path):
    write_double(tmp_path / "double")  # nothing but the backend
    assert (tmp_path / "double" / "config.pbtxt").read_text().split() == ["backend:", '"onnxruntime"']
    write_double(tmp_path / "waits", "max_batch_size: 8")  # for its export, which would make a model file
    (tmp_path / "waits" / "1" / "model.onnx").rename(tmp_path / "waits" / "1" / ".gitkeep")
    with TritonServer(tmp_path, stop_timeout_s=0) as server, Client(server.grpc_url) as client:
        with pytest.raises(ModelNotFoundError) as caught:
            client.model("waits")
        assert caught.value.served == ("double",)
        double = client.model("double")
        assert (double.spec.max_batch_size, list(double.spec.inputs)) == (4, ["x"])
        assert double(x=[[1, 2], [3, 4]])["y"].tolist() == [[2, 4], [6, 8]]


CONFIGS_THAT_CANNOT_LOAD = {
    "by the backend": ('parameters { key: "intra_op_threads" value { string_value: "1" } }', ["'intra_op_threads'"]),
    "by Triton, for an unknown field": ("unknown_field: 3", ["unknown_field", "2:14", "config.pbtxt"]),
    "by Triton, for a GPU that is not there": ("instance_group [{ kind: KIND_GPU }]", ["KIND_GPU"]),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """What starting a server with each of CONFIGS_THAT_CANNOT_LOAD raised, all at the same time."""

    def start(repository):
        try:
            TritonServer(repository).start().stop()
        except TritonServerError as error:
            return error

    repositories = {case: tmp_path_factory.mktemp("refused") for case in CONFIGS_THAT_CANNOT_LOAD}
    for case, repository in repositories.items():
        write_double(repository / "double", CONFIGS_THAT_CANNOT_LOAD[case][0])
    with ThreadPoolExecutor() as pool:
        yield {case: pool.submit(start, repository) for case, repository in repositories.items()}


@pytest.mark.parametrize("case", CONFIGS_THAT_CANNOT_LOAD)
def test_a_model_that_cannot_load_is_one_sentence_with_the_reason(case, refusals):
    _, words = CONFIGS_THAT_CANNOT_LOAD[case]
    error = refusals[case].result()
    assert isinstance(error, ServerStartError), error
    message = str(error)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert "Traceback" not in message


def test_a_missing_artefact_names_the_file_and_the_command(tmp_path):
    folder = write_double(tmp_path / "double", 'default_model_filename: "model.onnx"')
    (folder / "1" / "model.onnx").unlink()
    with pytest.raises(ServerStartError) as caught:
        TritonServer(tmp_path).start()
    assert list(caught.value.models) == ["double"]
    assert all(part in caught.value.models["double"] for part in ("1/model.onnx", "`fathom export`"))


def test_a_missing_repository_is_named():
    with pytest.raises(ServerStartError, match="/nowhere") as caught:
        TritonServer("nowhere").start()
    assert caught.value.option == "model_repository"


def test_an_empty_repository_is_refused(tmp_path):
    with pytest.raises(ServerStartError) as caught:
        TritonServer(tmp_path).start()
    assert caught.value.option == "model_repository"


def test_a_pipe_in_the_repository_is_refused_before_triton_waits_for_its_writer(tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    os.mkfifo(tmp_path / "m" / "config.pbtxt")
    with pytest.raises(ServerStartError) as refused:
        TritonServer(tmp_path).start()
    assert refused.value.option == "model_repository"


def test_a_model_that_is_not_there_or_not_exported_is_refused_before_the_start(tmp_path):
    write_double(tmp_path / "double")
    write_double(tmp_path / "waits")
    (tmp_path / "waits" / "1" / "model.onnx").rename(tmp_path / "waits" / "1" / ".gitkeep")
    for name in ("waits", "nowhere"):
        with pytest.raises(ServerStartError, match=name) as caught:
            TritonServer(tmp_path, models=["double", name]).start()
        assert caught.value.option == "models"


def test_an_unknown_config_name_offers_the_known_ones(tmp_path):
    folder = write_double(tmp_path / "double")
    (folder / "configs").mkdir()
    (folder / "configs" / "cpu.pbtxt").write_text("")
    with pytest.raises(ServerStartError, match=r"'h100'.*cpu") as caught:
        TritonServer(tmp_path, config_name="h100").start()
    assert caught.value.option == "config_name"


@pytest.mark.parametrize("name", ["grpc_port", "http_port", "metrics_port"])
def test_a_port_in_use_is_named(name, tmp_path):
    write_double(tmp_path / "double")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerStartError, match=str(port)) as caught:
            TritonServer(tmp_path, **{name: port}).start()
    assert caught.value.option == name


def test_using_a_server_before_its_start_says_so(tmp_path):
    with pytest.raises(TritonServerError, match=r"start\(\)"):
        _ = TritonServer(tmp_path).pid


def test_a_server_that_dies_says_so(tmp_path):
    write_double(tmp_path / "double", DOUBLE_CONFIG)
    with complete_server(tmp_path) as server:
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not server.is_alive())
        with pytest.raises(ServerDiedError) as caught:
            _ = server.pid
        assert "SIGKILL" in caught.value.reason


@pytest.mark.parametrize("freezes", [False, True])
def test_a_server_that_crashes_says_so_and_ends_although_it_hangs_in_its_report(freezes, tmp_path):
    write_double(tmp_path / "double", DOUBLE_CONFIG)
    with complete_server(tmp_path) as server:
        pid, log = server.pid, server.log_path
        os.kill(pid, signal.SIGSEGV)
        if freezes:
            until(lambda: "Signal (11)" in log.read_text())
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        until(lambda: not server.is_alive())
        assert server.death_reason() == "it crashed (SIGSEGV)"


OWNER = """
import sys, time
from server import TritonServer
server = TritonServer(sys.argv[1])
server.start()
print(server.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.3, 1.0, None], ids=["at once", "laying out", "loading", "ready"])
def test_the_server_never_outlives_an_owner_killed_with_sigkill(delay_s, tmp_path):
    write_double(tmp_path / "double")
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with owner:
        if delay_s is None:
            assert owner.stdout.readline().strip().isdigit()
            assert leftovers(str(owner.pid))
            assert processes_mentioning(str(tmp_path))
        else:
            time.sleep(delay_s)
        owner.kill()
    until(lambda: not processes_mentioning(str(tmp_path)))
    until(lambda: not list(Path("/dev/shm").glob(f"fathom-*-{owner.pid}-*")))


def test_what_a_killed_supervisor_left_is_swept_by_the_next_start(tmp_path):
    write_double(tmp_path / "double", DOUBLE_CONFIG)
    with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as owner:
        triton = int(owner.stdout.readline())
        supervisor = int(Path(f"/proc/{triton}/stat").read_text().rsplit(")", 1)[1].split()[1])
        os.kill(supervisor, signal.SIGKILL)
        owner.kill()
    until(lambda: not processes_mentioning(str(tmp_path)))
    assert leftovers(str(owner.pid))
    with complete_server(tmp_path):
        assert not leftovers(str(owner.pid))
