"""A model whose weights do not fit one ONNX file: exported, recorded, checked and reduced with its data file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from product_model import Product, rows, write_product_repository

from export.exporter import export_model
from export.graph import onnx_file
from export.lint.lint import lint
from export.recipe.recipe import Source, Weights

DATA = "1/model.onnx.data"


class Large(Product):
    """`Product` as torch's exporter writes what is over 2 GB: with its weights in a file beside it."""

    def load(self, weights: Weights) -> Source:
        source = super().load(weights)

        def write_onnx(path: Path) -> None:
            source.write_onnx(path)
            model = onnx.load(str(path))
            path.unlink()
            onnx.save(model, str(path), save_as_external_data=True, location=Path(DATA).name, size_threshold=0)

        return replace(source, write_onnx=write_onnx)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_product_repository(tmp_path / "model_repository")


def test_the_data_file_is_published_recorded_and_checked(repository: Path) -> None:
    result = export_model(Large(), repository)

    folder = repository / "product"
    assert set(result.manifest.files) == {"1/model.onnx", DATA, "1/reference.npz"}
    assert (folder / DATA).stat().st_size == 3 * 16 * 16 * 4
    assert onnx_file.session(folder / "1" / "model.onnx")(rows(2, 4).inputs)["y"].shape == (4, 16)
    assert [finding for finding in lint(repository) if finding.severity == "error"] == []
    assert export_model(Large(), repository).skipped

    content = bytearray((folder / DATA).read_bytes())
    content[100] ^= 1
    (folder / DATA).write_bytes(content)

    (found,) = [finding for finding in lint(repository) if finding.severity == "error"]
    assert found.file == f"product/{DATA}"
    assert "SHA-256" in found.message
    assert not export_model(Large(), repository).skipped


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_reduced_graph_needs_no_data_file_and_the_old_one_goes(repository: Path, precision: str) -> None:
    export_model(Large(), repository)

    result = export_model(Large(), repository, precision=precision)

    assert result.manifest.precision == precision
    assert not (repository / "product" / DATA).exists()
    assert [finding for finding in lint(repository) if finding.severity == "error"] == []
