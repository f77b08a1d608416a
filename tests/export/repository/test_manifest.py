"""Manifests: what they record and how they are read again."""

from __future__ import annotations

import json
from dataclasses import replace as with_fields
from pathlib import Path
from typing import Any

import pytest
from scale_model import Scale

from export.command import fathom
from export.errors import RecipeError
from export.precision.precision import Target
from export.recipe.measure import Measurement, Parity
from export.repository import manifest
from export.repository.manifest import FILE, Manifest


def test_a_manifest_comes_back_as_it_was_written(repository: Path, tmp_path: Path) -> None:
    written = Manifest.read(repository / "scale")
    assert written is not None
    full = with_fields(
        written,
        versions={"opset": 17},
        packages={"onnx": "1"},
        stations={"onnx": Measurement({"a": 0.5}, Parity(1.0, 2.0, 0.5))},
        build_seconds=1.5,
    )
    (tmp_path / "again" / "1").mkdir(parents=True)

    full.write(tmp_path / "again" / FILE)

    assert Manifest.read(tmp_path / "again") == full
    assert Manifest.read(tmp_path) is None


CHANGES = [
    (lambda path: path.unlink(), "a file was removed"),
    (lambda path: path.write_bytes(path.read_bytes() + b"x"), "a file grew"),
    (lambda path: flip(path), "one byte changed"),
]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("change", "why"), CHANGES, ids=[row[-1] for row in CHANGES])
def test_a_changed_file_is_named(repository: Path, change, why: str) -> None:
    record = Manifest.read(repository / "scale")
    assert record is not None
    assert record.changed_files(repository / "scale") == []

    change(repository / "scale" / "1" / "model.onnx")

    (changed,) = record.changed_files(repository / "scale")
    assert changed.name == "1/model.onnx"


UNREADABLE = [
    ("{", (None, None, None), "cut off"),
    ("[]", (None, None, None), "something else"),
    ('{"format": 1}', (None, None, None), "fields are missing"),
    ('{"format": 99}', ("format", 99, manifest.FORMAT), "from a later version"),
]


@pytest.mark.parametrize(("text", "differs", "why"), UNREADABLE, ids=[row[-1] for row in UNREADABLE])
def test_a_manifest_that_cannot_be_understood(
    repository: Path, text: str, differs: tuple[str | None, int | None, int | None], why: str
) -> None:
    (repository / "scale" / FILE).write_text(text)

    with pytest.raises(RecipeError) as caught:
        Manifest.read(repository / "scale")

    error = caught.value
    assert error.file == str(repository / "scale" / FILE)
    assert (error.field, error.found, error.expected) == differs
    assert f"`{fathom('export', 'scale', '--force', repository=repository)}`" in str(error.remedy)


SHA = "f" * 64
WRONG = [
    ({"source": {"sha256": 5}}, "source.sha256 is 5, not a text"),
    ({"source": 5}, "source is 5, not an object"),
    ({"files": {"1/a": {"sha256": SHA, "bytes": "5"}}}, 'files["1/a"].bytes is "5", not a whole number'),
    ({"files": {"1/a": None}}, 'files["1/a"] is null, not an object'),
    ({"build_seconds": "5"}, 'build_seconds is "5", not a number'),
    ({"stations": []}, "stations is [], not an object"),
]


@pytest.mark.parametrize(("change", "why"), WRONG, ids=[row[-1] for row in WRONG])
def test_a_field_of_another_kind_is_named(repository: Path, change: dict[str, Any], why: str) -> None:
    path = repository / "scale" / FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(RecipeError) as caught:
        Manifest.read(repository / "scale")

    assert caught.value.what == f"{path} is not a manifest ({why})"


def test_a_field_that_is_missing_is_named(repository: Path) -> None:
    path = repository / "scale" / FILE
    record = json.loads(path.read_text())
    del record["created"]
    path.write_text(json.dumps(record))

    with pytest.raises(RecipeError, match=r"is not a manifest \(created is missing\)"):
        Manifest.read(repository / "scale")


def test_a_build_is_the_same_until_something_that_determines_it_changes(
    scale: Scale, monkeypatch: pytest.MonkeyPatch
) -> None:
    def now(exporter: int = 1, **options: Any) -> dict[str, Any]:
        source = manifest.source_record(scale, scale.resolve(None))
        return json.loads(json.dumps(manifest.build_record(scale, source, exporter, Target(**options))))

    first = now()
    monkeypatch.setattr(manifest.platform, "python_version", lambda: "3.11.99")
    assert manifest.difference(first, now()) is None

    others = [({}, "no record")]
    others += [(now(2), "exporter"), (now(precision="fp16"), "precision"), (now(excluded=("MatMul",)), "excluded")]
    scale.weights.write_text("3")
    others += [(now(), "weights")]
    monkeypatch.setattr(Scale, "BUILD", 7)
    others += [(now(), "recipe")]
    monkeypatch.setattr(manifest.metadata, "version", lambda name: "0.0.1")
    others += [(now(), "packages")]
    assert [why for build, why in others if manifest.difference(build, first) is None] == []


def test_no_path_of_this_machine_is_recorded(exported_repository: Path) -> None:
    manifests = sorted(exported_repository.glob("*/1/manifest.json"))
    assert {path.parts[-3] for path in manifests} == {
        *("image_preprocess", "minilm", "mobilenet_v2", "rain_forecast", "text_tokenizer")
    }
    for path in manifests:
        text = path.read_text()
        assert str(Path.home()) not in text
        assert str(Path(__file__).parents[3]) not in text
        assert json.loads(text)["source"]["sha256"]
