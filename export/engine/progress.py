"""A build that can be watched and stopped: TensorRT's progress monitor, and the thread the build runs in.

TensorRT calls the monitor from several threads, and Python delivers Ctrl-C to the main thread only, which a build
would block. So the build runs in a thread of its own and the calling thread waits, reports, and on an interrupt tells
the monitor, whose next answer stops the build.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from export.recipe.recipe import Progress

POLL_S = 0.1
STEP = "build the engine"

T = TypeVar("T")


def monitor(trt: Any) -> Any:
    """TensorRT's view of a build: its phases, which nest, and whether to stop. Any thread may call it.

    `cancel()` stops the build at its next step; `current()` is (step, done, total): the innermost phase's name with the
    outermost one's count. Keep it alive while the build runs.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.lock, self.cancelled = threading.Lock(), threading.Event()
            self.phases: dict[str, tuple[int, int]] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self.lock:
                self.phases[phase_name] = (0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self.lock:
                done, total = self.phases.get(phase_name, (0, 0))
                self.phases[phase_name] = (max(done, step + 1), total)
            return not self.cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            with self.lock:
                self.phases.pop(phase_name, None)

        def cancel(self) -> None:
            self.cancelled.set()

        def current(self) -> tuple[str, int, int]:
            with self.lock:
                if not self.phases:
                    return STEP, 0, 0
                done, total = next(iter(self.phases.values()))
                return f"{STEP}: {next(reversed(self.phases))}", min(done, total), total

    return Monitor()


def run(work: Callable[[], T], watching: Any, on_progress: Progress) -> T:
    """Run `work` in a thread and report the progress of its `monitor`. What it raises is raised here.

    On an interrupt (Ctrl-C, SIGTERM) the build is told to stop, waited for, and KeyboardInterrupt is raised again; a
    second interrupt does not wait.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []
    finished = threading.Event()  # an interrupted Thread.join() leaves Python 3.11 believing that the thread ended

    def body() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)
        finally:
            finished.set()

    thread = threading.Thread(target=body, name="tensorrt-build", daemon=True)
    try:
        thread.start()
        while not finished.wait(POLL_S):
            on_progress(*watching.current())
    except BaseException:
        watching.cancel()
        if thread.ident is not None:
            finished.wait()
        raise
    if failure:
        raise failure[0]
    return outcome[0]
