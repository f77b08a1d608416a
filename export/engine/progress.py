"""A build that can be watched and stopped: TensorRT's progress monitor, and the thread the build runs in.

TensorRT calls the monitor from several threads, and Python delivers Ctrl-C to the main thread only, which a build
would block. So the build runs in a thread of its own and the calling thread waits, reports, and on an interrupt tells
the monitor, whose next answer stops the build.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from export.recipe.recipe import Progress

if TYPE_CHECKING:
    import tensorrt as trt

POLL_S = 0.1
STEP = "build the engine"

T = TypeVar("T")


class BuildProgress:
    """The phases of a running build, and whether it was cancelled. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._phases: dict[str, tuple[int, int]] = {}

    def start(self, phase: str, steps: int) -> None:
        """A phase begins; phases nest."""
        with self._lock:
            self._phases[phase] = (0, steps)

    def step(self, phase: str, step: int) -> bool:
        """Step number `step` (from 0) of a phase is complete. False asks TensorRT to stop."""
        with self._lock:
            done, total = self._phases.get(phase, (0, 0))
            self._phases[phase] = (max(done, step + 1), total)
        return not self._cancelled.is_set()

    def finish(self, phase: str) -> None:
        """A phase is over, complete or not."""
        with self._lock:
            self._phases.pop(phase, None)

    def cancel(self) -> None:
        """Stop the build at its next step."""
        self._cancelled.set()

    def current(self) -> tuple[str, int, int]:
        """(step, done, total): the innermost phase's name with the outermost one's count."""
        with self._lock:
            if not self._phases:
                return STEP, 0, 0
            done, total = next(iter(self._phases.values()))
            return f"{STEP}: {next(reversed(self._phases))}", min(done, total), total


def monitor(trt: Any, progress: BuildProgress) -> trt.IProgressMonitor:
    """TensorRT's view of `progress`. Keep it alive while the build runs."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()


def run(work: Callable[[], T], progress: BuildProgress, on_progress: Progress) -> T:
    """Run `work` in a thread and report its progress. What it raises is raised here.

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
            on_progress(*progress.current())
    except BaseException:
        progress.cancel()
        if thread.ident is not None:
            finished.wait()
        raise
    if failure:
        raise failure[0]
    return outcome[0]
