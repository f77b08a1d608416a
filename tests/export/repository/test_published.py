"""What is published of a model: read once, and why it must be built again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from scale_model import Scale

from export.errors import ConfigError
from export.exporter import export_model
from export.recipe.recipe import Source, Weights
from export.repository.manifest import Manifest
from export.repository.published import Published


class Fronted(Scale):
    """The small model behind `prepare`, one of whose files comes from its export."""

    companions = ("prepare",)

    def load(self, weights: Weights) -> Source:
        return replace(super().load(weights), assets={"prepare": {"1/gain.txt": b"2"}})


@pytest.fixture
def fronted(tmp_path: Path) -> Fronted:
    weights = tmp_path / "gain.txt"
    weights.write_text("2")
    return Fronted(weights)


def of_another_export(repository: Path) -> None:
    companion = Manifest.read(repository / "prepare")
    assert companion is not None
    other = replace(companion, source={**companion.source, "sha256": "0" * 64})
    other.write(repository / "prepare" / "1" / "manifest.json")


CHANGES: list[tuple[Callable[[Path], object], Mapping[str, object], str | None, str]] = [
    (lambda repository: None, {}, None, "nothing has changed"),
    (lambda repository: None, {"exporter": 2}, "2", "another build"),
    (lambda repository: (repository / "scale/1/manifest.json").unlink(), {}, "", "nothing is published"),
    (lambda repository: (repository / "scale/1/model.onnx").write_bytes(b""), {}, "model.onnx", "a changed file"),
    (lambda repository: (repository / "prepare/1/manifest.json").unlink(), {}, "prepare", "no companion's manifest"),
    (of_another_export, {}, "prepare", "a companion of other weights"),
    (lambda repository: (repository / "prepare/1/gain.txt").unlink(), {}, "gain.txt", "a companion's missing file"),
]


@pytest.mark.parametrize(("change", "other", "names", "why"), CHANGES, ids=[row[-1] for row in CHANGES])
def test_why_it_must_be_built_again(
    repository: Path,
    fronted: Fronted,
    change: Callable[[Path], object],
    other: Mapping[str, object],
    names: str | None,
    why: str,
) -> None:
    build = export_model(fronted, repository).manifest.build
    change(repository)

    found = Published.read(repository / "scale", ("prepare",)).difference({**build, **other}, rewriting=False)

    assert (found is None) == (names is None)
    assert (names or "") in (found or "")
    if not other:
        assert export_model(fronted, repository).skipped == (names is None)
        assert export_model(fronted, repository).skipped


def test_a_companion_without_a_configuration_is_an_error_before_anything_is_loaded(
    repository: Path, fronted: Fronted, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "prepare" / "config.pbtxt").unlink()
    monkeypatch.setattr(fronted, "load", lambda weights: pytest.fail("the model was loaded"))

    with pytest.raises(ConfigError) as caught:
        export_model(fronted, repository)
    assert caught.value.file == str(repository / "prepare" / "config.pbtxt")


def test_an_export_reads_each_manifest_once(
    repository: Path, fronted: Fronted, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(fronted, repository)
    read, folders = Manifest.read, []
    monkeypatch.setattr(Manifest, "read", lambda folder: (folders.append(folder.name), read(folder))[1])

    export_model(fronted, repository, force=True)

    assert sorted(folders) == ["prepare", "scale"]
