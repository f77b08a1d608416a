"""How much memory exporting minilm takes: `python tests/support/export_memory.py [fp32|fp16|int8]` prints JSON.

`peak_bytes` is the largest resident set during the export (mapped files included) less that of the same process after
it had exported a toy transformer by the same path, which imports every library and fills their caches. `model_bytes`
is the size of the model's weights in FP32. `steps` are the peaks of the single steps.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from export import recipes
from export.exporter import export_model
from export.graph import onnx_file
from export.models.text import minilm
from export.precision import memory

ROOT = Path(__file__).parents[2]


def warm(room: Path) -> None:
    """Load, run and convert a transformer of two tiny layers, and run its ONNX file."""
    import torch
    from transformers import AutoModel, BertConfig, BertModel

    config = BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    with onnx_file.quiet():
        BertModel(config).save_pretrained(room / "toy")
        network = AutoModel.from_pretrained(room / "toy", use_safetensors=True, attn_implementation="eager")
    module = minilm._embedder_class()(network).eval()
    ids = torch.ones(2, 12, dtype=torch.int64)
    axes = {0: "batch", 1: "tokens"}
    names = ("input_ids", "attention_mask")
    onnx_file.write_torch(
        module, {name: ids.clone() for name in names}, dict.fromkeys(names, axes), "vector", room / "toy.onnx"
    )
    onnx_file.session(room / "toy.onnx")({name: ids.numpy() for name in names})
    with torch.inference_mode():
        module(torch.ones(8, 64, dtype=torch.int64), torch.ones(8, 64, dtype=torch.int64))
    recipe = minilm.MiniLM()
    minilm._tokenizer(minilm._folder(recipe.resolve(None)), 256)


def resident_bytes(key: str) -> int:
    """VmRSS, or VmHWM: the peak since `/proc/self/clear_refs` was last told 5."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def measure(precision: str) -> dict[str, object]:
    """Export minilm into a fresh repository."""
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        warm(room)
        repository = room / "model_repository"
        ignored = shutil.ignore_patterns("*.onnx", "*.json", "*.npz", "*.plan", "__pycache__")
        shutil.copytree(ROOT / "model_repository", repository, ignore=ignored)
        memory.release()
        base = resident_bytes("VmRSS")
        clear = Path("/proc/self/clear_refs")
        clear.write_text("5")
        steps: dict[str, int] = {}

        def note(step: str, done: int, total: int) -> None:
            steps[step] = max(steps.get(step, 0), resident_bytes("VmHWM") - base)
            clear.write_text("5")

        export_model(recipes.find("minilm"), repository, precision=precision, on_progress=note)
        note("end", 1, 1)
        recipe = recipes.find("minilm")
        model_bytes = (minilm._folder(recipe.resolve(None)) / "model.safetensors").stat().st_size
    peak = max(steps.values())
    return {
        "precision": precision,
        "peak_bytes": peak,
        "model_bytes": model_bytes,
        "ratio": round(peak / model_bytes, 2),
        "steps": steps,
    }


if __name__ == "__main__":
    json.dump(measure(*(sys.argv[1:] or ["fp32"])), sys.stdout, indent=1)
    print()
