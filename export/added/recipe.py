"""The recipe of an imported model: recipe.toml beside its config.pbtxt, as an ordinary recipe."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from math import isinf
from pathlib import Path
from typing import Any, ClassVar
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np

from export import files, sources
from export.added import allowed, input_generators, kept, serving_graph
from export.added.recipe_file import EXAMPLE, FILE, NONE, RecipeFile, read
from export.command import export_again
from export.errors import ExportError, FileError, RecipeError
from export.graph import external_data, labels, onnx_file
from export.precision.precision import FP16, INT8
from export.recipe import agreement
from export.recipe.limits import Figure, Reduced
from export.recipe.recipe import Array, Arrays, Evaluation, Predict, Recipe, Source, Weights
from export.sources import user_code
from export.sources.base import HF, KINDS, ONNX, SKLEARN, TORCH, ImportedModel

SHOWN_NUMBERS = 6
PACKAGES: Mapping[str, tuple[str, ...]] = {
    ONNX: (),
    TORCH: ("torch",),
    HF: ("torch", "transformers"),
    SKLEARN: ("scikit-learn", "skl2onnx"),
}
REDUCED_COSTS = {FP16: (20, 0.999, 0.01), INT8: (100, 0.95, 0.05)}
"""By precision: how many times the FP32 tolerance outputs may differ by, the smallest cosine with the source's, and the
fraction of rows that may be answered otherwise."""

CALIBRATED_ON = 8
"""Rows that INT8 needs at least to find its ranges on."""


class Added(Recipe):
    """A recipe that recipe.toml describes. The classes of the single models are made from it by `find`."""

    figures = (
        Figure(
            "matching_rows", "fraction of example requests that get the same answer as from the source", tolerance=0.0
        ),
    )
    why_not_reduced = f"its example is made up, and INT8 needs real requests for calibration: put them into {EXAMPLE}"
    folder: ClassVar[Path]
    file: ClassVar[RecipeFile]
    imported: ImportedModel | None = None
    """The loaded source, where `fathom add` has it at hand."""
    written: Path | None = None
    """The graph as it is served, where `fathom add` has written it already."""

    def resolve(self, weights: str | None) -> Weights:
        """The source that recipe.toml names, or another of its kind."""
        if weights is not None:
            found = sources.files(self.file.kind, weights, self.home)
            return Weights(f"{self.file.kind} source '{weights}'", found, Path(weights), custom=True, explicit=True)
        own = self.folder / kept.FOLDER
        if self._is_code and self.home == own:
            found = kept.files(self.folder)
        else:
            self._require_allowed([Path(self.source)] if self._is_path else [])
            try:
                found = sources.files(self.file.kind, self.source, self.home)
            except RecipeError as error:
                raise RecipeError(f"{error}{self._looked()}", **error.about) from error
            self._require_allowed(found.values() if self._is_path else ())
        return Weights(f"{self.file.kind} source '{self.file.source}'", found, Path(self.source))

    def load(self, weights: Weights) -> Source:
        source = str(weights.folder) if weights.custom else self.source
        self._require_allowed(())
        try:
            loaded = self.imported or sources.import_model(self.file.kind, source, self.home)
        except RecipeError as error:
            raise RecipeError(f"{error}{self._needed()}", **error.about) from error
        batched = self.file.batch != NONE
        evaluation = self.evaluation()

        def write_onnx(path: Path) -> None:
            if self.written is not None:
                external_data.copy(self.written, path)
                return
            serving_graph.write(loaded.raw(path.parent), self.file.batch, self.file.widened, evaluation.inputs, path)

        served = serving_graph.widening(loaded.predict, self.file.widened, batched)
        predict = _with_export_errors(served, self._other_requests())

        def calibration() -> Evaluation:
            if len(evaluation) < CALIBRATED_ON:
                raise RecipeError(
                    f"{self.folder.name}/{EXAMPLE} has {len(evaluation)} requests, and calibration for INT8 needs "
                    f"{CALIBRATED_ON} or more",
                    remedy="add real requests",
                    file=f"{self.folder.name}/{EXAMPLE}",
                    found=len(evaluation),
                    expected=CALIBRATED_ON,
                )
            return evaluation

        source_predict = _row_by_row(predict) if batched else predict
        named = labels.contents(loaded.labels)
        return Source(source_predict, write_onnx, evaluation, labels=named, calibration=calibration)

    def evaluation(self) -> Evaluation:
        """The requests of example.npz, or made-up ones, the same each time."""
        return Evaluation(self._requests(), batched=self.file.batch != NONE)

    def score(self, outputs: Arrays, evaluation: Evaluation, source: Arrays | None = None) -> dict[str, float]:
        """The fraction of rows that are answered as the source answers them: see `export.recipe.agreement`."""
        if source is None:
            return {}
        noise = self.tolerance.max_abs if isinf(self.tolerance.max_relative) else 0.0
        return {"matching_rows": agreement.matching(outputs, source, noise=noise)}

    def interpret(self, outputs: Arrays, labels: Sequence[str] = ()) -> list[str]:
        """Each output in short: name, type, shape and first numbers."""
        return [in_short(name, np.asarray(array)) for name, array in outputs.items()]

    def data(self) -> tuple[Path, ...]:
        """recipe.toml and the example."""
        return (self.folder / FILE, *((self._example(),) if self.file.inputs is None else ()))

    @property
    def home(self) -> Path:
        """The folder that the source's module is imported from: the model's own, or what recipe.toml names."""
        own = self.folder / kept.FOLDER
        return own if user_code.is_in(self.file.source, own) else self._path(self.file.home)

    def allow(self) -> None:
        """Let this machine run the code or read the files that recipe.toml names, as its owner."""
        if self._is_code or self._is_path:
            allowed.allow(self._allowance)

    @property
    def _allowance(self) -> str:
        place = self.home if self._is_code else Path(self.source)
        return json.dumps([self.file.kind, self.file.source, str(place.resolve())])

    def _require_allowed(self, read: Iterable[Path]) -> None:
        """Raise RecipeError for code, and for files to `read` outside the model's folder, that nobody allowed here."""
        home = self.folder.resolve()
        outside = next((path for path in read if path.exists() and not path.resolve().is_relative_to(home)), None)
        if self.imported is not None or not (self._is_code or outside) or allowed.is_allowed(self._allowance):
            return
        what = f"runs {self.file.source} of {self.home}" if self._is_code else f"reads {outside}"
        raise RecipeError(
            f"{self.folder.name}/{FILE} {what}, which is not allowed on this machine",
            remedy=f"if you trust it, {export_again(self.folder, '--allow-source')}",
            file=f"{self.folder.name}/{FILE}",
            field="home" if self._is_code else "from",
            found=self.file.source,
        )

    @property
    def base(self) -> Path:
        """The folder that recipe.toml's paths are relative to."""
        return self.folder

    @property
    def source(self) -> str:
        """The source with its path made absolute, where it is one; what lies in the model's own folder is preferred."""
        given = self.file.source
        if self._is_code:
            return given
        own = kept.place(self.folder, given)
        if own.exists():
            return str(own)
        return str(self._path(given)) if self._is_path else given

    @property
    def _is_code(self) -> bool:
        return self.file.kind not in (ONNX, HF)

    @property
    def _is_path(self) -> bool:
        return self.file.kind == ONNX or (self.file.kind == HF and self.file.source.startswith((".", "/", "~")))

    def _path(self, given: str) -> Path:
        """A path of recipe.toml. While a model is added, what lies in its folder is not yet where it will be."""
        path = Path(given).expanduser()
        inside = Path(os.path.normpath(self.folder / path))
        return inside if inside.is_relative_to(self.folder) else Path(os.path.normpath(self.base / path))

    def _looked(self) -> str:
        """The end of an error about a missing source: the places searched, and where to put it."""
        function = self._is_code
        own = self.folder / kept.FOLDER if function else kept.place(self.folder, self.file.source)
        named = self.file.home if function else self.file.source
        places = [str(own)]
        if (function or self._is_path) and self._path(named) != own:
            places.append(
                f"{self._path(named)}{' (of the machine it was added on)' if Path(named).is_absolute() else ''}"
            )
        return f" (looked in {' and '.join(places)}: put it into the first){self._needed()}"

    def _needed(self) -> str:
        """The end of an error about a source that may be missing: what recipe.toml says it needs."""
        return f"; {FILE} says that it needs {'; '.join(self.file.needs)}" if self.file.needs else ""

    def _other_requests(self) -> str:
        """What to do where the source does not answer the requests."""
        if self.file.inputs is None:
            return f"correct or remove that request in {self.folder.name}/{EXAMPLE}"
        if self.imported is not None:
            return "add real requests with --example FILE.npz"
        return f"put real requests into {self.folder.name}/{EXAMPLE}, as {self.folder.name}/{FILE} explains"

    def _example(self) -> Path:
        if problem := files.problem(self.folder, EXAMPLE):
            raise RecipeError(
                f"{self.folder.name}/{EXAMPLE} {problem}",
                remedy="write one with numpy.savez(path, **{input: rows})",
                file=f"{self.folder.name}/{EXAMPLE}",
            )
        return self.folder / EXAMPLE

    def _requests(self) -> dict[str, Array]:
        if self.file.inputs is None:
            return read_example(self._example())
        return input_generators.sample(self.file.inputs, self.file.rows, self.file.seed)


def find(
    folder: Path, *, base: Path | None = None, imported: ImportedModel | None = None, written: Path | None = None
) -> Added | None:
    """The recipe of a model folder, or None where it has no recipe.toml.

    `base` is the folder that its paths are relative to, where that is not yet where it lies; `imported` and `written`
    are what its first export need not make again. Raises RecipeError for a recipe.toml that cannot be understood.
    """
    if not (folder / FILE).is_file():
        return None
    file = read(folder)
    assert file.kind in KINDS
    parts: dict[str, Any] = {
        "name": folder.name,
        "summary": f"added from {file.source}",
        "tolerance": file.tolerance,
        "packages": PACKAGES[file.kind],
        "axis_ranges": {name: {axis: (each,) for axis, each in axes.items()} for name, axes in file.axes.items()},
        "reduced": {
            precision: Reduced(file.tolerance.times(times, cosine), losses={"matching_rows": lost})
            for precision, (times, cosine, lost) in REDUCED_COSTS.items()
            if precision != INT8 or file.inputs is None
        },
        "folder": folder,
        "file": file,
        "imported": imported,
        "written": written,
        "__module__": __name__,
    }
    if base is not None:
        parts["base"] = base
    made: Added = type("Added", (Added,), parts)()
    return made


def names(model_repository: Path) -> list[str]:
    """The added models of a repository."""
    return sorted(path.parent.name for path in model_repository.glob(f"*/{FILE}"))


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write an .npz file for `read_example`. numpy.savez itself cannot write an array named `file`."""
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, rows in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as target:
                np.save(target, np.asarray(rows), allow_pickle=False)


def read_example(path: Path) -> dict[str, Array]:
    """Read named arrays of equal first axis from an .npz file without pickles. Raises RecipeError for any other."""
    try:
        arrays = files.read_npz(path)
    except FileNotFoundError:
        raise RecipeError(f"{path} does not exist", remedy="write it with numpy.savez(path, **{input: rows})") from None
    except FileError as error:
        raise RecipeError(
            f"{path.name} {error.why}", remedy="write it with numpy.savez(path, **{input: rows}), texts as numpy.str_"
        ) from None
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if not lengths or len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise RecipeError(f"the arrays of {path.name} need one and the same number of rows: {lengths}")
    return arrays


def _row_by_row(predict: Predict) -> Predict:
    """Predict one row at a time: a batch of the served graph must give the same answers."""

    def each(arrays: Arrays) -> dict[str, Array]:
        count = len(next(iter(arrays.values())))
        rows = [predict({name: values[row : row + 1] for name, values in arrays.items()}) for row in range(count)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return each


def _with_export_errors(predict: Predict, remedy: str) -> Predict:
    """Predict, and raise an ExportError for whatever the source raises."""

    def answer(arrays: Arrays) -> Arrays:
        try:
            return predict(arrays)
        except ExportError:
            raise
        except Exception as error:  # ONNX Runtime's, torch's and scikit-learn's kinds
            raise ExportError(
                f"the source fails on an example request ({onnx_file.reason(error)})",
                remedy=remedy,
            ) from error

    return answer


def in_short(name: str, array: Array) -> str:
    """Name, type, shape and first values of a tensor."""
    kind, shown = str(array.dtype), array.ravel()[:SHOWN_NUMBERS]
    if array.dtype.kind in "OUS":
        kind = "BYTES"
        texts = [item.decode(errors="backslashreplace") if isinstance(item, bytes) else str(item) for item in shown]
        head = ", ".join(map(repr, texts))
    else:
        head = ", ".join(f"{number:.4g}" for number in shown)
    return f"{name}: {kind} {list(array.shape)} = {head}{', ...' if array.size > SHOWN_NUMBERS else ''}"
