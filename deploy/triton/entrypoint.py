"""Run tritonserver so that stopping it loses no request: `entrypoint.py [--port N] [--drain S] -- tritonserver ...`.

On SIGTERM a bare Triton answers what still arrives with NOT_FOUND "unknown model", and its readiness gives no warning.
Here the load balancer is told first: a TCP port answers HAProxy's agent check with `ready`, and from SIGTERM on with
`drain`. After the drain time, in which new requests go elsewhere, SIGTERM reaches Triton, which then finishes what it
has. When no balancer has asked lately there is nobody to tell and nothing is waited for. A second SIGTERM ends it.

Standard library only: this file runs as the entry point of the container.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import signal
import socketserver
import subprocess
import sys
import threading
import time
from types import FrameType

RECENT_S = 10.0


class Agent(socketserver.ThreadingTCPServer):
    """Answers HAProxy's agent check: one line per connection."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: str, port: int) -> None:
        super().__init__((address, port), _Answer)
        self.draining = threading.Event()
        self.asked_at = float("-inf")

    def is_watched(self) -> bool:
        """Whether a balancer asked within the last RECENT_S seconds."""
        return time.monotonic() - self.asked_at < RECENT_S


class _Answer(socketserver.BaseRequestHandler):
    server: Agent

    def handle(self) -> None:
        self.server.asked_at = time.monotonic()
        self.request.sendall(b"drain\n" if self.server.draining.is_set() else b"up ready\n")


def run(command: list[str], *, address: str, port: int, drain_s: float) -> int:
    """Run `command` to its end; returns its exit status, 128 + N when signal N ended it."""
    # A handler may interrupt itself, and would wait for ever for an Event's lock that it holds; this queue takes that.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def on_signal(number: int, frame: FrameType | None) -> None:
        signals.put(number)

    with Agent(address, port) as agent:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)
        threading.Thread(target=agent.serve_forever, name="agent", daemon=True).start()
        # In a session of its own, so that a Ctrl-C reaches it through us alone.
        triton = subprocess.Popen(command, start_new_session=True)
        while triton.poll() is None and signals.empty():
            time.sleep(0.05)
        if triton.poll() is None:
            agent.draining.set()
            signals.get()
            if agent.is_watched():
                print(f"draining for {drain_s:g} s before Triton is stopped", file=sys.stderr, flush=True)
                with contextlib.suppress(queue.Empty):
                    signals.get(timeout=drain_s)
            triton.send_signal(signal.SIGTERM)
        status = triton.wait()
        for number in (signal.SIGTERM, signal.SIGINT):  # one more must not become the exit status
            signal.signal(number, signal.SIG_IGN)
        agent.shutdown()
    return status if status >= 0 else 128 - status


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--address", default="0.0.0.0", help="where the agent check listens (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8003, help="its port (default: %(default)s)")
    parser.add_argument("--drain", type=float, default=5.0, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="tritonserver and its options, after --")
    options = parser.parse_args()
    return run(options.command, address=options.address, port=options.port, drain_s=options.drain)


if __name__ == "__main__":
    sys.exit(main())
