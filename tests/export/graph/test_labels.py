"""`labels`: which outputs get a label file, and what is said of those that do not."""

from dataclasses import replace

import pytest
from imported_models import F, matrix, node, write

from export.add import add as adding
from export.config import config as configs
from export.graph.labels import contents, files, fitting
from export.graph.signature import Signature, TensorSpec
from export.lint.lint import lint

AB = ("a", "b")
ROWS = [
    ((-1, 2), True, AB, True, "a label for each number"),
    ((2,), False, AB, True, "a whole vector without a batch"),
    ((1, 2), False, AB, True, "a row of its own, which has as many numbers"),
    ((-1, 3), True, AB, False, "numbers without a label"),
    ((-1, -1, 2), True, AB, False, "a vector for each token"),
    ((-1, 2, 2), True, AB, False, "a table"),
    ((-1, 1, 2), True, AB, True, "a table of one row"),
    ((-1,), True, AB, False, "no axis but the batch"),
]


@pytest.mark.parametrize(("dims", "batched", "names", "fits", "why"), ROWS, ids=[row[-1] for row in ROWS])
def test_a_label_file_is_for_a_vector(dims, batched, names, fits, why):
    shape = Signature((), (TensorSpec("y", "TYPE_FP32", dims),))
    found, notes = fitting({"y": names}, shape, batched)
    assert found == ({"y": "labels.txt"} if fits else {})
    assert len(notes) == (not fits)


def test_an_output_that_is_not_served_is_named():
    found, notes = fitting({"y": AB}, Signature((), ()), True)
    assert found == {}
    assert "'y'" in notes[0]
    assert "a, b" in notes[0]


def test_each_output_has_a_file_of_its_own_with_a_name_on_each_line():
    both = {"y": ["a", "one\nb\u2028c"], "z": [0, 1]}
    assert files(both) == {"y": "labels_1.txt", "z": "labels_2.txt"}
    assert contents(both) == {"labels_1.txt": ("a", "one b c"), "labels_2.txt": ("0", "1")}


def test_a_source_that_knows_its_classes_is_added_with_its_label_file(tmp_path, monkeypatch):
    repository = tmp_path / "model_repository"
    repository.mkdir()
    shapes = [("x", F, ["rows", 3])], [("y", F, ["rows", 2]), ("z", F, ["rows", 4])]
    nodes = [node("MatMul", ["x", "w"], ["y"]), node("MatMul", ["x", "v"], ["z"])]
    path = write(tmp_path / "m.onnx", nodes, *shapes, {"w": matrix(3, 2), "v": matrix(3, 4)})
    import_model = adding.import_model
    monkeypatch.setattr(adding, "import_model", lambda *given: replace(import_model(*given), labels={"y": AB, "z": AB}))
    made = adding.add("mine", adding.AddOptions("onnx", str(path)), repository)
    message = configs.load(repository / "mine" / "config.pbtxt").message
    assert [output.label_filename for output in message.output] == ["labels_1.txt", ""]
    assert (repository / "mine" / "labels_1.txt").read_text() == "a\nb\n"
    assert "labels_1.txt" in made.exported.manifest.files
    assert [note for note in made.notes if "'z'" in note]
    assert lint(repository) == []
