"""FP16: weights and arithmetic in half precision, inputs and outputs as they were.

ONNX Runtime's own converter is used. It clips what half precision cannot hold, leaves operators without half-precision
kernels in FP32, and needs no package that is not there already; docs/precision.md has what it was compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export import onnx_file
from export.precision import kept_float
from export.recipe import Reduced

METHOD = "onnxruntime.transformers.float16, inputs and outputs FP32"


class HalfPrecision:
    """One FP32 graph and its nodes that stay in FP32."""

    def __init__(self, full: Path, rule: Reduced, excluded: Sequence[str]) -> None:
        import onnx

        self.full = full
        model = onnx.load(str(full))
        self.kept = kept_float(model, rule.keep_float, excluded)
        self._types = {node.name: str(node.op_type) for node in model.graph.node}

    @property
    def types(self) -> dict[str, str]:
        """The operator types that are converted, each by itself: what an exclusion may name."""
        return {kind: kind for name, kind in sorted(self._types.items()) if name not in self.kept}

    def write(self, target: Path, only: str | None = None) -> None:
        """Write the graph in mixed precision; with `only`, nothing but nodes of that operator type is converted."""
        import onnx

        others = {name for name, kind in self._types.items() if only is not None and kind != only}
        with onnx_file.quiet():
            from onnxruntime.transformers.float16 import convert_float_to_float16
            from onnxruntime.transformers.onnx_model import OnnxModel

            model = onnx.load(str(self.full))
            blocked = sorted(self.kept | others)
            wrapped = OnnxModel(convert_float_to_float16(model, keep_io_types=True, node_block_list=blocked))
            wrapped.topological_sort(is_deterministic=True)
            onnx.save(wrapped.model, str(target))
        onnx_file.strip(target)

    def record(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {"method": METHOD, "kept_float": sorted(self.kept)}
