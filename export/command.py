"""Spell the commands of Fathom that messages suggest, so that a shell takes them as they are printed."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def fathom(*words: str, repository: Path) -> str:
    """`fathom WORD ...`, quoted, for that model repository."""
    return " ".join(map(quote, ("fathom", *words, *naming(repository))))


def export_again(folder: Path, *options: str) -> str:
    """The remedy that exports the model of a folder again."""
    return f"run `{fathom('export', folder.name, *options, repository=folder.parent)}`"


def naming(repository: Path) -> tuple[str, ...]:
    """The option that names a model repository; nothing for the one that Fathom takes by default."""
    if repository.resolve() == default_repository().resolve():
        return ()
    return "--model-repository", str(repository)


def quote(word: str) -> str:
    """One word for a shell. An error is one line, in which white space is one blank: other white space is escaped,
    and so is what no terminal shows."""
    if " ".join(word.split()) == word and word.isprintable():
        return shlex.quote(word)
    shown = (each if each.isprintable() and each not in " `'\\" else f"\\U{ord(each):08x}" for each in word)
    return f"$'{''.join(shown)}'"


def default_repository() -> Path:
    """The model repository of a command that names none."""
    if given := os.environ.get("FATHOM_MODEL_REPOSITORY"):
        return Path(given)
    here = Path("model_repository")
    return here if here.is_dir() else Path(__file__).parents[1] / "model_repository"
