"""The road scene detector: its frames, its network's targets, and other detectors by the same code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.errors import RecipeError
from export.graph import onnx_file
from export.models.road import detections, road_frames, road_network
from export.models.road import train as train_road
from export.models.road.detections import BOXES, CLASSES, SCORES
from export.models.road.road_frames import FIRST_HELD_OUT, LABELS
from export.models.road.road_scene import PREPROCESSOR, WEIGHTS, RoadScene, held_out


def test_the_committed_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size <= 2_000_000


def test_a_frame_follows_from_its_seed_and_its_boxes_lie_inside() -> None:
    frame, again, other = (road_frames.frame(seed) for seed in (7, 7, 8))

    assert frame.image.tobytes() == again.image.tobytes() != other.image.tobytes()
    for made in (frame, other):
        assert (made.boxes[:, :2] < made.boxes[:, 2:]).all()
        assert made.boxes.min() >= 0
        assert made.boxes.max() <= 1
        assert len(made.boxes) == len(made.classes) > 0


def test_every_class_is_on_held_out_frames_that_the_training_never_reaches() -> None:
    _, truth = held_out()
    assert set(truth[CLASSES].tolist()) == set(range(len(LABELS)))
    assert train_road.BATCH * train_road.STEPS < 10_000_000 < FIRST_HELD_OUT


def test_the_evaluation_is_what_the_pipeline_makes_of_the_files() -> None:
    recipe = RoadScene()
    pixels, files = recipe.evaluation().inputs["pixels"], recipe.systems[0].requests()["image"]

    assert len(pixels) == len(files)
    for row in (0, 5, -1):
        assert (PREPROCESSOR(road_frames.opened(files[row, 0])) == pixels[row]).all()


def test_an_answer_that_is_the_target_of_the_training_is_right() -> None:
    """The network learns what the decoding reads: perfect scores and distances give the true boxes."""
    import torch

    made = road_frames.frame(3)
    size = np.array([road_network.WIDTH, road_network.HEIGHT] * 2, np.float32)
    scores, sides, weights = train_road.targets([made.boxes * size], [made.classes])
    middle = road_network.centres().T.reshape(2, *weights.shape[1:])
    distances = np.concatenate([middle - sides[0, :2], sides[0, 2:] - middle]) / road_network.STRIDE
    sure = torch.from_numpy(np.where(scores == 1, 10.0, -10.0).astype(np.float32))
    answer = (sure, torch.from_numpy(np.where(weights > 0, distances, 0.1).astype(np.float32))[None])

    class Perfect(torch.nn.Module):  # type: ignore[misc]
        def forward(self, pixels: Any) -> Any:
            return answer

    pixels = torch.zeros(1, road_network.HEIGHT, road_network.WIDTH, 3, dtype=torch.uint8)
    found = detections.suppress(road_network.detector(Perfect())(pixels).numpy())

    truth = {BOXES: made.boxes, CLASSES: made.classes, "frames": np.zeros(len(made.classes), int)}
    assert detections.mean_average_precision(found, truth, overlap=0.95) == pytest.approx(1.0)


def test_the_sentence_names_what_is_there_and_where() -> None:
    answer = {
        BOXES: np.array([[[0.1, 0.5, 0.3, 0.75], [0, 0, 0.1, 0.1]], [[0, 0, 0, 0], [0, 0, 0, 0]]], np.float32),
        SCORES: np.array([[0.98, 0.2], [0, 0]], np.float32),
        CLASSES: np.array([[0, 5], [0, 0]], np.int32),
    }
    assert RoadScene().interpret(answer) == ["car (98 %) at 0.10-0.30, 0.50-0.75", "nothing on the road"]


@pytest.fixture(scope="module")
def yolos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny detector of transformers with random weights, as save_pretrained writes it."""
    import torch
    from transformers import YolosConfig, YolosForObjectDetection

    torch.manual_seed(0)
    config = YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=(32, 48),
        patch_size=16,
        num_detection_tokens=30,
        use_mid_position_embeddings=False,
        id2label={0: "bus", 1: "tram"},
    )
    folder = tmp_path_factory.mktemp("yolos")
    YolosForObjectDetection(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 512}, "image_mean": [0.4, 0.4, 0.4]}')
    return folder


def test_a_detector_of_transformers_is_exported_by_the_same_code(yolos: Path, tmp_path: Path) -> None:
    recipe = RoadScene()
    source = recipe.load(recipe.resolve(str(yolos)))
    source.write_onnx(tmp_path / "model.onnx")
    station = onnx_file.session(tmp_path / "model.onnx")

    pixels = source.evaluation.inputs["pixels"][:3]
    expected, found = source.predict({"pixels": pixels}), station({"pixels": pixels})

    assert pixels.shape == (3, 32, 48, 3)
    assert (expected[SCORES] > 0).any()
    figures = recipe.score(found, source.evaluation, expected)
    assert figures == {"found_again": 1.0}
    assert np.abs(found[SCORES] - expected[SCORES]).max() < 1e-5
    assert source.files["1/labels.txt"] == b"bus\ntram\n"


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    (tmp_path / "preprocessor_config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    recipe = RoadScene()
    with pytest.raises(RecipeError) as refused:
        recipe.load(recipe.resolve(str(tmp_path)))
    assert refused.value.field == "architectures"
