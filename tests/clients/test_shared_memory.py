"""Shared memory against a real server: what goes through it, and that nothing is left however a client ends."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from complete_server import HEADERS, TOKEN, complete_server
from identity_models import write_identity
from onnx import TensorProto, helper
from small_models import write_onnx
from tritonclient.grpc import service_pb2
from waiting import until

from clients import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InvalidInputError,
    SharedMemoryUnavailableError,
    shared_memory,
)
from clients.shared_memory import FOLDER, PREFIX, Pool, dead_names, size_class, sweep

pytestmark = pytest.mark.process

SUPPORT = Path(__file__).parents[1] / "support"
LARGE = np.arange(65_536, dtype=np.float32)[None]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """`large` (256 kB in and out), `open` (no fixed size), `slow` (sleeps x[0, 0] seconds, then answers x)."""
    repository = tmp_path_factory.mktemp("shared") / "model_repository"
    tensor = (TensorProto.FLOAT, ["n", 65_536])
    write_onnx(
        repository / "large" / "1" / "model.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", *tensor)],
        [("y", *tensor)],
    )
    dims = "dims: [ 65536 ]"
    (repository / "large" / "config.pbtxt").write_text(
        'backend: "onnxruntime" max_batch_size: 4\n'
        f'input [ {{ name: "x" data_type: TYPE_FP32 {dims} }} ] output [ {{ name: "y" data_type: TYPE_FP32 {dims} }} ]'
    )
    write_identity(repository / "open", {"a": ("FP32", [-1, -1]), "b": ("INT32", [3]), "text": ("BYTES", [-1])})
    write_identity(repository / "slow", {"x": ("FP32", [65_536])}, max_batch_size=4, sleeps=True)
    return repository


@pytest.fixture
def repository_of(repository, tmp_path):
    """Makes a repository of the models with these names alone, for servers of a test's own."""

    def make(*names):
        for name in names:
            shutil.copytree(repository / name, tmp_path / "model_repository" / name)
        return tmp_path / "model_repository"

    return make


@pytest.fixture(scope="module")
def server(repository):
    with complete_server(repository, admin_token=TOKEN) as server:
        yield server


@pytest.fixture
def client(server):
    with Client(server.grpc_url, shared_memory="system", headers=HEADERS) as client:
        yield client


def registered(url):
    """Names of the regions that a server knows."""
    with Client(url, headers=HEADERS) as plain:
        status = service_pb2.SystemSharedMemoryStatusRequest()
        return set(plain.run(plain.call("SystemSharedMemoryStatus", status)).regions)


def in_folder(pid=None):
    """Our regions in /dev/shm; those of one process."""
    return [path.name for path in FOLDER.glob(PREFIX + "*") if pid is None or path.name.split("-")[3] == str(pid)]


def test_large_tensors_go_through_a_region_and_small_ones_do_not(client, server):
    large, other = client.model("large"), client.model("open")
    assert np.array_equal(large(x=LARGE)["y"], LARGE)
    (name,) = registered(server.grpc_url)
    for batch in (1, 1, 1):
        assert np.array_equal(large(x=LARGE.repeat(batch, 0))["y"], LARGE.repeat(batch, 0))
    outputs = other(a=np.zeros((2, 2), np.float32), b=[1, 2, 3], text=["x"])
    assert outputs["b_out"].tolist() == [1, 2, 3]
    assert registered(server.grpc_url) == {name}, "one region serves all calls of a size"
    mixed = other(a=LARGE, b=[4, 5, 6], text=["é" * 150_000, b"\0", ""])
    assert np.array_equal(mixed["a_out"], LARGE)
    assert mixed["b_out"].tolist() == [4, 5, 6]
    assert mixed["text_out"].tolist() == [("é" * 150_000).encode(), b"\0", b""]
    assert len(registered(server.grpc_url)) == 2
    assert not in_folder(os.getpid()), "names leave /dev/shm as soon as the server has mapped the region"


def test_an_answer_stays_what_it_is_when_its_region_is_used_again(client):
    large = client.model("large")
    first = large(x=LARGE)["y"]
    large(x=-LARGE)
    assert np.array_equal(first, LARGE)


def test_arrays_that_are_not_contiguous_and_of_other_byte_orders(client):
    large = client.model("large")
    strided = np.stack([LARGE, LARGE], -1)[..., 0]
    assert not strided.flags.c_contiguous
    assert np.array_equal(large(x=strided)["y"], LARGE)
    assert np.array_equal(large(x=LARGE.astype(">f4"))["y"], LARGE)


def test_labels_and_selected_outputs(client):
    assert list(client.model("open")(a=LARGE, b=[1, 2, 3], text=["x"], outputs=["b_out"])) == ["b_out"]
    assert np.array_equal(client.model("large")(x=LARGE, outputs="y")["y"], LARGE)
    with pytest.raises(InvalidInputError, match="'z'"):
        client.model("large")(x=LARGE, outputs=["z"])
    (best,), *_ = client.model("large").classify(x=LARGE, top=1)
    assert best.class_index == 65_535


def test_threads_have_regions_of_their_own(client, server):
    large, wrong = client.model("large"), []

    def ask(number):
        for _ in range(10):
            if not np.array_equal(large(x=LARGE + number)["y"], LARGE + number):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 1 <= len(registered(server.grpc_url)) <= 6


def test_the_asyncio_client_shares_memory_too(server):
    async def ask():
        async with AsyncClient(server.grpc_url, shared_memory="system", headers=HEADERS) as client:
            large = await client.model("large")
            answers = await asyncio.gather(*(large(x=LARGE + number) for number in range(8)))
            return [np.array_equal(answer["y"], LARGE + number) for number, answer in enumerate(answers)]

    assert all(asyncio.run(ask()))
    assert not registered(server.grpc_url), "closing unregisters"


def test_only_own_regions_are_unregistered(server):
    with Client(server.grpc_url, shared_memory="system", headers=HEADERS) as one:
        one.model("large")(x=LARGE)
        (kept,) = registered(server.grpc_url)
        with Client(server.grpc_url, shared_memory="system", headers=HEADERS) as other:
            other.model("large")(x=LARGE)
            assert len(registered(server.grpc_url)) == 2
        assert registered(server.grpc_url) == {kept}
        assert np.array_equal(one.model("large")(x=LARGE)["y"], LARGE)


def test_a_late_answer_cannot_reach_another_call(client, server):
    """A call that was given up may still be written to by the server: its region is not used again."""
    slow = client.model("slow")
    asleep = np.full((1, 65_536), 0.5, np.float32)
    with pytest.raises(DeadlineExceededError):
        slow(x=asleep, timeout_s=0.1)
    asleep[:] = 0
    assert not slow(x=asleep, timeout_s=10)["x_out"].any()
    late = client.model("large")(x=LARGE)["y"]
    time.sleep(0.6)
    assert np.array_equal(late, LARGE)
    client.model("large")(x=LARGE.repeat(4, 0))  # a new size: retired regions are let go of on the way
    assert len(registered(server.grpc_url)) == 2


def test_a_restarted_server_gets_the_regions_again_and_a_restricting_one_names_the_header(repository_of):
    repository = repository_of("large", "open")
    with complete_server(repository, admin_token=TOKEN) as server:
        url = server.grpc_url
        client = Client(url, shared_memory="system", headers=HEADERS)
        large = client.model("large")
        large(x=LARGE)
        large(x=LARGE.repeat(2, 0))
    with complete_server(repository, admin_token=TOKEN, grpc_port=int(url.rpartition(":")[2])):
        with client:
            assert np.array_equal(large(x=LARGE)["y"], LARGE)
            assert np.array_equal(large(x=LARGE.repeat(2, 0))["y"], LARGE.repeat(2, 0))
        with Client(url, shared_memory="system") as stranger:
            with pytest.raises(SharedMemoryUnavailableError, match="triton-grpc-protocol-admin-token"):
                stranger.model("large")(x=LARGE)
            assert stranger.model("open")(a=[[1.0]], b=[1, 2, 3], text=["x"])["b_out"].tolist() == [1, 2, 3]
    assert not in_folder(os.getpid())


def test_what_triton_2604_says_by_default_is_put_into_a_sentence():
    from clients.errors import UnreachableError
    from clients.regions import _refusal

    said = "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
    reason = _refusal(UnreachableError(f"cannot reach host:8001: {said}", status="UNAVAILABLE"), "host:8001")
    assert reason is not None
    assert "--allow-client-shm=true" in reason


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU driver")
@pytest.mark.parametrize(
    ("endpoint", "kind"), [("localhost:8001", "posix"), (["localhost:8001", "localhost:9001"], "system")]
)
def test_what_cannot_be_meant_is_a_value_error(endpoint, kind):
    with pytest.raises(ValueError, match="shared"):
        Client(endpoint, shared_memory=kind)


ENDINGS = {
    "close": "client.close()",
    "nothing": "pass",
    "exception": "raise SystemError('mine')",
    "SIGTERM": "import os, signal; os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)",
    "SIGKILL": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_left_however_a_client_ends(ending, server):
    program = f"""
import sys, time
import numpy as np
from clients import Client
client = Client({server.grpc_url!r}, shared_memory="system", headers={HEADERS!r})
client.model("large")(x=np.zeros((1, 65_536), np.float32))
client.model("large")(x=np.zeros((3, 65_536), np.float32))
{ENDINGS[ending]}
"""
    done = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    status = done.wait(30)
    assert status == {"SIGTERM": -signal.SIGTERM, "SIGKILL": -signal.SIGKILL, "exception": 1}.get(ending, 0)
    assert not in_folder(done.pid)
    if ending in ("close", "nothing", "exception"):
        assert not registered(server.grpc_url), "the server lets go of them too"
    with Client(server.grpc_url, shared_memory="system", headers=HEADERS) as client:
        client.model("large")(x=LARGE)
        assert len(registered(server.grpc_url)) == 1, "the next client clears up behind those that were killed"


def test_sweeping_takes_the_dead_and_leaves_the_living():
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    start = shared_memory._start_time(str(sleeper.pid))
    namespace = shared_memory._namespace()
    living = f"{PREFIX}{namespace}-{sleeper.pid}-{start}-aaaa"
    reused = f"{PREFIX}{namespace}-{sleeper.pid}-{int(start) - 1}-bbbb"  # its process id was given out again
    foreign = f"{PREFIX}1-{sleeper.pid}-1-cccc"  # of another pid namespace
    other = f"somebody-elses-{namespace}-1-1-dddd"
    try:
        assert dead_names([living, reused, foreign, other]) == [reused]
        for name in (living, reused, foreign):
            (FOLDER / name).touch()
        assert sweep() == [reused]
        os.kill(sleeper.pid, signal.SIGKILL)
        until(lambda: dead_names([living]))  # a zombie until it is waited for, and already dead
        assert Pool() is not None  # opening a pool sweeps
        assert sorted(in_folder(sleeper.pid)) == [foreign]
    finally:
        sleeper.kill()
        sleeper.wait()
        for name in (living, reused, foreign):
            (FOLDER / name).unlink(missing_ok=True)


FORK = (
    f"HEADERS = {HEADERS!r}"
    + """
import os, sys
import numpy as np
from tritonclient.grpc import service_pb2
from clients import Client
from clients.shared_memory import FOLDER, sweep

def registered():
    with Client(sys.argv[1], headers=HEADERS) as plain:
        status = service_pb2.SystemSharedMemoryStatusRequest()
        return set(plain.run(plain.call("SystemSharedMemoryStatus", status)).regions)

x = np.ones((1, 65_536), np.float32)
with Client(sys.argv[1], shared_memory="system", headers=HEADERS) as client:
    large = client.model("large")
    large(x=x)
    parents, (region, _) = registered(), client.pool._pool.lend(5000)  # whose name is still in /dev/shm
    child = os.fork()
    if child == 0:
        assert np.array_equal(large(x=-x)["y"], -x)
        assert len(registered() - parents) == 1, "it has a region of its own"
        client.close()
        assert registered() == parents
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sweep()
    assert (FOLDER / region.name).exists()
    assert np.array_equal(large(x=x)["y"], x)
    assert registered() == parents
"""
)


def test_a_fork_does_not_touch_its_parents_regions(server):
    ran = subprocess.run([sys.executable, "-c", FORK, server.grpc_url], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert not registered(server.grpc_url)


def test_a_full_folder_is_an_error_and_not_a_crash():
    with pytest.raises(SharedMemoryUnavailableError, match="--shm-size"):
        Pool().lend(1 << 45)
    assert not in_folder(os.getpid())


@pytest.mark.parametrize("size", [1, 4096, 4097, 65_536, 65_537, 600_000, 1 << 20, (1 << 20) + 1, 77_777_777])
def test_size_classes_waste_at_most_a_quarter_and_a_page(size):
    assert size <= size_class(size) < size * 1.25 + 4096
    assert size_class(size) % 4096 == 0
    assert size_class(size_class(size)) == size_class(size)


@pytest.mark.slow
def test_clients_killed_at_random_leave_nothing(repository_of):
    """Triton 2.51 can crash when a killed client's request is cancelled (docs/known-issues.md): it is restarted."""
    crashes, count = 0, 1000
    repository = repository_of("large")
    server = complete_server(repository, admin_token=TOKEN).start()
    try:
        url = server.grpc_url
        command = [sys.executable, str(SUPPORT / "killed_clients.py"), url, str(count), "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as killing:
            while killing.poll() is None:
                time.sleep(0.1)
                if not server.is_alive():
                    assert "SEGV" in server.death_reason(), server.death_reason()
                    crashes += 1
                    server.stop()
                    server = complete_server(
                        repository, admin_token=TOKEN, grpc_port=int(url.rpartition(":")[2])
                    ).start()
            out, err = killing.communicate()
        assert killing.returncode == 0, err[-2000:]
        answered, left, known = json.loads(out), in_folder(), registered(url)
        print(
            f"\n{count} clients killed, {sum(n > 0 for n in answered)} after an answer, {sum(answered)} answers; "
            f"Triton crashed {crashes} times; before the sweep {len(left)} names in {FOLDER}, {len(known)} there"
        )
        assert sum(n > 0 for n in answered) >= count // 2
        with Client(url, shared_memory="system", headers=HEADERS) as client:
            assert np.array_equal(client.model("large")(x=LARGE)["y"], LARGE)
            assert len(registered(url)) == 1
        assert not in_folder()
        assert not registered(url)
    finally:
        server.stop()
