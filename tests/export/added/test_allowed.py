"""A recipe.toml from elsewhere: no code runs, and nothing outside the folder is read, before the owner allows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from imported_models import F, matrix, node, write

from export import recipes
from export.add.add import AddOptions, add
from export.added import allowed
from export.command import fathom
from export.errors import ExportError, FileError, RecipeError
from export.exporter import export_model
from export.sources import ONNX

SHAPES = [("x", F, ["rows", 3])], [("y", F, ["rows", 2])]
EVIL = "open({mark!r}, 'w').close()\ndef go(): raise SystemExit\n"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the added model `m`, of an ONNX file."""
    (made := tmp_path / "model_repository").mkdir()
    path = write(tmp_path / "m.onnx", [node("MatMul", ["x", "w"], ["y"])], *SHAPES, {"w": matrix(3, 2)})
    add("m", AddOptions(ONNX, str(path)), made)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(allowed, "_here", set())
    return made


def name_source(repository: Path, *lines: str) -> None:
    """Let recipe.toml name another source."""
    path = repository / "m" / "recipe.toml"
    kept = [line for line in path.read_text().splitlines() if not line.startswith(("kind = ", "from = ", "home = "))]
    at = kept.index("[source]") + 1
    path.write_text("\n".join([*kept[:at], *lines, *kept[at:]]) + "\n")


CODE = {
    "an absolute folder": ("evil", 'from = "mod:go"', 'home = "{evil}"'),
    "a relative folder": ("evil", 'from = "mod:go"', 'home = "../../evil"'),
    "the model's own folder": ("model_repository/m/source", 'from = "mod:go"', 'home = "source"'),
    "the current folder": (".", 'from = "mod:go"', 'home = "nowhere"'),
}


@pytest.mark.parametrize("kind", ["torch", "sklearn"])
@pytest.mark.parametrize(("folder", "source", "home"), CODE.values(), ids=CODE)
def test_code_runs_only_where_it_was_allowed(
    repository: Path, monkeypatch: pytest.MonkeyPatch, kind: str, folder: str, source: str, home: str
) -> None:
    monkeypatch.chdir(repository.parent)
    mark = repository.parent / "ran"
    evil = repository.parent / folder
    evil.mkdir(exist_ok=True)
    (evil / "mod.py").write_text(EVIL.format(mark=str(mark)))
    name_source(repository, f'kind = "{kind}"', source, home.format(evil=evil))

    for weights in (None, "mod:go"):
        with pytest.raises(RecipeError) as refused:
            export_model(recipes.find("m", repository), repository, weights=weights, force=True)
        assert refused.value.file == "m/recipe.toml"
        assert not mark.exists()

    recipes.allow_sources([recipes.find("m", repository)])
    monkeypatch.setattr(allowed, "_here", set())  # as another process, which reads it
    with pytest.raises(ExportError):
        export_model(recipes.find("m", repository), repository, force=True)
    assert mark.exists()


def test_a_file_outside_the_folder_is_read_only_where_it_was_allowed(repository: Path) -> None:
    name_source(repository, 'kind = "onnx"', 'from = "../../m.onnx"')
    (repository / "m" / "source" / "m.onnx").unlink()
    with pytest.raises(RecipeError) as refused:
        export_model(recipes.find("m", repository), repository)
    assert refused.value.field == "from"
    assert fathom("export", "m", "--allow-source", repository=repository) in str(refused.value)
    recipes.allow_sources([recipes.find("m", repository)])
    assert export_model(recipes.find("m", repository), repository).manifest.files


LINKED = {
    "the source": ("source/m.onnx", RecipeError),
    "the recipe": ("recipe.toml", RecipeError),
    "the configuration": ("config.pbtxt", ExportError),
}


@pytest.mark.parametrize(("name", "error"), LINKED.values(), ids=LINKED)
def test_a_link_out_of_the_folder_is_not_followed(repository: Path, name: str, error: type[ExportError]) -> None:
    path = repository / "m" / name
    path.rename(repository.parent / "outside")
    path.symlink_to(repository.parent / "outside")
    with pytest.raises(error):
        export_model(recipes.find("m", repository), repository, force=True)


def test_code_kept_by_a_link_out_of_the_folder_is_not_hashed(repository: Path) -> None:
    (repository / "m" / "source" / "mod.py").write_text("")
    (repository / "m" / "source" / "secret").symlink_to("/etc/passwd")
    name_source(repository, 'kind = "torch"', 'from = "mod:go"', 'home = "source"')
    with pytest.raises(FileError):
        export_model(recipes.find("m", repository), repository)


def test_a_home_that_cannot_be_written_allows_for_this_process(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    allowed.allow("a source")
    assert allowed.is_allowed("a source")
    assert not allowed.is_allowed("another")
