"""What the operating system says of this machine and its processes."""

from __future__ import annotations

import os
import subprocess
import sys

from loadtests.target.hardware import process_cpu_s

BURN = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); input()"


def test_the_cpu_time_of_a_process_includes_those_that_it_started():
    shell = f"{sys.executable} -c '{BURN}'; true"  # `true`: the shell stays the parent
    before_s = process_cpu_s(os.getpid())
    with subprocess.Popen(["sh", "-c", shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert process_cpu_s(process.pid) > 0.25
        assert process_cpu_s(os.getpid()) - before_s > 0.25


def test_a_process_that_has_ended_used_nothing():
    with subprocess.Popen(["true"]) as process:
        process.wait()
        assert process_cpu_s(process.pid) == 0
