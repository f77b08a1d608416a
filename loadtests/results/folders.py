"""The folders of runs: each has its own, named by its start, beside `latest`, which points to the newest.

results/<model>/2026-11-30_11-13-06/   one run
results/<model>/latest                 a link to the last one that was begun or gone on with
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
from pathlib import Path
from urllib.parse import quote

RUN_FILE = "run.json"
LATEST = "latest"
_NAME = "%Y-%m-%d_%H-%M-%S"
_NAMES = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]_*"


def model_folder(folder: Path, model: str) -> Path:
    """Where the runs of a model lie in a results folder, which may be that folder itself."""
    name = quote(model, safe="+ ")  # KServe's names may have slashes
    return folder if folder.name == name and (folder / LATEST).is_symlink() else folder / name


def home_of(run: Path, model: str) -> Path:
    """The model's folder with this run in it; the run's own where it lies elsewhere, as earlier versions put it."""
    parent = run.resolve().parent
    return parent if parent == model_folder(parent.parent, model) else run


def make_run_folder(home: Path, started_at: str) -> Path:
    """A new folder among the model's, named by the start (ISO 8601). Raises OSError."""
    home.mkdir(parents=True, exist_ok=True)
    name = datetime.datetime.fromisoformat(started_at).strftime(_NAME)
    for number in itertools.count(2):
        with contextlib.suppress(FileExistsError):
            (home / name).mkdir()
            return home / name
        name = f"{name.partition('.')[0]}.{number}"
    raise AssertionError


def point_latest(home: Path, run: Path) -> None:
    """Makes `latest` in the model's folder point to this run, where the file system has links."""
    if home == run:
        return
    scratch = home / f".{LATEST}"
    with contextlib.suppress(OSError):
        scratch.unlink(missing_ok=True)
        scratch.symlink_to(run.resolve().name)
        scratch.replace(home / LATEST)


def newest_runs(folder: Path) -> list[Path]:
    """The newest run of each model in a results folder; of one model in its folder; a run's own folder itself."""
    own = newest_run(folder)
    if own is not None:
        return [own]
    found = (newest_run(each) for each in sorted(folder.iterdir()) if each.is_dir())
    return [run for run in found if run is not None]


def newest_run(folder: Path, run_file: str = RUN_FILE) -> Path | None:
    """The run that `latest` points to; without the link, as in a copy, the last by name; the folder's own.

    A folder is a run's if it has the `run_file`.
    """
    latest = folder / LATEST
    if latest.is_symlink() and (latest / run_file).is_file():
        return folder / latest.readlink()
    by_name = [file.parent for file in folder.glob(f"{_NAMES}/{run_file}")]
    return max(by_name, default=folder if (folder / run_file).is_file() else None)
