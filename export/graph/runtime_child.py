"""The process of `export.graph.runtime`: `python -m export.graph.runtime_child DESCRIPTOR MEMORY_BYTES`.

Requests are (numbers of sessions to close, kind, its arguments), answers (outcome, value).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

NO_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory")


def main() -> None:
    """Answer requests until the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's matter
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    with contextlib.suppress(ImportError):  # which `_open` reports
        importlib.import_module("onnxruntime")
    _limit(int(sys.argv[2]))
    connection.send("ready")
    sessions: dict[int, Any] = {}
    count = 0
    while True:
        closed, kind, what = connection.recv()
        for number in closed:
            sessions.pop(number, None)
        try:
            if kind == "open":
                session = _open(*what)
                count += 1
                sessions[count] = session
                names = [tuple(value.name for value in each) for each in (session.get_inputs(), session.get_outputs())]
                connection.send(("answer", (count, *names)))
            elif kind == "infer":
                connection.send(("answer", _infer(*what)))
            else:
                connection.send(("answer", sessions[what[0]].run(None, what[1])))
        except MemoryError:
            connection.send(("memory", None))
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            memory = any(words in str(error) for words in NO_MEMORY)
            connection.send(("memory" if memory else "error", str(error)))


def _open(model: Path | bytes, threads: int, frugal: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is in the exception
    if frugal:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.disable_prepacking", "1")
    else:
        options.intra_op_num_threads = threads
        # Without VNNI, x86 sums two products of unsigned and signed bytes in 16 bits, which overflow: ask for exact
        # ones.
        options.add_session_config_entry("session.x64quantprecision", "1")
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def _infer(model: bytes, inline: bool, data_prop: bool) -> bytes:
    import onnx.inliner

    read = onnx.ModelProto.FromString(model)
    if inline and read.functions:
        read = onnx.inliner.inline_local_functions(read)
        del read.graph.value_info[:]
    inferred: bytes = onnx.shape_inference.infer_shapes(read, data_prop=data_prop).SerializeToString()
    return inferred


def _limit(memory_bytes: int) -> None:
    """Limit what can be written to: mapped weights do not count."""
    if memory_bytes and sys.platform == "linux":
        import resource

        with contextlib.suppress(ValueError, OSError):  # above a limit that is set already
            resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever written
    os._exit(1)


if __name__ == "__main__":
    main()
