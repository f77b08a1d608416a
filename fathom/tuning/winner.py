"""Write the winner: configs/NAME.pbtxt of each model that it changes, with the reason and the measured gain."""

from __future__ import annotations

from pathlib import Path

from export.config.knobs import FIELDS, written
from export.errors import ConfigError
from export.lint.lint import lint
from fathom.tuning.models import TunedModel
from loadtests.tuning.result import TuningResult
from loadtests.tuning.space import Configuration

_GIVES_UP = {
    "queue_policy": "without a bound, a queue grows under overload until clients time out",
    "max_batch": "requests with more rows are refused",
}
"""What a change costs besides time."""


def write_winner(tuned: TunedModel, result: TuningResult, name: str, report: Path) -> list[Path]:
    """Writes all files or none, over those of that name. Raises ConfigError where `fathom check` finds an error."""
    configuration = Configuration.from_json(result.changes)
    changed = configuration.models()
    files: dict[Path, str] = {}
    for model, message in tuned.configured(configuration).items():
        folder = tuned.repository / model
        named = tuned.config_name is not None and (folder / "configs" / f"{tuned.config_name}.pbtxt").is_file()
        if model not in changed and (not named or tuned.config_name == name) and message == tuned.messages[model]:
            continue  # the file that is there says the same
        comments = {knob: _reason(tuned, model, knob, value) for knob, value in changed.get(model, {}).items()}
        files[folder / "configs" / f"{name}.pbtxt"] = written(
            message, _header(tuned, result, model, name, report), comments
        )
    made = [path.parent for path in files if not path.parent.exists()]
    before = {path: path.read_text() for path in files if path.exists()}
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    wrong = [
        finding
        for finding in lint(tuned.repository, [path.parents[1].name for path in files], config_name=name)
        if finding.severity == "error" and finding.file.endswith(f"configs/{name}.pbtxt")
    ]
    if wrong:
        for path in files:
            if path in before:
                path.write_text(before[path])
            else:
                path.unlink()
        for folder in made:
            folder.rmdir()
        raise ConfigError(f"the winner is not written, since fathom check refuses it: {wrong[0]}")
    return list(files)


def _header(tuned: TunedModel, result: TuningResult, model: str, name: str, report: Path) -> str:
    base = f"configs/{tuned.config_name}.pbtxt" if tuned.config_name else "config.pbtxt"
    lines = [
        f"{model} as `fathom tune {tuned.model}` found it, served with --model-config-name={name}. "
        f"It began with {'an earlier ' if tuned.config_name == name else ''}{base}.",
        f"Objective: {result.objective} under {result.slo}, on {result.settings.get('cpu', 'this machine')}, "
        f"{result.settings.get('cores', '?')} cores.",
    ]
    if result.gain:
        ratio, low, high = ((value - 1) * 100 for value in result.gain)
        lines.append(
            f"Measured in turns with the committed configuration: {ratio:+.0f} % "
            f"(95 % interval {low:+.0f} to {high:+.0f} %). Changes: {result.winner}."
        )
    lines.append(f"Report: {report}")
    return "\n".join(lines)


def _reason(tuned: TunedModel, model: str, knob: str, value: object) -> str:
    step = next(step for step in tuned.steps if step.model == model)
    cost = f"; {_GIVES_UP[knob]}" if knob in _GIVES_UP and value != "bounded" else ""
    what = f"{knob}" if knob in FIELDS else f"parameter {knob}"
    return f"{what}: {value}, committed is {step.committed[knob]}{cost}"
