"""The image classifier: digits, their pictures, and other weights by the same code."""

from __future__ import annotations

import json
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from export.errors import RecipeError
from export.exporter import export_model
from export.graph import onnx_file
from export.lint.lint import lint
from export.models.pictures import digits
from export.models.pictures.images import Preprocessor
from export.models.pictures.mobilenet_v2 import DIGITS_PREPROCESSOR, DIGITS_WEIGHTS, MobileNetV2
from export.recipe.measure import Reference, measure
from export.repository.manifest import Manifest

TWO = ((25, 30), (45, 15), (70, 25), (70, 45), (25, 85), (78, 85))
FIVE = ((72, 15), (32, 15), (30, 45), (60, 45), (72, 62), (60, 82), (27, 82))


def test_the_committed_weights_are_small_and_good(exported_repository: Path) -> None:
    assert DIGITS_WEIGHTS.stat().st_size <= 3_000_000
    record = Manifest.read(exported_repository / "mobilenet_v2")
    assert record is not None
    assert record.stations is not None
    for station in ("source", "onnx"):
        assert record.stations[station].accuracy["top1_accuracy"] >= 0.985


def test_held_out_digits_were_never_trained_on_and_every_digit_is_among_them() -> None:
    training, held_out = digits.split()

    assert (len(training.digit), len(held_out.digit)) == (1347, digits.HELD_OUT)
    assert set(held_out.digit) == set(range(10))
    seen = {image.tobytes() for image in training.pixels}
    assert sum(image.tobytes() in seen for image in held_out.pixels) == 0


def test_the_evaluation_is_what_the_pipeline_makes_of_the_png() -> None:
    recipe = MobileNetV2()
    evaluation = recipe.evaluation()
    pixels = evaluation.inputs["pixels"]
    files = recipe.systems[0].requests()["image"]

    assert (pixels.shape, pixels.dtype, files.shape) == ((450, 128, 128, 3), np.uint8, (450, 1))
    for row in (0, 1, 449):
        assert (DIGITS_PREPROCESSOR(Image.open(BytesIO(files[row, 0]))) == pixels[row]).all()
    png, shown = digits.held_out_png(3)
    assert png == files[3, 0]
    assert shown == evaluation.truth["digit"][3]


@pytest.mark.parametrize("size", [28, 64, 500], ids=lambda size: f"{size} pixels")
@pytest.mark.parametrize(("strokes", "digit"), [(TWO, 2), (FIVE, 5)], ids=["two", "five"])
@pytest.mark.parametrize("paper", ["white", "black"])
def test_a_drawn_digit_of_any_size_on_any_paper_is_named(
    exported_repository: Path, strokes: tuple[tuple[int, int], ...], digit: int, paper: str, size: int
) -> None:
    """What a person tries first: a digit drawn with a thick pen, which looks nothing like 8x8 grey levels."""
    picture = Image.new("RGB", (400, 400), paper)
    pen = "black" if paper == "white" else "white"
    ImageDraw.Draw(picture).line([(4 * x, 4 * y) for x, y in strokes], fill=pen, width=36, joint="curve")
    picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    station = onnx_file.session(exported_repository / "mobilenet_v2" / "1" / "model.onnx", threads=1)

    outputs = station({"pixels": DIGITS_PREPROCESSOR(picture)[None]})

    assert MobileNetV2().interpret(outputs)[0].startswith(f"{digit} ("), MobileNetV2().interpret(outputs)


def test_interpret_names_the_runners_up_worth_a_word() -> None:
    row = np.zeros((1, 10), np.float32)
    row[0, [7, 1, 9]] = 0.95, 0.045, 0.005

    assert MobileNetV2().interpret({"probabilities": row}) == ["7 (95.0 %), then 1 (4.5 %)"]
    assert MobileNetV2().interpret({"probabilities": row}, [f"n{i}" for i in range(10)])[0].startswith("n7 (95.0 %)")
    assert MobileNetV2().interpret({"probabilities": np.eye(3, dtype=np.float32)[:1]}) == ["class 0 (100.0 %)"]


@pytest.fixture(scope="module")
def other_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub would give one: another size, crop and labels. The trained digits make its answers sane."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file
    from transformers import MobileNetV2ForImageClassification

    from export.models.pictures.mobilenet_v2 import digits_config

    folder = tmp_path_factory.mktemp("weights") / "other"
    config = digits_config()
    config.image_size = 96
    config.id2label = {index: f"digit {index}" for index in range(10)}
    config.label2id = {label: index for index, label in config.id2label.items()}
    with torch.no_grad():
        network = MobileNetV2ForImageClassification(config)
    network.load_state_dict(load_file(DIGITS_WEIGHTS), strict=False)
    network.save_pretrained(folder)
    processor = {
        "size": {"shortest_edge": 112},
        "crop_size": {"height": 96, "width": 96},
        "do_center_crop": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.mark.slow
def test_other_weights_are_exported_at_their_own_size_with_their_own_labels(
    exported: Path, other_classifier: Path
) -> None:
    recipe = MobileNetV2()

    result = export_model(recipe, exported, weights=str(other_classifier))

    assert "mobilenet_v2/config.pbtxt: input[0].dims [128, 128, 3] -> [96, 96, 3]" in result.notes
    labels = (exported / "mobilenet_v2" / "labels.txt").read_text().splitlines()
    assert labels == [f"digit {index}" for index in range(10)]
    companion = Preprocessor.from_file(exported / "image_preprocess" / "1" / "preprocessor_config.json")
    assert (companion.size, companion.crop, companion.resample) == ({"shortest_edge": 112}, (96, 96), 3)
    assert lint(exported) == []
    record = result.manifest
    assert record.stations is not None
    assert record.stations["onnx"].accuracy == {"top1_agreement": 1.0}
    assert record.source["description"] == "local folder 'other'"
    assert record.source["files"].keys() == {"config.json", "model.safetensors", "preprocessor_config.json"}

    reference = Reference.read(exported / "mobilenet_v2" / "1" / "reference.npz")
    assert len(np.unique(reference.evaluation.truth["source_class"])) == 10  # the answers are not all one
    station = onnx_file.session(exported / "mobilenet_v2" / "1" / "model.onnx")

    def pipeline(arrays):
        pixels = np.stack([companion(Image.open(BytesIO(file))) for file in arrays["image"].ravel()])
        return station({"pixels": pixels})

    through = measure(recipe, pipeline, reference, batch=32, through_pipeline=True)
    assert through.accuracy == {"top1_agreement": 1.0}
    assert through.parity is not None
    assert through.parity.max_abs < 1e-4


OTHER = json.dumps({"architectures": ["ResNetForImageClassification"]})
# (the file that is changed, its text or None for none, the file, field and value that the error names)
REFUSALS = [
    ("model.safetensors", None, "", "weights", [], "an empty folder"),
    ("config.json", None, "config.json", "weights", None, "no configuration"),
    ("config.json", OTHER, "config.json", "architectures", ["ResNetForImageClassification"], "another network"),
    (
        *("preprocessor_config.json", '{"size": {"longest_edge": 5}}'),
        *("preprocessor_config.json", "size", None, "a processor with other fields"),
    ),
]


@pytest.mark.parametrize(
    ("changed", "text", "file", "field", "found", "why"), REFUSALS, ids=[row[-1] for row in REFUSALS]
)
def test_folders_that_are_refused(
    other_classifier: Path,
    tmp_path: Path,
    changed: str,
    text: str | None,
    file: str,
    field: str,
    found: list[str] | None,
    why: str,
) -> None:
    folder = Path(shutil.copytree(other_classifier, tmp_path / "copy"))
    (folder / changed).unlink()
    if text is not None:
        (folder / changed).write_text(text)
    recipe = MobileNetV2()

    with pytest.raises(RecipeError) as caught:
        recipe.load(recipe.resolve(str(folder)))

    error = caught.value
    assert (error.file, error.field, error.found) == (str(folder / file), field, found)


def test_weights_that_are_no_folder_and_no_hub_id(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="OWNER/NAME"):
        MobileNetV2().resolve(str(tmp_path / "nowhere" / "at" / "all"))

    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError) as caught:
        MobileNetV2().resolve(str(tmp_path / "file"))
    assert (caught.value.file, caught.value.field) == (str(tmp_path / "file"), "weights")


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*arguments: object, **options: object) -> str:
        raise ConnectionError("Name or service not known\nand a second line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)

    with pytest.raises(RecipeError) as caught:
        MobileNetV2().resolve("google/mobilenet_v2_1.0_224")

    message = str(caught.value)
    assert all(part in message for part in ("google/mobilenet_v2_1.0_224", "Name or service not known"))
    assert "\n" not in message
    assert "a second line" not in message
