"""Put built files into a model repository so that a kill at any moment leaves it as it was or fully new.

A complete new folder, the committed files copied beside the built ones, is made in a scratch folder next to the
repository and then changes places with the old one in a single rename (`renameat2` with RENAME_EXCHANGE). Where the
scratch folder cannot be on the same mount (the repository is a volume of its own), it is a dot-folder inside the model
folder, which Triton ignores, and the version folder `1/` and the files beside it change places one by one.

Where one of several folders or files cannot change places, those before it change back: an error leaves all or nothing
published. A kill between two of these renames cannot be undone; `fathom check` and the next export find the pair that
does not match.

One export at a time holds a repository, by a lock on the folder itself that the kernel drops with the process.
Whoever holds it may sweep every scratch folder it finds: their owners are dead.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.command import export_again
from export.errors import PublishError
from export.recipe.recipe import Progress, no_progress
from export.repository.scratch import ASIDE, SCRATCH, same_mount, scratch, sweep

VERSION = "1"

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Change:
    """What becomes of one model folder: `files` maps paths in it to built files, `drop` are files that stay behind."""

    folder: Path
    files: Mapping[str, Path]
    drop: frozenset[str] = frozenset()


def is_held(model_repository: Path) -> bool:
    """Whether another process holds the repository now."""
    descriptor = os.open(model_repository, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return not _locked(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def hold(model_repository: Path, *, wait_s: float = 600.0, on_progress: Progress = no_progress) -> Iterator[None]:
    """Hold the repository against other exports, repair and sweep what a killed one left.

    Raises PublishError when the folder is missing or another export still holds it after `wait_s`.
    """
    try:
        descriptor = os.open(model_repository, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise PublishError(
            f"{model_repository} is not a model repository folder ({error.strerror})", file=model_repository
        ) from None
    try:
        began = time.monotonic()
        while not _locked(descriptor):
            waited_s = time.monotonic() - began
            if waited_s >= wait_s:
                raise PublishError(
                    f"another export has held {model_repository} for {waited_s:.0f} s",
                    remedy="wait for it, or end it",
                    file=model_repository,
                )
            on_progress("wait for another export of this repository", int(waited_s), int(wait_s))
            time.sleep(0.2)
        sweep(model_repository.resolve())
        yield
    finally:
        os.close(descriptor)


def publish(changes: Sequence[Change]) -> None:
    """Make all changes or none: all are staged and flushed to the disk first, then they change places one by one.

    Raises PublishError where one could not be made. It says that nothing was changed or, where a folder could not
    change back either, what is new; `found` are those paths, `file` is the folder that failed.
    """
    with contextlib.ExitStack() as stack:
        staged = [(change, _stage(change, stack.enter_context(scratch(change.folder)))) for change in changes]
        done: list[_Exchange] = []
        for change, new in staged:
            try:
                _swap(change, new, done)
            except BaseException as error:
                stuck = [str(each.old) for each in reversed(done) if not each.undo()]
                if not isinstance(error, OSError):
                    raise
                raise PublishError(
                    f"{change.folder} could not be replaced ({error.strerror}), and {_what_stands(stuck)}",
                    remedy=export_again(change.folder, "--force") if stuck else None,
                    file=change.folder,
                    found=stuck,
                ) from error


@dataclass(frozen=True)
class _Exchange:
    """Two paths that have changed places; `was_there` says whether there was an old one."""

    new: Path
    old: Path
    was_there: bool

    def undo(self) -> bool:
        """Change back; False where that fails, too."""
        try:
            if self.was_there:
                _exchange(self.new, self.old)
            else:
                self.old.rename(self.new)
        except OSError:
            return False
        with contextlib.suppress(OSError):
            _flush(self.old.parent)
        return True


def _what_stands(stuck: Sequence[str]) -> str:
    if not stuck:
        return "nothing was changed"
    return f"{', '.join(stuck)} could not be changed back: new there, as before elsewhere"


def _stage(change: Change, room: Path) -> Path:
    """The new folder (or, inside a mount of its own, the new version folder and files) in `room`, flushed."""
    new = room / change.folder.name
    new.mkdir()
    shutil.copystat(change.folder, new)
    _copy_kept(change, new)
    for path, built in change.files.items():
        target = new / path
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(built, target) if _linkable(built, target.parent) else shutil.copyfile(built, target)
        target.chmod(0o644)
    for made in sorted(new.rglob("*"), reverse=True):
        if not made.is_symlink():
            _flush(made)
    _flush(new)
    return new


def _kept(change: Change, folder: Path) -> Iterator[tuple[Path, Path]]:
    """What the change neither replaces nor drops in the folder or a copy of it, each with its path in it."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if relative.parts[0] != SCRATCH and relative.as_posix() not in {*change.files, *change.drop}:
            yield path, relative


def _copy_kept(change: Change, new: Path) -> None:
    """Copy what stays."""
    for path, relative in _kept(change, change.folder):
        target = new / relative
        if path.is_dir() and not path.is_symlink():
            target.mkdir(exist_ok=True)
            shutil.copystat(path, target)
        elif path.is_symlink() or path.is_file():
            shutil.copy2(path, target, follow_symlinks=False)
        else:
            raise PublishError(
                f"{path} is a pipe or a device: nothing was changed",
                remedy="remove it from the model folder",
                file=path,
            )


def _swap(change: Change, new: Path, done: list[_Exchange]) -> None:
    """Let a staged change take its place, and note each step in `done`."""
    folder = change.folder
    whole = same_mount(new, folder.parent)
    beside = [path for path in change.files if not path.startswith(f"{VERSION}/")]
    for path in ("",) if whole else (VERSION, *beside):
        was_there = (folder / path).exists()
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        _exchange(new / path, folder / path)
        done.append(_Exchange(new / path, folder / path, was_there))
    if whole:
        _carry_edits(change, old=new)
    _flush(folder.parent if whole else folder)


def _carry_edits(change: Change, old: Path) -> None:
    """Bring over a file that somebody wrote into the folder between its copying and its exchange."""
    for path, relative in _kept(change, old):
        if not path.is_file():
            continue
        target = change.folder / relative
        before, now = path.stat(), target.stat() if target.exists() else None
        if now is None or (now.st_mtime_ns, now.st_size) != (before.st_mtime_ns, before.st_size):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target, follow_symlinks=False)


def _exchange(new: Path, old: Path) -> None:
    """Let two folders or files change places at once. The old one is then at `new`."""
    if not old.exists():
        new.rename(old)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    code = errno.ENOSYS
    if hasattr(libc, "renameat2"):
        if libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE) == 0:
            return
        code = ctypes.get_errno()
    if code not in _NO_EXCHANGE:
        raise OSError(code, os.strerror(code), str(old))
    # A filesystem without exchange: aside, in; `sweep` puts the old one back if we die between the two.
    aside = new.parent / f"{old.name}{ASIDE}"
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise
    aside.rename(new)


def _linkable(built: Path, folder: Path) -> bool:
    """Whether a built file can be linked instead of copied: both are scratch, on one filesystem."""
    return SCRATCH in built.parts and built.stat().st_dev == folder.stat().st_dev


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise PublishError(f"the model repository cannot be locked ({error.strerror})") from error
    return True


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
