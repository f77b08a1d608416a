"""Name the files that a server keeps outside its processes, and sweep those of dead servers.

The supervisor cleans up after a server; this is for the case that the supervisor itself was killed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from pathlib import Path

from server.supervisor import SHARED_MEMORY

RUN_DIR_PREFIX = "fathom-triton-"
SHM_PREFIX = "fathom-"


def owner_tag() -> str:
    """`<pid namespace>-<pid>-s<start time>`: a process id counts in its own namespace only, and is given out again."""
    return f"{_namespace()}-{os.getpid()}-s{_start_time('self')}"


def new_run_dir() -> Path:
    """A fresh folder for one server's log and backend directory."""
    return Path(tempfile.mkdtemp(prefix=f"{RUN_DIR_PREFIX}{owner_tag()}-"))


def new_shm_prefix() -> str:
    """The beginning of the names of one server's shared-memory files."""
    return f"{SHM_PREFIX}{owner_tag()}-{uuid.uuid4().hex[:8]}-"


def sweep() -> None:
    """Remove run directories and shared-memory files of owners that no longer live in this pid namespace."""
    for folder, prefix in ((SHARED_MEMORY, SHM_PREFIX), (Path(tempfile.gettempdir()), RUN_DIR_PREFIX)):
        for path in folder.glob(prefix + "*"):
            if not _is_dead(path.name.removeprefix(prefix)):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def is_left(run_dir: Path) -> bool:
    """Whether the owner of a run directory lives no more."""
    return _is_dead(run_dir.name.removeprefix(RUN_DIR_PREFIX))


def _is_dead(tag: str) -> bool:
    """Whether the process that `tag` begins with was one of this namespace, and is no more."""
    namespace, pid, start, *_ = [*tag.split("-"), "", ""]
    if namespace != _namespace() or not pid.isdigit():
        return False
    living = _start_time(pid)
    return not living or (start.startswith("s") and start != f"s{living}")


def _start_time(pid: str) -> str:
    """Clock ticks from boot to the start of a process, "" for one that is gone or a zombie. See proc(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    state, threads, start = fields[0], fields[17], fields[19]
    return "" if state in "ZX" and int(threads) <= 1 else start


def _namespace() -> str:
    return str(Path("/proc/self/ns/pid").stat().st_ino)
