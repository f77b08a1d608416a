"""Suppression in the graph and in numpy, and average precision against cases worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.graph import onnx_file
from export.models.road import detections
from export.models.road.detections import BOXES, CANDIDATES, CLASSES, KEPT, SCORES

WHOLE = (0.0, 0.0, 0.5, 0.5)
HALF = (0.0, 0.0, 0.25, 0.5)  # overlaps WHOLE by 1/2
MOST = (0.0, 0.0, 0.5, 0.375)  # by 3/4
AWAY = (0.625, 0.625, 0.875, 0.875)


def graph(path: Path, classes: int, places: int) -> Path:
    """A model whose candidates are its input, with the suppression behind."""
    row = [places, 4 + classes]
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", *row]) for n in ("given", CANDIDATES)]
    made = helper.make_graph([helper.make_node("Identity", ["given"], [CANDIDATES])], "g", tensors[:1], tensors[1:])
    opset = [helper.make_opsetid("", onnx_file.OPSET)]
    onnx.save(helper.make_model(made, opset_imports=opset, ir_version=onnx_file.IR_VERSION), str(path))
    detections.append_suppression(path, classes, places)
    return path


@pytest.mark.parametrize(("classes", "places"), [(6, 400), (3, 20)], ids=["more places than considered", "fewer"])
@pytest.mark.parametrize("highest", [0.0, 0.3, 1.0], ids=["nothing there", "some", "a crowd"])
def test_the_graph_suppresses_as_numpy_does(tmp_path: Path, classes: int, places: int, highest: float) -> None:
    rng = np.random.default_rng(places)
    corners = rng.random((3, places, 2))
    sizes, scores = rng.random((3, places, 2)) * 0.3, rng.random((3, places, classes)) ** 8 * highest
    candidates = np.concatenate([corners, corners + sizes, scores], axis=2).astype(np.float32)

    found = onnx_file.session(graph(tmp_path / "g.onnx", classes, places))({"given": candidates})

    expected = detections.suppress(candidates)
    assert (expected[SCORES] > 0).any() == (highest > 0)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert (found[name] == values).all(), name


def test_of_boxes_of_one_class_that_overlap_by_more_than_half_the_best_stays() -> None:
    places = [
        (*MOST, 0.8, 0.0),  # hidden by WHOLE
        (*WHOLE, 0.9, 0.0),
        (*HALF, 0.7, 0.0),  # overlaps by half, not more
        (*MOST, 0.0, 0.6),  # of another class
        (*AWAY, 0.04, 0.0),  # too improbable
    ]

    found = detections.suppress(np.array([places], np.float32))

    kept = [(0, 0.9, WHOLE), (0, 0.7, HALF), (1, 0.6, MOST)]
    assert found[CLASSES][0, :4].tolist() == [0, 0, 1, 0]
    for row, (_, score, box) in enumerate(kept):
        assert found[SCORES][0, row] == pytest.approx(score)
        assert found[BOXES][0, row] == pytest.approx(box)
    assert not found[SCORES][0, 3:].any()
    assert not found[BOXES][0, 3:].any()


def detected(*frames: list[tuple[int, float, tuple[float, ...]]]) -> dict[str, np.ndarray]:
    """Detections of each frame: class, score, box."""
    made = {
        BOXES: np.zeros((len(frames), KEPT, 4), np.float32),
        SCORES: np.zeros((len(frames), KEPT), np.float32),
        CLASSES: np.zeros((len(frames), KEPT), np.int32),
    }
    for number, frame in enumerate(frames):
        for row, (kind, score, box) in enumerate(frame):
            made[CLASSES][number, row], made[SCORES][number, row], made[BOXES][number, row] = kind, score, box
    return made


def truth(*objects: tuple[int, int, tuple[float, ...]]) -> dict[str, np.ndarray]:
    """Frame, class and box of each object."""
    frames, kinds, boxes = zip(*objects, strict=True)
    return {"frames": np.array(frames), CLASSES: np.array(kinds), BOXES: np.array(boxes, np.float32)}


ONE, TWO = (0, 0, WHOLE), (0, 0, AWAY)
PRECISION = {
    "all found": ([[(0, 0.9, WHOLE), (0, 0.8, AWAY)]], [ONE, TWO], 1.0),
    "nothing found": ([[]], [ONE, TWO], 0.0),
    "of another class": ([[(1, 0.9, WHOLE)]], [ONE], 0.0),
    "in another frame": ([[], [(0, 0.9, WHOLE)]], [ONE], 0.0),
    # Precision 1 up to recall 1/2, which is 51 of the 101 recalls, and 0 beyond.
    "one of two": ([[(0, 0.9, WHOLE)]], [ONE, TWO], 51 / 101),
    # The first is wrong: precision 1/2 at recall 1/2, 2/3 at recall 1, so 2/3 at every recall.
    "the surest is wrong": ([[(0, 0.9, (0.5, 0.0, 0.6, 0.1)), (0, 0.8, WHOLE), (0, 0.7, AWAY)]], [ONE, TWO], 2 / 3),
    "the least sure is wrong": ([[(0, 0.9, WHOLE), (0, 0.8, AWAY), (0, 0.1, HALF)]], [ONE, TWO], 1.0),
    # An object is found once: the second box on it is wrong, and comes before the other object.
    "one object twice": ([[(0, 0.9, WHOLE), (0, 0.8, MOST), (0, 0.7, AWAY)]], [ONE, TWO], (51 + 50 * 2 / 3) / 101),
    "an overlap of half is enough": ([[(0, 0.9, HALF)]], [ONE], 1.0),
    "two classes count alike": ([[(0, 0.9, WHOLE)]], [ONE, (0, 1, AWAY), (0, 1, HALF)], 0.5),
}


@pytest.mark.parametrize("case", PRECISION)
def test_average_precision_as_worked_out_by_hand(case: str) -> None:
    frames, objects, expected = PRECISION[case]
    assert detections.mean_average_precision(detected(*frames), truth(*objects)) == pytest.approx(expected, abs=1e-6)


def test_found_again_asks_for_class_and_place_of_what_the_source_is_sure_of() -> None:
    source = detected([(0, 0.9, WHOLE), (1, 0.8, AWAY), (0, 0.3, HALF)])
    assert detections.found_again(source, source) == 1.0
    assert detections.found_again(detected([(1, 0.5, AWAY), (0, 0.4, MOST)]), source) == 0.5
    assert detections.found_again(detected([(0, 0.9, AWAY)]), source) == 0.0
