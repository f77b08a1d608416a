"""Parts for a narrow transfer: split, carried in any order, checked, joined."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


parts = load("parts")


@pytest.fixture
def source(tmp_path):
    """Files of 0, 1, 100, 200 and 250 bytes, one of them in a folder."""
    folder = tmp_path / "wheels"
    (folder / "artefacts").mkdir(parents=True)
    for size in (0, 1, 100, 200):
        (folder / f"{size}.whl").write_bytes(bytes(range(size)))
    (folder / "artefacts" / "model.onnx").write_bytes(bytes(range(250)))
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_joined_is_what_was_split(source, tmp_path):
    folders = parts.split(source, tmp_path / "parts", most_bytes=100)
    sizes = [[part.stat().st_size for part in folder.glob("*.part")] for folder in folders]
    assert sorted(map(sorted, sizes)) == [[0, 100], [1, 50], [100], [100], [100], [100]]
    parts.join(tmp_path / "parts", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(source)


def test_a_file_of_the_same_content_is_carried_once(source, tmp_path):
    (source / "again.whl").write_bytes((source / "200.whl").read_bytes())
    folders = parts.split(source, tmp_path / "parts", most_bytes=100)
    assert sum(part.stat().st_size for folder in folders for part in folder.glob("*.part")) == 1 + 100 + 200 + 250
    parts.join(tmp_path / "parts", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(source)


def test_parts_are_found_where_the_folders_were_emptied_into_one(source, tmp_path):
    (tmp_path / "there").mkdir()
    for folder in parts.split(source, tmp_path / "parts", most_bytes=100):
        for path in folder.iterdir():
            path.replace(tmp_path / "there" / path.name)
    parts.join(tmp_path / "there", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(source)


def test_a_part_that_is_missing_or_damaged_is_named_and_the_rest_is_joined(source, tmp_path):
    target = tmp_path / "parts"
    parts.split(source, target, most_bytes=100)
    described = json.loads((target / "01" / parts.MANIFEST).read_text())
    missing, damaged = (described[name]["parts"][1]["name"] for name in ("200.whl", "artefacts/model.onnx"))
    lost, broken = (next(target.rglob(name)) for name in (missing, damaged))
    kept = lost.read_bytes(), broken.read_bytes()
    lost.unlink()
    broken.write_bytes(b"x" * 100)
    with pytest.raises(parts.PartsError) as caught:
        parts.join(target, tmp_path / "out")
    assert f"{missing} of 200.whl is missing" in str(caught.value)
    assert f"{damaged} of artefacts/model.onnx is damaged" in str(caught.value)
    assert set(contents(tmp_path / "out")) == {"0.whl", "1.whl", "100.whl"}
    lost.write_bytes(kept[0])
    broken.write_bytes(kept[1])
    parts.join(target, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(source)


def test_a_manifest_cannot_write_outside_the_target(source, tmp_path):
    target = tmp_path / "parts"
    (folder,) = parts.split(source, target)
    text = (folder / parts.MANIFEST).read_text().replace('"1.whl"', '"../1.whl"')
    (folder / parts.MANIFEST).write_text(text)
    with pytest.raises(parts.PartsError, match=r"\.\./1\.whl, which lies outside"):
        parts.join(target, tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["split", "{empty}", "--into", "{new}"], "holds no file"),
        (["split", "{source}", "--into", "{source}"], "is not empty"),
        (["split", "{source}", "--into", "{new}", "--megabytes", "0"], "name more than 0"),
        (["join", "{empty}", "--into", "{new}"], "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_2(source, tmp_path, capsys, words, why):
    (tmp_path / "empty").mkdir()
    places = {"source": source, "empty": tmp_path / "empty", "new": tmp_path / "new"}
    assert parts.main([word.format(**places) for word in words]) == 2
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1


def test_the_command_splits_and_joins(source, tmp_path, capsys):
    assert parts.main(["split", str(source), "--into", str(tmp_path / "parts"), "--megabytes", "0.0001"]) == 0
    assert parts.main(["join", str(tmp_path / "parts"), "--into", str(tmp_path / "out")]) == 0
    assert "5 files" in capsys.readouterr().out


def test_every_listed_wheel_is_pinned_and_listed_once():
    lines = [line for path in sorted((HERE / "wheels").glob("*.txt")) for line in path.read_text().splitlines()]
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(line.count("==") == 1 for line in pins)
    names = [line.split("==")[0] for line in pins]
    assert len(set(names)) == len(names)
    assert {"nvidia-pytriton", "onnxruntime-gpu", "tritonclient"} <= set(names)
    command = load("wheels").command(Path("somewhere"), ["needed", "minilm"])
    assert {"--no-deps", "--python-version=3.12", "manylinux_2_35_x86_64"} <= set(command)
    assert [word for word in command if word.endswith("minilm.txt")]


def test_the_bootstrap_names_the_python_it_needs_or_the_parts_that_are_missing(tmp_path, capsys):
    assert load("bootstrap").main([str(tmp_path)]) == 2
    needed = "parts.json cannot be read" if sys.version_info[:2] == (3, 12) else "run it with python3.12"
    assert needed in capsys.readouterr().err


def test_cuda_libraries_are_found_where_the_interpreter_sees_the_nvidia_packages(tmp_path):
    for name in ("cu13", "cudnn"):
        (tmp_path / "nvidia" / name / "lib").mkdir(parents=True)
    (tmp_path / "python").write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    found = load("bootstrap").cuda_libraries(str(tmp_path / "python"))
    assert found == [str(tmp_path / "nvidia" / name / "lib") for name in ("cu13", "cudnn")]
