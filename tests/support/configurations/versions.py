"""Configurations of versions, backends and files: what Triton serves of a folder, and what it completes."""

from __future__ import annotations

from configurations.case import MODEL_PY, ONNX, Case, Graph, X, Y, model, refused, served

BOTH = {"1/model.onnx": Graph(), "2/model.onnx": Graph()}
FIRST = {"1/model.onnx": Graph(), "2/": ""}
SECOND = {"1/": "", "2/model.onnx": Graph()}
LATEST, ALL = "version_policy {{ latest {{ num_versions: {} }} }}", "version_policy { all { } }"
SPECIFIC = "version_policy {{ specific {{ versions: [ {} ] }} }}"
IO = X + Y


def onnx(more: str = "") -> str:
    """A model of a graph: Triton refuses one of python without its file only after half a minute."""
    return model(more, backend=ONNX)


# fmt: off
VERSIONS = [
    served("two versions of which the latest is served", onnx(), BOTH),
    served("two versions of which the latest is whole", onnx(), SECOND),
    refused("two versions of which the latest has no file", "artefact", "", onnx(), FIRST),
    served("two versions of which one is asked for", onnx(SPECIFIC.format(1)), FIRST),
    served("a version beside one that is missing", onnx(SPECIFIC.format("1, 3")), BOTH),
    refused("a version that is missing", "version-policy", "version_policy.specific.versions[0]",
        onnx(SPECIFIC.format(3)), BOTH),
    refused("no version asked for", "version-policy", "version_policy.specific", onnx(SPECIFIC.format(""))),
    served("the latest two versions", onnx(LATEST.format(2)), BOTH),
    refused("the latest two versions of which one has no file", "artefact", "", onnx(LATEST.format(2)), FIRST),
    refused("the latest no versions", "version-policy", "version_policy.latest", onnx(LATEST.format(0))),
    served("all versions", onnx(ALL), BOTH),
    refused("all versions of which one has no file", "artefact", "", onnx(ALL), FIRST),
    refused("no version folder", "versions-present", "", onnx(), {}),
    refused("a version folder with a leading zero", "versions-present", "", onnx(), {"01/model.onnx": Graph()}),
    refused("a version folder with a letter", "versions-present", "", onnx(), {"v1/model.onnx": Graph()}),
    served("a version folder beside others", onnx(), {"1/model.onnx": Graph(), "01/": "", "v2/": "", "warmup/": ""}),
    served("version zero", onnx(), {"0/model.onnx": Graph()}),
    refused("a version folder with a letter behind", "versions-present", "", onnx(), {"1a/model.onnx": Graph()}),
    refused("a negative version folder", "versions-present", "", onnx(), {"-1/model.onnx": Graph()}),
    refused("a version folder without a file", "artefact", "", onnx(), {"1/": ""}),
]
# fmt: on

FILES = [
    served("another name of the file", onnx('default_model_filename: "net.onnx"'), {"1/net.onnx": Graph()}),
    refused(
        "another name of the file that is missing",
        "artefact",
        "default_model_filename",
        onnx('default_model_filename: "net.onnx"'),
    ),
    served("a file for a GPU", onnx('cc_model_filenames { key: "7.5" value: "old.onnx" }')),
    refused(
        "a file for a GPU only",
        "artefact",
        "",
        onnx('cc_model_filenames { key: "7.5" value: "old.onnx" }'),
        {"1/old.onnx": Graph()},
    ),
]

# fmt: off
BACKENDS = [
    served("a platform", model(backend='platform: "onnxruntime_onnx"')),
    served("a platform and its backend", model(backend=f'{ONNX} platform: "onnxruntime_onnx"')),
    refused("a platform of another backend", "backend", "platform", model(backend=f'{ONNX} platform: "tensorrt_plan"')),
    refused("an unknown platform of a known backend", "backend", "platform", model(backend=f'{ONNX} platform: "onnx"')),
    refused("a backend as platform", "backend", "platform", model(backend='platform: "onnxruntime"')),
    refused("python as platform", "backend", "platform", model(backend='platform: "python"')),
    refused("an unknown platform", "backend", "platform", model(backend='platform: "nothing"')),
    refused("a platform as backend", "backend", "backend", model(backend='backend: "onnxruntime_onnx"')),
    refused("an unknown backend", "backend", "backend", model(backend='backend: "pythonn"')),
    served("python with a platform", model(backend='backend: "python" platform: "mine"')),
    served("no backend beside a model py", model(backend="")),
    served("no backend beside a model onnx", model(backend=""), {"1/model.onnx": Graph()}),
    refused("no backend and a file of another name", "backend", "default_model_filename",
        model('default_model_filename: "net.py"', backend=""), {"1/net.py": MODEL_PY}),
    refused("no backend and no file", "backend", "", model(backend=""), {"1/": ""}),
    refused("no backend and an unknown file", "backend", "", model(backend=""), {"1/model.bin": "x"}),
    served("no configuration beside a graph", None, {"1/model.onnx": Graph()}),
    refused("no configuration beside nothing", "backend", "", None, {"1/": ""}),
    served("no configuration beside a model py", None, {"1/model.py": MODEL_PY}),
    refused("an empty folder", "versions-present", "", None, {}),
    *(refused(f"a model of {name} without its file", "artefact", "", model(backend=f'backend: "{name}"'), {"1/": ""})
      for name in ("onnxruntime", "tensorrt", "pytorch", "openvino", "dali", "vllm")),
    *(refused(f"a {name} without its file", "artefact", "", model(backend=f'platform: "{name}"'), {"1/": ""})
      for name in ("onnxruntime_onnx", "tensorrt_plan", "pytorch_libtorch", "tensorflow_savedmodel")),
]
# fmt: on

CASES: list[Case] = [*VERSIONS, *FILES, *BACKENDS]
