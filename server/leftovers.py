"""Names for what a server leaves outside its processes, and the sweep of what dead servers left.

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
    """`<pid namespace>-<pid>`: a process id means something inside its own namespace only."""
    return f"{_namespace()}-{os.getpid()}"


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
            namespace, _, rest = path.name.removeprefix(prefix).partition("-")
            pid = rest.partition("-")[0]
            if namespace == _namespace() and pid.isdigit() and not Path(f"/proc/{pid}").exists():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _namespace() -> str:
    return str(Path("/proc/self/ns/pid").stat().st_ino)
