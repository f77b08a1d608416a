"""A real Triton Inference Server on this machine, from start to drained stop."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from server import environment, leftovers, loading, log, response_cache, supervisor
from server.command import ADMIN_PROTOCOLS, GRPC_ADMIN_HEADER, TritonOptions, triton_command
from server.errors import ServerDiedError, ServerStartError, TritonServerError
from server.ports import free_ports, why_not_free

BACKENDS = Path(__file__).parent / "backends"
PORT_NAMES = ("grpc_port", "http_port", "metrics_port")
START_ATTEMPTS = 3  # a free port can be taken between choosing it and Triton's bind


class TritonServer:
    """Serve a model repository: `with TritonServer("model_repository", config_name="cpu") as server: ...`.

    Ports left out, or 0, are chosen free; everything listens on `address`, by default the loopback interface.
    `config_name` selects the `configs/<name>.pbtxt` of the models that have one. `models` are loaded alone, with those
    that they need; without, all are that are exported (see `server.loading`). The server ends with this process,
    however it dies.

    `tritonserver` names the program or the folder of an installed Triton; server.environment.folder says which is taken
    where it is left out.

    Callers without the `admin_token` are refused what changes the server (server.command.ADMIN_PROTOCOLS). Without one
    given it is random; `admin_headers` has it, and server.admin finds it for other processes of this user.

    `start` raises EnvironmentNotFitError or ServerStartError, whose message carries the reason from Triton's log.
    """

    def __init__(
        self,
        model_repository: str | os.PathLike[str],
        *,
        config_name: str | None = None,
        models: Sequence[str] | None = None,
        address: str = "127.0.0.1",
        grpc_port: int | None = None,
        http_port: int | None = None,
        metrics_port: int | None = None,
        tritonserver: str | os.PathLike[str] | None = None,
        ready_timeout_s: float = 120.0,
        stop_timeout_s: float = 30.0,
        admin_token: str | None = None,
        extra: tuple[str, ...] = (),
    ) -> None:
        self.model_repository = Path(model_repository).resolve()
        self.tritonserver = tritonserver
        self.ready_timeout_s = ready_timeout_s
        self.stop_timeout_s = stop_timeout_s
        self._ports = {"grpc_port": grpc_port, "http_port": http_port, "metrics_port": metrics_port}
        self._models = models
        self._token_is_random = admin_token is None
        self._options = TritonOptions(
            model_repository=str(self.model_repository),
            address=address,
            config_name=config_name,
            exit_timeout_s=max(1, round(stop_timeout_s)),
            admin_token=admin_token or secrets.token_hex(32),
            extra=extra,
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._run_dir: Path | None = None

    def __enter__(self) -> TritonServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def grpc_url(self) -> str:
        """`host:port` of the gRPC endpoint."""
        return f"{self._options.address}:{self._options.grpc_port}"

    @property
    def http_url(self) -> str:
        """`host:port` of the HTTP endpoint."""
        return f"{self._options.address}:{self._options.http_port}"

    @property
    def metrics_url(self) -> str:
        """`http://host:port/metrics` of the Prometheus endpoint."""
        return f"http://{self._options.address}:{self._options.metrics_port}/metrics"

    @property
    def admin_headers(self) -> dict[str, str]:
        """The gRPC metadata of a caller who may change the server."""
        return {GRPC_ADMIN_HEADER: self._options.admin_token or ""}

    @property
    def log_path(self) -> Path:
        """Triton's log; the file is gone after `stop`."""
        return self._require_run_dir() / supervisor.LOG

    @property
    def pid(self) -> int:
        """Process id of tritonserver itself. Raises ServerDiedError when it is not running."""
        children = _children(self._require_process().pid)
        if not children:
            raise ServerDiedError(self.death_reason())
        return children[0]

    def is_alive(self) -> bool:
        """Whether the server's process runs; says nothing about readiness."""
        return self._process is not None and self._process.poll() is None

    def answers(self, timeout_s: float = 2.0) -> bool:
        """Whether it says anything at all, ready or not: one that hangs runs and does not."""
        return self._health("live", timeout_s) is not None

    def death_reason(self) -> str:
        """Why a server that ended by itself did so: the signal that ended it, or what its log says, or its status."""
        status = self._require_process().wait()
        text = self._log_text()
        if status > 128 and not log.find_crash(text):
            name = next((s.name for s in signal.Signals if s == status - 128), f"signal {status - 128}")
            return f"killed by {name}"
        return log.find_reason(text) or f"exit status {status}"

    def start(self) -> TritonServer:
        """Start Triton and return when every model is loaded and warm."""
        if self._process is not None:
            raise TritonServerError("this server is started already: stop it first, or make another TritonServer")
        installation = environment.find_installation(self.tritonserver)
        self._check_inputs()
        leftovers.sweep()
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._spawn(installation)
                self._await_ready()
                supervisor.close_shared_memory(self._options.shm_prefix or "fathom-none-")
            except ServerStartError:
                taken = [
                    name for name in PORT_NAMES if why_not_free(self._options.address, getattr(self._options, name))
                ]
                self._discard()
                if attempt < START_ATTEMPTS and any(not self._ports[name] for name in taken):
                    continue
                raise
            except BaseException:
                self._discard()
                raise
            return self
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """Let requests in flight finish within `stop_timeout_s`, then end the server and remove its files."""
        if self._process is None:
            return
        self._end_process(drain_s=self.stop_timeout_s)
        self._discard()

    def _check_inputs(self) -> None:
        if not self.model_repository.is_dir():
            raise ServerStartError(
                f"model repository '{self.model_repository}' does not exist: name an existing folder of models",
                option="model_repository",
            )
        configs = list(self.model_repository.glob("*/config.pbtxt")) + list(self.model_repository.glob("*/[0-9]*/*"))
        if not configs:
            raise ServerStartError(
                f"model repository '{self.model_repository}' has no model: export one first",
                option="model_repository",
            )
        for path in self.model_repository.rglob("*"):
            if path.exists() and not (path.is_file() or path.is_dir()):  # Triton would wait for one that writes a pipe
                raise ServerStartError(
                    f"'{path}' is a pipe or device, not a file: remove it", option="model_repository"
                )
        name = self._options.config_name
        known = sorted({path.stem for path in self.model_repository.glob("*/configs/*.pbtxt")})
        if name and name not in known:
            offer = f"choose {', '.join(known)}" if known else "no model has a configs/ folder"
            raise ServerStartError(
                f"no model has a configuration named '{name}' (configs/{name}.pbtxt): {offer}", option="config_name"
            )
        for port_name, port in self._ports.items():
            if port and (why := why_not_free(self._options.address, port)):
                remedy = "stop what listens there, or choose another" if why == "in use" else "choose another"
                raise ServerStartError(
                    f"{port_name} {port} on {self._options.address} cannot be used ({why}): {remedy}",
                    option=port_name,
                )

    def _spawn(self, installation: environment.Installation) -> None:
        self._run_dir = leftovers.new_run_dir()
        backends = _lay_out_backends(self._run_dir / "backends", installation)
        models = self._chosen_models()
        # Where nobody can load a model, the list of models is no secret.
        listed = models is None and self._token_is_random and not self._has("--model-control-mode")
        free = iter(free_ports(self._options.address, len(PORT_NAMES)))
        ports: dict[str, Any] = {name: port or next(free) for name, port in self._ports.items()}
        shm_prefix = leftovers.new_shm_prefix()
        self._options = replace(
            self._options,
            backend_directory=str(backends),
            shm_prefix=shm_prefix,
            cache_bytes=self._cache_bytes(installation),
            cache_directory=str(installation.caches),
            models=models,
            admin_protocols=tuple(name for name in ADMIN_PROTOCOLS if name != "model-repository" or not listed),
            **ports,
        )
        state = {
            "grpc_port": self._options.grpc_port,
            "admin_token": self._options.admin_token,
            "command": triton_command(self._options, binary=str(installation.tritonserver)),
        }
        (self._run_dir / supervisor.STATE).touch(mode=0o600)
        (self._run_dir / supervisor.STATE).write_text(json.dumps(state))
        keeper = [sys.executable, "-I", "-S", supervisor.__file__, str(os.getpid()), str(self._run_dir), shm_prefix]
        with (self._run_dir / "supervisor.log").open("wb") as own_log:
            self._process = subprocess.Popen(
                keeper,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=own_log,
                env=installation.environment(),
                start_new_session=True,
            )

    def _has(self, flag: str) -> bool:
        """Whether the caller gave this flag to Triton."""
        return any(option.startswith(flag) for option in self._options.extra)

    def _chosen_models(self) -> tuple[str, ...] | None:
        """Those to load; None for all that lie in the repository, or where the caller controls them."""
        if self._has("--model-control-mode"):
            return None
        config_name = self._options.config_name
        present, left = loading.models(self.model_repository), loading.waiting(self.model_repository, config_name)
        if self._models is None:
            loaded = tuple(name for name in present if name not in left)
            if not loaded:
                raise ServerStartError(
                    f"no model of '{self.model_repository}' is exported: export one first", option="model_repository"
                )
            return loaded if left else None
        for name in self._models:
            if name not in present:
                known = ", ".join(present)
                raise ServerStartError(
                    f"'{self.model_repository}' has no model '{name}': it has {known}", option="models"
                )
            if name in left:
                missing = ", ".join(left[name])
                raise ServerStartError(
                    f"model '{name}' cannot be loaded: {missing} must be exported first", option="models"
                )
        return tuple(loading.needed(self.model_repository, self._models, config_name))

    def _cache_bytes(self, installation: environment.Installation) -> int:
        """None where the caller configures the cache, or the installation brings none."""
        if self._has("--cache-config") or not (installation.caches / "local").is_dir():
            return 0
        return response_cache.size(self.model_repository, self._options.config_name)

    def _await_ready(self) -> None:
        process = self._require_process()
        deadline = time.monotonic() + self.ready_timeout_s
        while not self._is_ready():
            if process.poll() is not None:
                raise self._start_failure("Triton ended while starting")
            if time.monotonic() > deadline:
                raise self._start_failure(f"Triton was not ready after {self.ready_timeout_s:g} s")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        return self._health("ready", 2.0) == 200

    def _health(self, which: str, timeout_s: float) -> int | None:
        """The HTTP status of a health question; None without an answer."""
        connection = http.client.HTTPConnection(self._options.address, self._options.http_port, timeout=timeout_s)
        with contextlib.closing(connection):
            try:
                connection.request("GET", f"/v2/health/{which}")
                return connection.getresponse().status
            except (OSError, http.client.HTTPException):
                return None

    def _start_failure(self, event: str) -> ServerStartError:
        text = self._log_text()
        reason = log.find_reason(text)
        if reason is None:
            own = (self._require_run_dir() / "supervisor.log").read_text(errors="replace").strip().splitlines()
            check = f"fathom check --model-repository {shlex.quote(str(self._options.model_repository))}"
            reason = own[-1] if own else f"its log gives no reason; `{check}` may name it"
        return ServerStartError(f"{event}: {reason}", models=log.failed_models(text))

    def _log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def _end_process(self, *, drain_s: float) -> None:
        process = self._require_process()
        if process.stdin and not process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(f"stop {drain_s}\n".encode())
                process.stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        try:
            process.wait(drain_s + 5)
        except subprocess.TimeoutExpired:
            process.kill()  # takes tritonserver with it (parent-death signal)
            process.wait()
            supervisor.remove_shared_memory(self._options.shm_prefix or "fathom-none-")

    def _discard(self) -> None:
        if self._process is not None:
            self._end_process(drain_s=0)
            self._process = None
        if self._run_dir is not None:
            shutil.rmtree(self._run_dir, ignore_errors=True)
            self._run_dir = None

    def _require_process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise TritonServerError("this server is not started: call start(), or use it in a with statement")
        return self._process

    def _require_run_dir(self) -> Path:
        if self._run_dir is None:
            raise TritonServerError("this server is not started: call start(), or use it in a with statement")
        return self._run_dir


def _lay_out_backends(directory: Path, installation: environment.Installation) -> Path:
    """The folder of backends to serve with: the installation's own where it has ONNX Runtime, else one with its
    backends and our python-based ones. Triton refuses symbolic links."""
    if installation.has("onnxruntime"):
        return installation.backends
    shutil.copytree(BACKENDS, directory, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(installation.backends, directory, copy_function=_link_or_copy, dirs_exist_ok=True)
    if installation.stub is not None:
        _link_or_copy(installation.stub, directory / "python" / installation.stub.name)
    return directory


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    """Backends of an installed Triton take gigabytes; a link needs the same file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
