"""What `add` keeps of a source in the model's folder, and what it names instead."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from imported_models import F, matrix, node, write

from export import recipes
from export.add.add import AddOptions, add
from export.added import kept, packages
from export.errors import RecipeError
from export.exporter import export_model
from export.sources import user_code
from export.sources.base import HF, ONNX, TORCH
from export.sources.trace import Trace

DENSE = [node("MatMul", ["x", "w"], ["y"])]
SHAPES = [("x", F, ["rows", 3])], [("y", F, ["rows", 2])]
ESTIMATOR = """
import numpy as np
from sklearn.linear_model import LinearRegression
{imports}
def line():
    table = np.eye(3)
    return LinearRegression().fit(table, {weights}), table
"""


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Somebody's folder, as the current one."""
    made = tmp_path / "home"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


def keep(home: Path, source: str, limit_bytes: int = kept.LIMIT_BYTES) -> tuple[kept.Kept, Path]:
    """What is kept of a function that has just been called, and the model's folder."""
    folder = home.parent / "model_repository" / "mine"
    folder.mkdir(parents=True)
    user_code.call(source, home, "--torch")
    return kept.keep(TORCH, source, home, folder, folder, user_code.last_call(), limit_bytes=limit_bytes), folder


BESIDE = "from pathlib import Path\nHERE = Path(__file__).parent\n"
CODE = {
    "a module alone, and nothing that it does not use": (
        {"mine.py": "def go(): return 1", "other.py": "", "data.csv": "1"},
        "mine:go",
        {"mine.py"},
    ),
    "what it imports, at its top and in the function": (
        {
            "mine.py": "import one\ndef go():\n import two\n return two",
            "one.py": "",
            "two.py": "import three",
            "three.py": "",
        },
        "mine:go",
        {"mine.py", "one.py", "two.py", "three.py"},
    ),
    "a package with relative imports": (
        {
            "shop/__init__.py": "",
            "shop/models.py": "from .features import go",
            "shop/features.py": "def go(): return 1",
            "shop/unused.py": "",
        },
        "shop.models:go",
        {"shop/__init__.py", "shop/models.py", "shop/features.py"},
    ),
    "a folder without __init__.py": (
        {"shop/models.py": "def go(): return 1"},
        "shop.models:go",
        {"shop/models.py"},
    ),
    "a module whose name is made up at run time": (
        {"mine.py": "import importlib\ndef go(): return importlib.import_module('li' + 'near')", "linear.py": ""},
        "mine:go",
        {"mine.py", "linear.py"},
    ),
    "files that it reads, in the current folder and beside the module": (
        {
            "lib/mine.py": BESIDE
            + "def go(): return Path('a' + '.csv').read_text() + (HERE / 'data' / 'b.csv').read_text()",
            "a.csv": "1",
            "lib/data/b.csv": "2",
        },
        "lib.mine:go",
        {"lib/mine.py", "a.csv", "lib/data/b.csv"},
    ),
    "a file that a library opens where Python does not see it": (
        {
            "mine.py": "import ctypes\ndef go(): return ctypes.CDLL(None).access(b'x', 0), 'w.safetensors'",
            "w.safetensors": "w",
        },
        "mine:go",
        {"mine.py", "w.safetensors"},
    ),
    "the weights of a transformers folder, which are opened likewise": (
        {
            "mine.py": BESIDE + "def go(): return (HERE / 'net' / ('config' + '.json')).read_text()",
            "net/config.json": "{}",
            "net/model.safetensors": "w",
            "net/README.md": "",
        },
        "mine:go",
        {"mine.py", "net/config.json", "net/model.safetensors"},
    ),
    "what it writes is not kept": (
        {"mine.py": BESIDE + "def go(): return Path('log').write_text('x'), Path('log').read_text()"},
        "mine:go",
        {"mine.py"},
    ),
}


@pytest.mark.parametrize(("files", "source", "expected"), CODE.values(), ids=CODE)
def test_a_function_is_kept_with_what_it_takes(files, source, expected, home):
    put(home, files)
    made, folder = keep(home, source)
    assert tree(folder / "source") == set(made.files) == expected
    assert made.needs == ()
    for name in files:
        (home / name).unlink()
    user_code.call(source, folder / "source", "--torch")


def test_a_module_on_the_path_outside_the_home_folder_is_kept_as_well(home, tmp_path, monkeypatch):
    put(tmp_path / "lib", {"tools/mine.py": BESIDE + "def go(): return (HERE / 'n').read_text()", "tools/n": "1"})
    monkeypatch.syspath_prepend(tmp_path / "lib")
    made, _ = keep(home, "tools.mine:go")
    assert (set(made.files), made.needs) == ({"tools/mine.py", "tools/n"}, ())


NEEDS = {
    "a file elsewhere": ({"mine.py": BESIDE + "def go(): return Path('{elsewhere}').read_text()"}, "{elsewhere}"),
    "several files of a folder elsewhere": (
        {
            "mine.py": BESIDE
            + "def go(): return [each.read_text() for each in Path('{elsewhere}').parent.glob('*.csv')]"
        },
        "{folder_elsewhere}, ",
    ),
    "a hidden file, which may hold a secret": (
        {"mine.py": BESIDE + "def go(): return Path('.env').read_text()", ".env": "TOKEN=1"},
        "{home}/.env",
    ),
    "a file that is too large": (
        {"mine.py": BESIDE + "def go(): return Path('large').read_text()", "large": "0" * 2000},
        "{folder}/source/large",
    ),
}


@pytest.mark.parametrize(("files", "named"), NEEDS.values(), ids=NEEDS)
def test_what_is_not_kept_is_named(files, named, home, tmp_path):
    elsewhere = tmp_path / "data" / "elsewhere.csv"
    put(elsewhere.parent, {"elsewhere.csv": "1", "second.csv": "2"})
    put(home, {name: text.format(elsewhere=elsewhere) for name, text in files.items()})
    made, folder = keep(home, "mine:go", limit_bytes=1000)
    (need,) = made.needs
    assert named.format(elsewhere=elsewhere, folder_elsewhere=elsewhere.parent, home=home, folder=folder) in need
    assert tree(folder / "source") == {"mine.py"}


def test_an_installed_function_names_its_package(home, tmp_path, monkeypatch):
    put(tmp_path / "site-packages", {"acme_models.py": "def go(): return 1"})
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    made, folder = keep(home, "acme_models:go")
    assert made.files == {}
    assert "acme_models" in made.needs[0]
    assert not (folder / "source").exists()


def test_packages_that_do_not_come_with_fathom_are_named(tmp_path):
    put(
        tmp_path, {"mine.py": "import json, numpy, sklearn.svm, scipy\nfrom torch import nn\nimport hypothesis, absent"}
    )
    (only,) = packages.beyond_ours([tmp_path / "mine.py"])
    assert only.startswith("hypothesis==")


def test_a_hub_id_is_named(tmp_path):
    made = kept.keep(HF, "owner/name", tmp_path, tmp_path / "mine", tmp_path, Trace())
    assert made.source == "owner/name"
    assert made.files == {}
    assert str(tmp_path / "mine" / "source" / "name") in made.needs[0]


def test_a_transformers_folder_is_kept_with_its_tokenizer_and_without_pickles(tmp_path):
    wanted = {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "preprocessor_config.json",
        "vocab.txt",
        "merges.txt",
    }
    put(tmp_path / "net", dict.fromkeys({*wanted, "pytorch_model.bin", "README.md"}, "{}"))
    (tmp_path / "staged").mkdir()
    made = kept.keep(HF, str(tmp_path / "net"), tmp_path, tmp_path / "mine", tmp_path / "staged", Trace())
    assert made.source == "./source/net"
    assert tree(tmp_path / "staged" / "source" / "net") == wanted


@pytest.fixture
def repository(tmp_path):
    made = tmp_path / "laptop" / "model_repository"
    made.mkdir(parents=True)
    return made


def test_an_onnx_file_is_exported_wherever_its_folder_is_copied(repository, tmp_path):
    path = write(tmp_path / "from" / "m.onnx", DENSE, *SHAPES, {"w": matrix(3, 2)})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    made = add("mine", AddOptions(ONNX, str(path)), repository)
    assert set(made.kept.files) == {"m.onnx", "weights.bin"}
    shutil.rmtree(path.parent)
    host = tmp_path / "host" / "models"
    shutil.copytree(repository / "mine", host / "mine", ignore=shutil.ignore_patterns("1"))
    shutil.rmtree(repository)
    assert export_model(recipes.find("mine", host), host).manifest.files == made.exported.manifest.files
    host.rename(tmp_path / "models")
    assert export_model(recipes.find("mine", tmp_path / "models"), tmp_path / "models").skipped


def test_linked_data_of_another_folder_is_named_and_written_nowhere(tmp_path):
    blobs, snapshot, staged = (tmp_path / name for name in ("blobs", "snapshot", "staged"))
    path = write(blobs / "m.onnx", DENSE, *SHAPES, {"w": matrix(3, 2)})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../blobs/w.bin"
    path.write_bytes(model.SerializeToString())
    snapshot.mkdir()
    staged.mkdir()
    (snapshot / "m.onnx").symlink_to(path)
    made = kept.keep(ONNX, str(snapshot / "m.onnx"), tmp_path, tmp_path / "mine", staged, Trace())
    assert made.files == {}
    assert str(snapshot / "m.onnx") in made.needs[0]
    assert tree(staged) == {".gitignore"}


def test_two_models_may_have_modules_of_the_same_name(repository, tmp_path, monkeypatch):
    for name, weights in (("one", "[1.0, 2.0, 3.0]"), ("two", "weights()")):
        files = {"model.py": ESTIMATOR.format(imports="from parts import weights" * (name == "two"), weights=weights)}
        put(tmp_path / name, {**files, "parts.py": f"def weights(): return [4.0, 5.0, 6.0]  # of {name}"})
        monkeypatch.chdir(tmp_path / name)
        add(name, AddOptions("sklearn", "model:line"), repository)
        shutil.rmtree(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for name, answer in (("one", 1.0), ("two", 4.0)):
        export_model(recipes.find(name, repository), repository, force=True)
        with np.load(repository / name / "1" / "reference.npz") as file:
            (outputs,) = [file[key] for key in file.files if "prediction" in key]
        assert outputs.ravel()[0] == pytest.approx(answer, abs=1e-5), name
    watched = repository / "two" / "source" / "parts.py"
    watched.write_text(watched.read_text().replace("4.0", "7.0"))
    assert not export_model(recipes.find("two", repository), repository).skipped
    assert not list(repository.rglob("__pycache__"))


def test_a_note_says_that_what_was_kept_does_not_suffice(repository, home):
    hidden = "Path('.cache', 'n').read_text() and [1.0, 2.0, 3.0]"
    put(home, {"mine.py": ESTIMATOR.format(imports="from pathlib import Path", weights=hidden), ".cache/n": "1"})
    made = add("mine", AddOptions("sklearn", "mine:line"), repository)
    assert len(made.kept.needs) == 1
    assert any("FileNotFoundError" in note for note in made.notes), made.notes
    (repository / "mine" / "source" / ".cache").mkdir()
    shutil.move(home / ".cache" / "n", repository / "mine" / "source" / ".cache" / "n")
    assert export_model(recipes.find("mine", repository), repository, force=True).manifest.files


def test_what_is_too_large_is_copied_along_and_found(repository, tmp_path):
    path = write(tmp_path / "elsewhere" / "m.onnx", DENSE, *SHAPES, {"w": matrix(3, 2)})
    made = add("mine", AddOptions(ONNX, str(path), keep_bytes=100), repository)
    place = repository / "mine" / "source" / "m.onnx"
    assert made.kept.files == {}
    assert made.recipe.file.needs == made.kept.needs
    assert str(place) in made.kept.needs[0]
    assert export_model(recipes.find("mine", repository), repository).skipped, "it is still found where it was"
    path.rename(tmp_path / "m.onnx")
    with pytest.raises(RecipeError) as caught:
        export_model(recipes.find("mine", repository), repository)
    assert str(place) in str(caught.value)
    assert str(path) in str(caught.value)
    place.parent.mkdir()
    shutil.move(tmp_path / "m.onnx", place)
    assert export_model(recipes.find("mine", repository), repository, force=True).manifest.files


def test_a_file_of_the_project_that_is_too_large_is_named_by_a_relative_path(repository):
    path = write(repository.parent / "models" / "m.onnx", DENSE, *SHAPES, {"w": matrix(3, 2)})
    made = add("mine", AddOptions(ONNX, str(path), keep_bytes=100), repository)
    assert made.recipe.file.source == "../../models/m.onnx"
    repository.parent.rename(repository.parent.parent / "moved")
    moved = repository.parent.parent / "moved" / "model_repository"
    recipes.allow_sources([recipes.find("mine", moved)])
    assert export_model(recipes.find("mine", moved), moved).skipped


def test_git_takes_what_was_kept_and_leaves_the_artefacts_whatever_it_ignores_elsewhere(repository, home):
    project = repository.parent
    (project / ".gitignore").write_text("*.npz\n*.onnx\n*.csv\nbuild/\ndata/\n__pycache__/\n")
    code = ESTIMATOR.format(imports="", weights="np.loadtxt('data/build/w.csv')")
    put(home, {"mine.py": code, "data/build/w.csv": "1\n2\n3\n"})
    add("mine", AddOptions("sklearn", "mine:line"), repository)
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    subprocess.run(["git", "add", "model_repository/mine"], cwd=project, check=True)
    listed = subprocess.run(["git", "ls-files"], cwd=project, check=True, capture_output=True, text=True).stdout.split()
    inside = {name.removeprefix("model_repository/mine/") for name in listed}
    expected = {".gitignore", "config.pbtxt", "example.npz", "recipe.toml", "source/data/build/w.csv", "source/mine.py"}
    assert inside - {"warmup/input_0"} == expected
    assert json.loads((repository / "mine" / "1" / "manifest.json").read_text())["files"]
