"""Scratch folders beside what they will replace: made and used by one user, and swept when their owner is dead.

A scratch folder that is a link, or that belongs to another user, is never entered: whatever it leads to is not ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from export.errors import PublishError

SCRATCH = ".fathom-scratch"
ASIDE = ".fathom-aside"
"""The end of what is moved aside where a filesystem has no exchange."""


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """An empty folder to build in, on the same mount as the model folder; removed afterwards, whatever happened.

    Raises PublishError when nothing can be written there, and for a scratch folder that is not ours.
    """
    base = _base(folder)
    try:
        for part in (base.parent, base) if base.parent.name == SCRATCH else (base,):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_ours(part)
        made = Path(tempfile.mkdtemp(prefix=f"{folder.name}-{os.getpid()}-", dir=base))
    except OSError as error:
        raise PublishError(
            f"{base} cannot be written ({error.strerror})", remedy="export must write beside what it changes", file=base
        ) from None
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        _remove_if_empty(base, base.parent if base.parent.name == SCRATCH else base)


def sweep(repository: Path) -> None:
    """Put back folders that a killed export had moved aside, then remove its scratch folders.

    Raises PublishError for a scratch folder that is not ours.
    """
    shared = repository.parent / SCRATCH
    if _require_ours(shared):
        _sweep(shared / repository.name, "*", repository, 1)  # <own>/<model folder>
        _remove_if_empty(shared)
    for folder in repository.iterdir():
        if folder.is_dir():  # a link to one, too: what else may lie in its target is left
            _sweep(folder / SCRATCH, f"{folder.name}-*", folder, 2)  # <own>/<model folder>/<path>


def _sweep(room: Path, own: str, home: Path, above: int) -> None:
    if not _require_ours(room):
        return
    for made in room.glob(own):
        for aside in made.rglob(f"*{ASIDE}"):
            place = home.joinpath(*aside.relative_to(room).parts[above:]).with_name(aside.name.removesuffix(ASIDE))
            if not os.path.lexists(place):
                aside.rename(place)
        shutil.rmtree(made, ignore_errors=True)
    _remove_if_empty(room)


def same_mount(one: Path, other: Path) -> bool:
    """Whether the kernel would rename between two folders, asked with a file that is in neither."""
    try:
        (one / ".fathom-absent").rename(other / ".fathom-absent")
    except OSError as error:
        return error.errno == errno.ENOENT
    return True


def _require_ours(folder: Path) -> bool:
    """Whether a scratch folder is there. Raises PublishError where it is a link, no folder, or another user's."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
        return True
    what = f"belongs to user {found.st_uid}" if stat.S_ISDIR(found.st_mode) else "is a link or a file"
    raise PublishError(
        f"{folder} {what}, and Fathom builds and cleans only in a folder that it made", remedy="remove it", file=folder
    )


def _base(folder: Path) -> Path:
    """Beside the repository where that is on the folder's mount and writable, else inside the folder."""
    repository = folder.parent.resolve()
    beside = repository.parent
    if not folder.is_symlink() and os.access(beside, os.W_OK) and same_mount(beside, repository):
        return beside / SCRATCH / repository.name
    return folder / SCRATCH


def _remove_if_empty(*folders: Path) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
