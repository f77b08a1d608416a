"""Who may change a server: its user, and nobody else on the machine."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest
from tritonclient.grpc import service_pb2

from clients import Client, ServerError
from server import TritonServer, admin, leftovers, supervisor

ASKED = service_pb2.SystemSharedMemoryStatusRequest()


pytestmark = pytest.mark.process


def command_lines() -> str:
    """What `ps` shows to every user of this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def test_every_server_has_a_token_of_its_own() -> None:
    (first,), (second,) = (TritonServer("repository").admin_headers.values() for _ in range(2))
    assert len(first) == len(second) == 64
    assert first != second


def test_a_server_is_started_with_a_token_that_nobody_can_see(small_server: TritonServer) -> None:
    (token,) = small_server.admin_headers.values()
    lines = command_lines()
    assert token not in lines
    assert "shared-memory,trace,logging:admin-token=***" in lines
    assert token not in small_server.log_path.read_text(errors="replace")


def test_only_callers_with_the_token_may_change_the_server(small_server: TritonServer) -> None:
    with Client(small_server.grpc_url) as client, pytest.raises(ServerError):
        client.run(client.call("SystemSharedMemoryStatus", ASKED))
    with Client(small_server.grpc_url, headers=small_server.admin_headers) as client:
        client.run(client.call("SystemSharedMemoryStatus", ASKED))


def test_what_requests_lie_in_is_readable_for_its_user_alone(small_server: TritonServer) -> None:
    regions = list(Path("/dev/shm").glob(f"{leftovers.SHM_PREFIX}{leftovers.owner_tag()}-*"))
    assert regions
    assert {path.stat().st_mode & 0o777 for path in regions} == {0o600}
    kept = small_server.log_path.with_name(supervisor.STATE)
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_commands_of_the_same_user_find_the_token(small_server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    port = small_server.grpc_url.rpartition(":")[2]
    assert admin.headers(f"localhost:{port}") == admin.headers(small_server.grpc_url) == small_server.admin_headers
    assert admin.headers(f"192.0.2.1:{port}") == {}
    assert admin.headers("localhost:1") == {}
    monkeypatch.setenv(admin.VARIABLE, "mine")
    assert list(admin.headers("192.0.2.1:8001").values()) == ["mine"]


@pytest.mark.parametrize(
    ("owner", "user", "known"),
    [("living", "own", True), ("dead", "own", False), ("living", "other", False)],
)
def test_a_token_is_believed_of_a_living_server_of_this_user(
    owner: str, user: str, known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = leftovers.new_run_dir()
    (folder / supervisor.STATE).write_text(json.dumps({"grpc_port": 9, "admin_token": "t", "command": []}))
    if owner == "dead":
        folder.rename(folder.with_name(folder.name.replace("-s", "-s9", 1)))
    if user == "other":
        if os.geteuid():
            pytest.skip("needs root, to give a folder to another user")
        os.chown(folder, 65534, 65534)
    assert bool(admin.headers("localhost:9")) is known


PROGRAM = """
import os, sys, time
print(*sys.argv[1:], *(name for name in os.environ if name.startswith("--")), flush=True)
time.sleep(9)
"""
GIVEN = ["--a=x:SECRET,y", "plain", "--b=SECRET"]


@pytest.mark.parametrize("traced", [True, False], ids=["hidden", "where tracing is forbidden, visible"])
def test_a_program_gets_its_arguments_and_no_more(
    traced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*arguments: object) -> None:
        raise PermissionError

    if not traced:
        monkeypatch.setattr(supervisor, "_trace", forbidden)
    with (tmp_path / "log").open("w+b") as log:
        program = supervisor.start([sys.executable, "-c", PROGRAM, *GIVEN], "SECRET", log)
        try:
            while len(printed := (tmp_path / "log").read_text().split()) < len(GIVEN):
                assert program.poll() is None
            assert printed == GIVEN
            shown = Path(f"/proc/{program.pid}/cmdline").read_text()
            assert ("SECRET" in shown) is not traced
        finally:
            program.kill()
            program.wait()
