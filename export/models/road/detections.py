"""Detections: non-maximum suppression, in numpy and as the end of an ONNX graph, and the figures they are judged by.

A detector's candidates are FP32 [n, places, 4 + classes]: of each place a box (left, top, right, bottom, as shares of
the picture) and a score for each class. Suppression keeps of boxes of one class that overlap by more than MOST_OVERLAP
the one with the highest score. What is left comes best first, KEPT rows for each picture: `boxes` FP32 [n, KEPT, 4],
`scores` FP32 [n, KEPT] and `classes` INT32 [n, KEPT]. Rows behind the last detection are zeros.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from export.recipe.recipe import Array, Arrays

KEPT = 50
LOWEST_SCORE = 0.05
MOST_OVERLAP = 0.5
CONSIDERED = 200
"""Of a picture's places, those with the highest scores, take part in the suppression."""

CANDIDATES, BOXES, SCORES, CLASSES = "candidates", "boxes", "scores", "classes"
_RECALLS = np.linspace(0, 1, 101)


def overlaps(boxes: Array, others: Array) -> Array:
    """Intersection over union of each box [n, 4] with each of the others [m, 4]: [n, m]."""
    corner = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(boxes[:, None, :2], others[None, :, :2])
    common = corner.clip(0).prod(axis=2)
    sizes, other_sizes = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, others))
    return np.asarray(common / np.maximum(sizes[:, None] + other_sizes[None, :] - common, 1e-12))


def suppress(candidates: Array) -> dict[str, Array]:
    """The detections among candidates."""
    pictures = [_suppress(picture) for picture in np.asarray(candidates, np.float32)]
    return {name: np.stack([picture[name] for picture in pictures]) for name in (BOXES, SCORES, CLASSES)}


def _suppress(candidates: Array) -> dict[str, Array]:
    best = np.argsort(-candidates[:, 4:].max(axis=1), kind="stable")[:CONSIDERED]
    boxes, scores = candidates[best, :4], candidates[best, 4:]
    kept: list[tuple[float, int, int]] = []
    for kind in range(scores.shape[1]):
        order = [int(place) for place in np.argsort(-scores[:, kind], kind="stable")]
        left = [place for place in order if scores[place, kind] > LOWEST_SCORE]
        while left:
            first, *others = left
            kept.append((float(scores[first, kind]), kind, first))
            over = overlaps(boxes[[first]], boxes[others])[0] > MOST_OVERLAP
            left = [place for place, hidden in zip(others, over, strict=True) if not hidden]
    kept = sorted(kept, key=lambda each: -each[0])[:KEPT]
    made = {
        BOXES: np.zeros((KEPT, 4), np.float32),
        SCORES: np.zeros(KEPT, np.float32),
        CLASSES: np.zeros(KEPT, np.int32),
    }
    for row, (score, kind, place) in enumerate(kept):
        made[BOXES][row], made[SCORES][row], made[CLASSES][row] = boxes[place], score, kind
    return made


def append_suppression(path: Path, classes: int, places: int) -> None:
    """Let an ONNX file whose only output is `candidates` give detections instead."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(str(path))
    graph, considered = model.graph, min(CONSIDERED, places)
    whole, single, narrow = TensorProto.INT64, TensorProto.FLOAT, TensorProto.INT32
    for name, kind, dims, values in (
        ("last_axis", whole, [1], [-1]),
        ("box_and_scores", whole, [2], [4, classes]),
        ("considered", whole, [1], [considered]),
        ("places_of_a_class", whole, [], [considered]),
        ("most_overlap", single, [1], [MOST_OVERLAP]),
        ("lowest_score", single, [1], [LOWEST_SCORE]),
        ("one_row", whole, [2], [0, -1]),
        ("kept", whole, [1], [KEPT]),
        ("no_score", single, [], [0.0]),
        ("no_class", narrow, [], [0]),
    ):
        graph.initializer.append(helper.make_tensor(name, kind, dims, values))
    for operator, inputs, outputs, attributes in _SUPPRESSION:
        name = _node_name(outputs)
        graph.node.append(helper.make_node(operator, inputs.split(), outputs.split(), name=name, **attributes))
    batch = graph.output[0].type.tensor_type.shape.dim[0].dim_param
    del graph.output[:]
    for name, kind, row in ((BOXES, single, [KEPT, 4]), (SCORES, single, [KEPT]), (CLASSES, narrow, [KEPT])):
        graph.output.append(helper.make_tensor_value_info(name, kind, [batch, *row]))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _node_name(outputs: str) -> str:
    return f"suppression/{outputs.split()[-1]}"


# The operators behind the candidates: operator, inputs, outputs, attributes.
_SUPPRESSION: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    # The places with the highest scores.
    ("Split", f"{CANDIDATES} box_and_scores", "all_boxes all_scores", {"axis": 2}),
    ("ReduceMax", "all_scores last_axis", "best_scores", {"keepdims": 0}),
    ("TopK", "best_scores considered", "sorted_scores best_places", {"axis": 1}),
    ("Unsqueeze", "best_places last_axis", "best_rows", {}),
    ("GatherND", "all_boxes best_rows", "near_boxes", {"batch_dims": 1}),
    ("GatherND", "all_scores best_rows", "near_scores", {"batch_dims": 1}),
    ("Transpose", "near_scores", "class_scores", {"perm": [0, 2, 1]}),
    # What is selected keeps its score, everything else gets 0.
    ("NonMaxSuppression", "near_boxes class_scores considered most_overlap lowest_score", "selected", {}),
    ("GatherND", "class_scores selected", "selected_scores", {}),
    ("Mul", "class_scores no_score", "no_scores", {}),
    ("ScatterND", "no_scores selected selected_scores", "kept_scores", {}),
    ("Reshape", "kept_scores one_row", "flat_scores", {}),
    ("TopK", "flat_scores kept", f"{SCORES} flat_places", {"axis": 1}),
    # A flat place is a class and a row of the boxes; behind the last detection come zeros.
    ("Greater", f"{SCORES} no_score", "is_used", {}),
    ("Div", "flat_places places_of_a_class", "kept_classes", {}),
    ("Cast", "kept_classes", "narrow_classes", {"to": 6}),  # INT32
    ("Where", "is_used narrow_classes no_class", CLASSES, {}),
    ("Mod", "flat_places places_of_a_class", "kept_places", {}),
    ("Unsqueeze", "kept_places last_axis", "kept_rows", {}),
    ("GatherND", "near_boxes kept_rows", "kept_boxes", {"batch_dims": 1}),
    ("Unsqueeze", "is_used last_axis", "is_used_box", {}),
    ("Where", "is_used_box kept_boxes no_score", BOXES, {}),
)
SUPPRESSION_NODES = tuple(_node_name(outputs) for _, _, outputs, _ in _SUPPRESSION)


def mean_average_precision(detections: Arrays, truth: Arrays, *, overlap: float = 0.5) -> float:
    """COCO's average precision at one overlap, over 101 recalls, mean of all classes that the truth has.

    `truth` are `boxes` [m, 4], `classes` [m] and `frames` [m], the row of the detections that each belongs to.
    """
    kinds = np.unique(truth[CLASSES]).tolist()
    return float(np.mean([_average_precision(detections, truth, kind, overlap) for kind in kinds]))


def _average_precision(detections: Arrays, truth: Arrays, kind: int, overlap: float) -> float:
    ours = truth[CLASSES] == kind
    frames, ranks = np.nonzero((detections[CLASSES] == kind) & (detections[SCORES] > 0))
    order = np.argsort(-detections[SCORES][frames, ranks], kind="stable")
    hits = np.zeros(len(order), bool)
    taken: set[int] = set()
    for number, (frame, rank) in enumerate(zip(frames[order], ranks[order], strict=True)):
        there = [int(row) for row in np.flatnonzero(ours & (truth["frames"] == frame)) if row not in taken]
        if there:
            shares = overlaps(detections[BOXES][frame, [rank]], truth[BOXES][there])[0]
            if shares.max() >= overlap:
                taken.add(there[int(shares.argmax())])
                hits[number] = True
    found = np.cumsum(hits)
    recall, precision = found / ours.sum(), found / np.arange(1, len(hits) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(recall, _RECALLS - 1e-9)
    return float(np.append(best_from_here, 0.0)[reached].mean())  # 0 at recalls that are not reached


def found_again(detections: Arrays, source: Arrays, *, score: float = 0.5, overlap: float = 0.9) -> float:
    """Of the source's detections with this score and more, the share that another station has at the same place."""
    wanted = found = 0
    for frame in range(len(source[SCORES])):
        sure = source[SCORES][frame] >= score
        shares = overlaps(source[BOXES][frame][sure], detections[BOXES][frame])
        same = source[CLASSES][frame][sure][:, None] == detections[CLASSES][frame][None, :]
        same &= detections[SCORES][frame][None, :] > 0
        wanted += int(sure.sum())
        found += int((same & (shares >= overlap)).any(axis=1).sum())
    return found / wanted if wanted else 1.0
