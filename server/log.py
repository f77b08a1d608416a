"""Triton's log, read for the reason why a server did not start or died: its API hides it."""

from __future__ import annotations

import re
import signal

from server.supervisor import CRASHES

_MODEL_ROW = re.compile(r"^\| (?P<model>[^|]*?) *\| (?P<version>[^|]*?) *\| (?P<status>.*?) *\|$")
_LEVEL_LINE = re.compile(r"^E\d{4} [\d:.]+ \d+ [\w.]+:\d+\] (?P<text>.*)$")
_PROTOBUF_LINE = re.compile(r"^\[libprotobuf ERROR [^]]*\] (?P<text>Error parsing text-format .*)$")
_LOADER_LINE = re.compile(r"^.*: error while loading shared libraries: (?P<text>.*)$", re.MULTILINE)
_LOADING = re.compile(r"\bloading: (\S+):\d+\b")
_LOADED = re.compile(r"\b(?:successfully loaded|failed to load) '(\S+)'")
_NOISE = ("CudaDriverHelper has not been initialized", "Failed to initialize NVML")


def find_reason(log: str) -> str | None:
    """One sentence on why the server of this log did not become ready, or None where the log has no reason."""
    if crash := find_crash(log):
        return crash
    if models := failed_models(log):
        return "; ".join(f"model '{name}' failed to load: {reason}" for name, reason in models.items())
    if poll_errors := [line for line in _error_lines(log) if line.startswith("Poll failed")]:
        syntax = [match["text"] for line in log.splitlines() if (match := _PROTOBUF_LINE.match(line))]
        return "; ".join(dict.fromkeys([*poll_errors, *syntax]))
    for line in reversed(log.splitlines()):
        if line.startswith("error: "):
            errors = [e for e in _error_lines(log) if not e.startswith("failed to")]
            return (errors[-1] + ": " if errors else "") + line.removeprefix("error: ")
    if errors := _error_lines(log):
        return errors[-1]
    missing = _LOADER_LINE.search(log)
    return missing["text"] if missing else None


def find_crash(log: str) -> str | None:
    """Which signal ended the server in the middle of what, or None where it did not crash."""
    for number, words in CRASHES.items():
        if words in log:
            done = {*_LOADED.findall(log)}
            loading = [name for name in dict.fromkeys(_LOADING.findall(log)) if name not in done]
            during = f" while it loaded {', '.join(map(repr, loading))}" if loading else ""
            return f"it crashed ({signal.Signals(number).name}){during}"
    return None


def failed_models(log: str) -> dict[str, str]:
    """Model name -> reason, from the table of models that Triton prints when it is done loading."""
    failed: dict[str, str] = {}
    current = None
    for line in log.splitlines():
        match = _MODEL_ROW.match(line)
        if match is None:
            current = None
            continue
        model, status = match["model"], match["status"].strip()
        if model and status.startswith("UNAVAILABLE"):
            failed[model] = status.removeprefix("UNAVAILABLE").removeprefix(": ")
            current = model
        elif not model and current:
            failed[current] += " " + status  # the cell goes on in the next row
        else:
            current = None
    return {model: _tidy(reason) for model, reason in failed.items()}


def _error_lines(log: str) -> list[str]:
    lines = [match["text"].strip('"') for line in log.splitlines() if (match := _LEVEL_LINE.match(line))]
    return [line for line in lines if not any(noise in line for noise in _NOISE)]


def _tidy(reason: str) -> str:
    """Drop the status words in front and the stub's traceback lines behind a message."""
    reason = re.sub(r"^(Internal|Invalid argument|Not found|Unavailable): ", "", reason)
    reason = re.sub(r"^(Stub process '[^']*' is not healthy\.|)TritonModelException: ", "", reason)
    return re.split(r"\s+At:\s", reason)[0].strip()
