"""What servers leave outside their processes: whose it is, and when it is swept."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from server import leftovers

NAMESPACE, PID, STARTED = leftovers.owner_tag().split("-")
EARLIER = f"s{int(STARTED[1:]) - 1}"
TAGS = {
    "of this process": (f"{NAMESPACE}-{PID}-{STARTED}-aaaa", True),
    "of one that had this process id before": (f"{NAMESPACE}-{PID}-{EARLIER}-aaaa", False),
    "of one that is gone": (f"{NAMESPACE}-4194305-{STARTED}-aaaa", False),
    "of another pid namespace": (f"1-{PID}-s1-aaaa", True),
    "of an earlier release, and this process": (f"{NAMESPACE}-{PID}-aaaa", True),
    "of an earlier release, and gone": (f"{NAMESPACE}-4194305-aaaa", False),
    "somebody else's": ("client-region", True),
    "without a tag": ("", True),
}


@pytest.mark.parametrize(("tag", "stays"), TAGS.values(), ids=list(TAGS))
def test_the_sweep_takes_the_dead_and_leaves_the_living(tag, stays, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"{leftovers.RUN_DIR_PREFIX}{tag}"
    folder.mkdir()
    (folder / "triton.log").touch()
    leftovers.sweep()
    assert folder.exists() == stays


def test_a_zombie_is_dead():
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{process.pid}").exists()
        assert leftovers._start_time(str(process.pid)) == ""
