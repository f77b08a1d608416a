"""Add a model: inspect it, draft its config.pbtxt and recipe.toml, export it like any other, publish everything.

The new model folder is built and verified in a scratch folder and appears in the repository by one rename, so a
failure or a kill at any moment leaves the repository as it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from export.add import batching_trial, draft_config, sample_requests
from export.add.name import check
from export.added import kept, serving_graph
from export.added import recipe as added
from export.added.input_generators import InputRule
from export.added.recipe_file import EXAMPLE, FILE, NONE, RecipeFile
from export.config.deployment import deployment
from export.errors import ContractError, PublishError, RecipeError
from export.exporter import ExportResult, export_model
from export.graph import labels, signature
from export.recipe import agreement
from export.recipe.recipe import Arrays, Progress, no_progress
from export.repository.publish import hold
from export.repository.scratch import scratch
from export.sources import SKLEARN, ImportedModel, import_model, user_code, validation

MAX_BATCH_SIZE = 8
LONGEST_TRY_S = 30.0
"""A function that takes longer is not called once more to see that what was kept of it suffices."""

Verify = Callable[[added.Added, Path], None]


@dataclass(frozen=True)
class AddOptions:
    """What to add, and how.

    `source` is a path, a hub id or `package.module:function`. `dims` sizes open axes, by symbol or `input:axis`;
    `example` is an .npz file of real requests. `max_batch_size` 0 is for no batching. `keep_bytes` is the most that is
    kept of the source in the model's folder.
    """

    kind: str
    source: str
    dims: Mapping[str, int] = field(default_factory=dict)
    example: Path | None = None
    max_batch_size: int = MAX_BATCH_SIZE
    triton_tag: str | None = None
    keep_bytes: int = kept.LIMIT_BYTES


@dataclass(frozen=True)
class Addition:
    """An added model: its export, what was kept of its source, and notes for a person.

    `latency_ms` is the time that the source takes for one request.
    """

    exported: ExportResult
    recipe: added.Added
    kept: kept.Kept
    notes: tuple[str, ...]
    max_batch_size: int
    latency_ms: float


def add(
    name: str,
    options: AddOptions,
    model_repository: Path,
    *,
    verify: Verify | None = None,
    on_progress: Progress = no_progress,
) -> Addition:
    """Add a model to the repository.

    `verify(recipe, staged_repository)` is called before the model appears, with a repository that holds it alone, and
    raises to refuse it. Raises ExportError, and then the repository is as it was.
    """
    check(name, model_repository)
    folder = model_repository / name
    with hold(model_repository, on_progress=on_progress), scratch(_anchor(folder)) as room:
        on_progress("inspect", 0, 1)
        imported = _loaded(options)
        raw = imported.raw(room)
        _check(raw, options, model_repository)
        plan = batching_trial.plan(imported, raw, room, options.dims, batching=options.max_batch_size > 0)
        on_progress("inspect", 1, 1)
        staged = room / "model_repository"
        (staged / name / "1").mkdir(parents=True)
        trace = user_code.last_call()
        source = kept.keep(
            options.kind, options.source, Path.cwd(), folder, staged / name, trace, limit_bytes=options.keep_bytes
        )
        recipe, notes = _draft(staged / name, folder, options, imported, source, plan, raw, room)
        exported = export_model(recipe, staged, on_progress=on_progress)
        tried = _try_kept(recipe, on_progress)
        if verify is not None:
            verify(recipe, staged)
        check(name, model_repository)  # it may have appeared meanwhile
        try:
            (staged / name).rename(folder)
        except OSError as error:
            raise PublishError(f"cannot create {folder} ({error.strerror}): nothing was changed") from error
    published = added.find(folder)
    assert published is not None
    published.allow()
    limit = 0 if plan.batch == NONE else options.max_batch_size
    notes = (*plan.notes, *notes, *source.notes(folder), *tried)
    return Addition(replace(exported, folder=folder), published, source, notes, limit, plan.latency_ms)


def _try_kept(recipe: added.Added, on_progress: Progress) -> tuple[str, ...]:
    """Run a kept function by itself; returns a note where that fails or would take too long."""
    home, first = recipe.folder / kept.FOLDER, user_code.last_call()
    if not home.is_dir() or not user_code.is_in(recipe.file.source, home):
        return ()
    if first.seconds > LONGEST_TRY_S:
        return (
            f"{recipe.file.source} takes {first.seconds:.0f} s, so it was not checked that the kept files are enough",
        )
    on_progress("try the kept source", 0, 1)
    try:
        with contextlib.chdir(home):  # which is imported from as well, so that nothing is found in the person's folder
            user_code.call(recipe.file.source, home, f"--{recipe.file.kind}")
    except RecipeError as error:
        return (f"with the kept files alone, {error}: add the missing files to source/",)
    return ()


def _loaded(options: AddOptions) -> ImportedModel:
    """Import the source; an example that a person gave replaces its own."""
    example = added.read_example(options.example) if options.example is not None else None
    imported = import_model(options.kind, options.source, Path.cwd())
    if example is None:
        return imported
    if options.kind == SKLEARN:
        _check_rounding(imported, example)
    return replace(imported, example=example)


def _check_rounding(imported: ImportedModel, example: Arrays) -> None:
    """Raise ContractError where the served types round the example's fractions so far that the estimator's answers
    change."""
    served = imported.example or {}
    rounded = {
        name: rows.astype(served[name].dtype if name in served else np.float32) if rows.dtype.kind == "f" else rows
        for name, rows in example.items()
    }
    try:
        given, asked = imported.predict(example), imported.predict(rounded)
    except Exception:  # an example that does not fit, which the trial says
        return
    for name, answer in given.items():
        if answer.dtype.kind == "f" and agreement.matching({name: asked[name]}, {name: answer}) < 1:
            raise ContractError(
                f"output '{name}' changes when the example is rounded to FP32, in which it would be served",
                remedy="return this example from the function, so that its types are used",
                tensor=name,
            )


def _check(raw: Path, options: AddOptions, model_repository: Path) -> None:
    """Raise for a graph that the deployed Triton would not load, and for sizes of axes that the graph does not have."""
    model = validation.read_onnx(raw)
    tag = options.triton_tag or deployment(model_repository.resolve().parent).triton_tag
    validation.check_graph(model, raw, tag)
    if unknown := sample_requests.unknown_dims(model, options.dims):
        raise ContractError(unknown, field="dim")


def _draft(
    staged: Path,
    folder: Path,
    options: AddOptions,
    imported: ImportedModel,
    source: kept.Kept,
    plan: batching_trial.Plan,
    raw: Path,
    room: Path,
) -> tuple[added.Added, tuple[str, ...]]:
    """Write config.pbtxt, recipe.toml and the example into the staged model folder; returns its recipe, and notes."""
    made_up = imported.example is None
    file = RecipeFile(
        kind=options.kind,
        source=source.source,
        home=source.home,
        batch=plan.batch,
        widened=plan.widened,
        tolerance=plan.tolerance,
        rows=len(next(iter(plan.example.values()))),
        seed=sample_requests.SEED,
        inputs=plan.rules if made_up else None,
        axes=plan.axes,
        needs=source.needs,
    )
    (staged / FILE).write_text(file.text(folder.name), encoding="utf-8")
    if not made_up:
        added.write_arrays(staged / EXAMPLE, plan.example)
    graph = room / "served.onnx"
    serving_graph.write(raw, plan.batch, plan.widened, plan.example, graph)
    recipe = added.find(staged, base=folder, imported=imported, written=graph)
    assert recipe is not None
    served, _ = signature.from_onnx(graph)
    label_files, notes = labels.fitting(imported.labels, served, plan.batch != NONE)
    rules = plan.rules if made_up else _rules_of(plan)
    drafted = draft_config.Draft(
        name=folder.name,
        summary=imported.description,
        signature=served,
        rules=rules,
        max_batch_size=0 if plan.batch == NONE else options.max_batch_size,
        warmup_files=_warmup_files(staged / "warmup", plan.example, rules),
        cpu_only=options.kind == SKLEARN,
        label_files=label_files,
    )
    (staged / "config.pbtxt").write_text(drafted.text(), encoding="utf-8")
    return recipe, notes


def _rules_of(plan: batching_trial.Plan) -> dict[str, InputRule]:
    """The shapes of the example's requests, for the warm-up."""
    return {
        name: InputRule(rule.data_type, tuple(plan.example[name].shape[1:]), rule.generator)
        for name, rule in plan.rules.items()
    }


def _warmup_files(folder: Path, example: Arrays, rules: Mapping[str, InputRule]) -> dict[str, str]:
    """Write the first example request of inputs for which zeros may be no value: texts, masks, and whole numbers
    without it.

    The bytes are those of a request: numbers as they are, texts each behind its length.
    """
    written = {}
    for index, (name, rows) in enumerate(example.items()):
        row = np.asarray(rows[0])
        if row.dtype.kind == "U":
            texts = [text.encode() for text in row.ravel().tolist()]
            data = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
        elif row.dtype.kind in "iu" and (rules[name].generator.kind == "masks" or not (rows == 0).any()):
            data = row.tobytes()
        else:
            continue
        folder.mkdir(exist_ok=True)
        written[name] = f"input_{index}"
        (folder / written[name]).write_bytes(data)
    return written


def _anchor(folder: Path) -> Path:
    """A model folder on the mount that the new one will be on: an existing one, since scratch may lie inside it."""
    if not folder.parent.is_dir():
        return folder
    present = sorted(path for path in folder.parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    return present[0] if present else folder
